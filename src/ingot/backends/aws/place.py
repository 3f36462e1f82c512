"""Where instances are put: the subnet, and the address that may reach them."""

from __future__ import annotations

import ipaddress
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ingot.backends.aws.cloud import Cloud
from ingot.backends.aws.shape import TargetShape
from ingot.backends.aws.tags import filters
from ingot.errors import BackendError, NotFoundError

_WHO_AM_I = "https://checkip.amazonaws.com"
"""Tells a caller its own public address."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A subnet and its VPC; "" both where EC2 is to take the default ones."""

    subnet: str = ""
    vpc: str = ""


def find_place(cloud: Cloud, settings: TargetShape) -> Place:
    """The subnet that the target names, or one of the default VPC.

    Raises NotFoundError where there is none, with what to do about it.
    """
    if settings.subnet:
        return _place(cloud.ask("describe_subnets", SubnetIds=[settings.subnet])["Subnets"][0])
    wanted = settings.subnet_filters
    if wanted:
        found = list(cloud.list("describe_subnets", "Subnets", Filters=filters(wanted)))
        if not found:
            told = ", ".join(f"{name}={'|'.join(values)}" for name, values in wanted.items())
            raise NotFoundError(
                f"no subnet in {cloud.region} fits the target's filters ({told})",
                hint=f"`aws ec2 describe-subnets --region {cloud.region}` lists them",
            )
        return _place(max(found, key=lambda one: (one["AvailableIpAddressCount"], one["SubnetId"])))
    if any(cloud.list("describe_vpcs", "Vpcs", Filters=filters({"is-default": "true"}))):
        return Place()
    raise NotFoundError(
        f"there is no default VPC in {cloud.region}, and the target names no `subnet`",
        hint=f"name a `subnet`, or make a default VPC: `aws ec2 create-default-vpc --region {cloud.region}`",
    )


def _place(subnet: Any) -> Place:
    return Place(subnet=subnet["SubnetId"], vpc=subnet["VpcId"])


def own_networks(settings: TargetShape) -> Sequence[str]:
    """Whom a security group lets in: the networks that the target names, or this computer's public address alone."""
    if settings.allow_from:
        return settings.allow_from
    try:
        with urllib.request.urlopen(_WHO_AM_I, timeout=10) as answer:
            address = ipaddress.ip_address(answer.read(64).decode().strip())
    except (OSError, ValueError) as error:
        raise BackendError(
            f"this computer's own address is not known: {_WHO_AM_I} did not tell it ({error})",
            hint="set `allow_from` on the target, such as `[198.51.100.7/32]`",
        ) from error
    return [f"{address}/{address.max_prefixlen}"]
