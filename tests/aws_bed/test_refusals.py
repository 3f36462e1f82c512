"""The bed refuses what AWS refuses, with AWS's code: `tests/data/aws-bed/invalid.yaml`."""

from __future__ import annotations

import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Any

import pytest
import yaml
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.aws_bed import disks, uploads
from tests.aws_bed.fixture import AwsBed

pytestmark = pytest.mark.local

_FILE = Path(__file__).parent.parent / "data/aws-bed/invalid.yaml"
CASES: list[dict[str, Any]] = yaml.safe_load(_FILE.read_text())
_SIGNED = "AWS4-HMAC-SHA256 Credential=AKIABEDHOME000000000/20260101/us-east-1/ec2/aws4_request, SignedHeaders=host, Signature=00"


@pytest.fixture(scope="module")
def things(aws_bed: AwsBed) -> Iterator[dict[str, Any]]:
    """What the requests name."""
    ec2, ebs = aws_bed.client("ec2"), aws_bed.client("ebs")
    block = bytes(disks.BLOCK)
    snapshot = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    uploads.put(ebs, snapshot, 0, block)
    ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=1)
    aws_bed.await_snapshot(snapshot)

    def image(name: str) -> str:
        device = {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot}}
        about = ec2.register_image(Name=name, RootDeviceName="/dev/xvda", BlockDeviceMappings=[device])
        aws_bed.await_image(about["ImageId"])
        return str(about["ImageId"])

    found = {
        "source": aws_bed.source(),
        "snapshot": snapshot,
        "open_snapshot": ebs.start_snapshot(VolumeSize=1)["SnapshotId"],
        "image": image("invalid-cases"),
        "image_name": "invalid-cases",
        "disabled_image": image("invalid-disabled"),
        "protected_image": image("invalid-protected"),
        "gone_image": image("invalid-gone"),
        "token": "a-token",
        "block": block,
        "checksum": uploads.checksum(block),
    }
    ec2.disable_image(ImageId=found["disabled_image"])
    ec2.enable_image_deregistration_protection(ImageId=found["protected_image"])
    ec2.deregister_image(ImageId=found["gone_image"])
    launch = {"ImageId": found["source"], "MinCount": 1, "MaxCount": 1, "ClientToken": found["token"]}
    instance = ec2.run_instances(InstanceType="t3.micro", **launch)["Instances"][0]["InstanceId"]
    assert ec2.run_instances(InstanceType="t3.micro", **launch)["Instances"][0]["InstanceId"] == instance
    yield found
    ec2.disable_image_deregistration_protection(ImageId=found["protected_image"])
    for name in ("image", "disabled_image", "protected_image"):
        ec2.deregister_image(ImageId=found[name])
    ec2.terminate_instances(InstanceIds=[instance])
    aws_bed.await_state(instance, "terminated")
    for name in ("snapshot", "open_snapshot"):
        ec2.delete_snapshot(SnapshotId=found[name])


def _fill(value: Any, things: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return {key: _fill(part, things) for key, part in value.items()}
    if isinstance(value, list):
        return [_fill(part, things) for part in value]
    if value == "${block}":
        return things["block"]
    return Template(value).substitute(things) if isinstance(value, str) else value


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_refused(aws_bed: AwsBed, things: dict[str, Any], case: dict[str, Any]) -> None:
    before = aws_bed.left()
    if "form" in case:
        assert _post(aws_bed.url, _fill(case["form"], things)) == case["code"]
    else:
        service, _, action = case["action"].partition(".")
        client = _unchecked(aws_bed, service)
        with pytest.raises(ClientError) as caught:
            getattr(client, action)(**_fill(case["params"], things))
        assert caught.value.response["Error"]["Code"] == case["code"]
        assert caught.value.response["Error"]["Message"] or case["code"] == "ParameterNotFound"
    assert aws_bed.left() == before


def _unchecked(bed: AwsBed, service: str) -> Any:
    import boto3

    about = bed.environment()
    return boto3.client(
        service,  # type: ignore[call-overload]
        endpoint_url=bed.url,
        region_name=about["AWS_DEFAULT_REGION"],
        aws_access_key_id=about["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key="bed",
        config=Config(parameter_validation=False, retries={"total_max_attempts": 1}),
    )


def _post(url: str, form: dict[str, str]) -> str:
    data = urllib.parse.urlencode(form).encode()
    headers = {"Authorization": _SIGNED, "Content-Type": "application/x-www-form-urlencoded"}
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(url, data=data, headers=headers), timeout=30)
    found = re.search(r"<Code>([^<]+)</Code>", caught.value.read().decode())
    assert found
    return found[1]


def test_every_case_names_its_document() -> None:
    assert len(CASES) >= 20
    assert all(case["document"] for case in CASES)
