"""The quotas of EC2 and EBS that a build can meet: "Amazon EC2 endpoints and quotas", "Amazon EBS endpoints and quotas"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.aws_bed.bed import Answer, Bed
from tests.aws_bed.wire import ApiError, Call

_QUOTAS: Mapping[tuple[str, str], tuple[str, float]] = {
    ("ec2", "L-1216C47A"): ("Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", 64.0),
    ("ec2", "L-34B43A08"): ("All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests", 32.0),
    ("ec2", "L-DB2E81BA"): ("Running On-Demand G and VT instances", 0.0),
    ("ec2", "L-B665C33B"): ("AMIs", 50000.0),
    ("ebs", "L-309BACF6"): ("Snapshots per Region", 100000.0),
    ("ebs", "L-7A658B76"): ("Storage for General Purpose SSD (gp3) volumes, in TiB", 50.0),
}


def _about(call: Call, service: str, code: str) -> dict[str, Any]:
    name, value = _QUOTAS[service, code]
    return {
        "ServiceCode": service,
        "QuotaCode": code,
        "QuotaName": name,
        "QuotaArn": f"arn:aws:servicequotas:{call.region}:{call.account}:{service}/{code}",
        "Value": value,
        "Unit": "None",
        "Adjustable": True,
        "GlobalQuota": False,
    }


def get_service_quota(bed: Bed, call: Call) -> Answer:
    """GetServiceQuota."""
    key = (call.params["ServiceCode"], call.params["QuotaCode"])
    if key not in _QUOTAS:
        raise ApiError("NoSuchResourceException", f"The quota {key[1]} of {key[0]} is not known.")
    return {"Quota": _about(call, *key)}


def list_service_quotas(bed: Bed, call: Call) -> Answer:
    """ListServiceQuotas."""
    service = call.params["ServiceCode"]
    return {"Quotas": [_about(call, *key) for key in _QUOTAS if key[0] == service]}


ACTIONS = {"GetServiceQuota": get_service_quota, "ListServiceQuotas": list_service_quotas}
