"""AWS itself: what the test bed cannot show. See docs/aws-live.md; `nox -s live` runs it, and nothing else does."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ingot.api.workspace import Workspace
from ingot.model.image import Outcome
from ingot.model.units import Seconds
from ingot.system.waits import Flag, poll

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.environ.get("INGOT_LIVE") != "1", reason="`nox -s live` runs it: it costs money"),
]
boto3 = pytest.importorskip("boto3")

STAND_IN = os.environ.get("AWS_ENDPOINT_URL", "")
"""Where something stands in for AWS, what only AWS knows is left out."""
TYPE = os.environ.get("INGOT_LIVE_TYPE", "t3.small")
PROFILE = os.environ.get("INGOT_LIVE_INSTANCE_PROFILE", "")
KEY = os.environ.get("INGOT_LIVE_KMS_KEY", "")
ACCOUNT = os.environ.get("INGOT_LIVE_ACCOUNT", "")
COPY = os.environ.get("INGOT_LIVE_COPY", "")
COPY_KEY = os.environ.get("INGOT_LIVE_COPY_KMS_KEY", "")
CHECK = """\
def test_it_is_there(host):
    assert host.file("/etc/live").exists
"""


@pytest.fixture(scope="module")
def signed_in() -> str:
    """The account. Skips where nobody is signed in."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return str(boto3.client("sts").get_caller_identity()["Account"])
    except (BotoCoreError, ClientError) as error:
        pytest.skip(f"nobody is signed in to AWS: {error}")


@pytest.fixture
def project(tmp_path: Path, signed_in: str) -> Iterator[Path]:
    """A folder for a project; what a build of it has left in the account is removed, and must be gone."""
    name = f"live-{time.time_ns():x}"
    folder = tmp_path / name
    (folder / "checks").mkdir(parents=True)
    (folder / "checks" / "test_live.py").write_text(CHECK)
    try:
        yield folder
    finally:
        remove(name)
    poll(
        lambda: True if not left(name) else None,
        what="the end of all that was made",
        every=Seconds(5.0),
        deadline=Seconds(300.0),
        cancel=Flag(),
    )


def opened(folder: Path, *, text: str = "one", **options: Any) -> Workspace:
    """The project with these options of its target."""
    target: dict[str, Any] = {"backend": "aws", "instance_type": [TYPE], "user": "admin", **options}
    if STAND_IN:
        target["allow_from"] = ["127.0.0.1/32"]
    definition = {
        "name": folder.name,
        "targets": {"aws": target},
        "bases": {"debian": {"aws": {"owners": ["136693071363"], "name": "debian-12-amd64-*"}}},
        "images": {
            "node": {
                "base": "debian",
                "checks": ["checks/"],
                "steps": [
                    {"script": {"inline": "echo first >/etc/first"}},
                    {"script": {"inline": f"echo {text} >/etc/live"}},
                ],
            }
        },
    }
    (folder / "ingot.yaml").write_text(yaml.safe_dump(definition))
    return Workspace.open(folder, state=folder / "state")


def build(workspace: Workspace, *, check: bool = True) -> Outcome:
    (outcome,) = workspace.build(check=check).outcomes
    assert outcome.error is None, outcome.error
    assert not check or (outcome.checks and outcome.checks.passed)
    return outcome


def left(name: str) -> list[str]:
    """What bears the project's label; an instance that has ended is told of for an hour, and does not count."""
    ec2 = boto3.client("ec2")
    tags = ec2.describe_tags(Filters=mine(name))["Tags"]
    ended = {"Name": "instance-state-name", "Values": ["terminated"]}
    gone = [
        one["InstanceId"]
        for reservation in ec2.describe_instances(Filters=[*mine(name), ended])["Reservations"]
        for one in reservation["Instances"]
    ]
    # Its root volume goes with it, and its tags a little later.
    return [tag["ResourceId"] for tag in tags if tag["ResourceId"] not in gone]


def mine(name: str) -> list[dict[str, Any]]:
    return [{"Name": "tag:ingot:label:project", "Values": [name]}]


def remove(name: str) -> None:
    """Deregisters the project's images and deletes its snapshots, here and in the region of copies."""
    from botocore.exceptions import ClientError

    def delete(ec2: Any, snapshot: str) -> None:
        try:
            ec2.delete_snapshot(SnapshotId=snapshot)
        except ClientError as error:  # EC2 may still list what is gone
            if error.response["Error"]["Code"] != "InvalidSnapshot.NotFound":
                raise

    for region in filter(None, {boto3.client("ec2").meta.region_name, COPY}):
        ec2 = boto3.client("ec2", region_name=region)
        for image in ec2.describe_images(Owners=["self"], Filters=mine(name))["Images"]:
            ec2.deregister_image(ImageId=image["ImageId"])
            for mapping in image["BlockDeviceMappings"]:
                delete(ec2, mapping["Ebs"]["SnapshotId"])
        for snapshot in ec2.describe_snapshots(OwnerIds=["self"], Filters=mine(name))["Snapshots"]:
            delete(ec2, snapshot["SnapshotId"])


def test_the_doctor_finds_nothing_in_the_way(project: Path) -> None:
    (examined,) = opened(project).examine()
    assert examined.well, [one for one in examined.findings if one.state == "bad"]


@pytest.mark.skipif(bool(STAND_IN), reason="only AWS knows its condition keys")
def test_aws_finds_no_mistake_in_the_policy(project: Path) -> None:
    """IAM Access Analyzer, "ValidatePolicy": it costs nothing."""
    import json

    options: dict[str, Any] = {
        "copy_to": ["us-west-2"],
        "spot": True,
        "access": "ssm",
        "instance_profile": "builders",
    }
    options |= {"parameter": "/ingot/{image}/latest", "protect": True, "deprecate_after": "180d"}
    options |= {"share": {"accounts": ["210987654321"]}}
    document = opened(project, **options).policy()
    pages = boto3.client("accessanalyzer").get_paginator("validate_policy")
    found = [
        one
        for page in pages.paginate(policyDocument=json.dumps(document), policyType="IDENTITY_POLICY")
        for one in page["findings"]
    ]
    assert not [one for one in found if one["findingType"] in ("ERROR", "SECURITY_WARNING")], found


def test_an_image_is_built_checked_and_built_again_from_its_layers(project: Path) -> None:
    first = build(opened(project))
    assert first.ref.startswith("ami-")
    again = build(opened(project), check=False)
    assert (again.status, again.ref) == ("reused", first.ref)
    changed = build(opened(project, text="two"))
    assert changed.ref != first.ref and any(layer.status == "reused" for layer in changed.layers)


def test_spot(project: Path) -> None:
    build(opened(project, spot=True), check=False)


@pytest.mark.skipif(
    not PROFILE or not shutil.which("session-manager-plugin"),
    reason="INGOT_LIVE_INSTANCE_PROFILE names none for Session Manager, or its plugin is not installed",
)
def test_session_manager(project: Path) -> None:
    build(opened(project, access="ssm", instance_profile=PROFILE))


@pytest.mark.skipif(not KEY or not ACCOUNT, reason="INGOT_LIVE_KMS_KEY and INGOT_LIVE_ACCOUNT name none")
def test_an_encrypted_image_is_shared(project: Path) -> None:
    """That the other account can launch it is for somebody to see who is signed in there."""
    outcome = build(opened(project, encrypt=True, kms_key=KEY, share={"accounts": [ACCOUNT]}))
    permissions = boto3.client("ec2").describe_image_attribute(
        ImageId=outcome.ref, Attribute="launchPermission"
    )["LaunchPermissions"]
    assert {"UserId": ACCOUNT} in permissions


@pytest.mark.skipif(not COPY, reason="INGOT_LIVE_COPY names no region")
def test_a_copy(project: Path) -> None:
    copy = {"region": COPY, "kms_key": COPY_KEY} if COPY_KEY else {"region": COPY}
    outcome = build(opened(project, copy_to=[copy], deprecate_after="1d"), check=False)
    assert set(outcome.copies) == {COPY}
