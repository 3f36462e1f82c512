"""Trouble on request: it comes, it is the one asked for, and it goes."""

from __future__ import annotations

import time
import urllib.error
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.aws_bed import disks, uploads
from tests.aws_bed.fixture import (
    AwsBed,
)
from tests.aws_bed.test_images import code_of, small_snapshot
from tests.aws_bed.test_machines import register

pytestmark = pytest.mark.local

LAUNCH: dict[str, Any] = {"InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1}


def test_every_third_call_is_throttled(bed: AwsBed) -> None:
    ec2, patient = bed.client("ec2"), bed.client("ec2", retries=3)
    codes = []
    with bed.trouble(throttle_every=3):
        for _ in range(6):
            try:
                ec2.describe_images(Owners=["self"])
                codes.append("")
            except ClientError as error:
                codes.append(error.response["Error"]["Code"])
        patient.describe_images(Owners=["self"])
    assert codes == ["", "", "RequestLimitExceeded"] * 2
    ec2.describe_images(Owners=["self"])


def test_one_call_fails_as_often_as_asked_for(bed: AwsBed) -> None:
    ec2 = bed.client("ec2")
    fail = [{"action": "DescribeImages", "code": "InternalError", "status": 500, "times": 2, "after": 1}]
    with bed.trouble(fail=fail):
        ec2.describe_images(Owners=["self"])
        ec2.describe_key_pairs()
        assert code_of(ec2.describe_images, Owners=["self"]) == "InternalError"
        assert code_of(ec2.describe_images, Owners=["self"]) == "InternalError"
        ec2.describe_images(Owners=["self"])
    with bed.trouble(fail=[{"action": "*", "code": "RequestExpired", "times": 0}]):
        for act in (ec2.describe_images, ec2.describe_key_pairs, bed.client("ssm").describe_parameters):
            assert code_of(act) == "RequestExpired"


def test_a_new_thing_is_not_found_at_once(bed: AwsBed) -> None:
    ec2 = bed.client("ec2")
    snapshot = small_snapshot(bed, {0: b"x"})
    with bed.trouble(lag=1.5, delays={"launch": 0.0}):
        device = {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot}}
        image = ec2.register_image(Name="late", RootDeviceName="/dev/xvda", BlockDeviceMappings=[device])[
            "ImageId"
        ]
        assert code_of(ec2.describe_images, ImageIds=[image]) == "InvalidAMIID.NotFound"
        assert (
            code_of(ec2.create_tags, Resources=[image], Tags=[{"Key": "a", "Value": "b"}])
            == "InvalidAMIID.NotFound"
        )
        assert ec2.describe_images(Owners=["self"])["Images"] == []
        group = ec2.create_security_group(GroupName="late", Description="late")["GroupId"]
        assert code_of(ec2.delete_security_group, GroupId=group) == "InvalidGroup.NotFound"
        instance = ec2.run_instances(ImageId=bed.source(), **LAUNCH)["Instances"][0]["InstanceId"]
        assert code_of(ec2.describe_instances, InstanceIds=[instance]) == "InvalidInstanceID.NotFound"
        listed = ec2.describe_instances()["Reservations"]
        assert instance not in [one["InstanceId"] for about in listed for one in about["Instances"]]
        born = time.monotonic()
        while time.monotonic() < born + 60:
            try:
                ec2.describe_instances(InstanceIds=[instance])
                break
            except ClientError:
                continue
        assert time.monotonic() - born < 60
        assert len(ec2.describe_images(Owners=["self"])["Images"]) == 1
    ec2.terminate_instances(InstanceIds=[instance])
    bed.await_state(instance, "terminated")
    ec2.delete_security_group(GroupId=group)
    ec2.deregister_image(ImageId=image, DeleteAssociatedSnapshots=True)


def test_no_capacity_of_one_type(bed: AwsBed) -> None:
    ec2 = bed.client("ec2")
    with bed.trouble(no_capacity=["c7i.large"]):
        launch = {**LAUNCH, "ImageId": bed.source(), "InstanceType": "c7i.large"}
        assert code_of(ec2.run_instances, **launch) == "InsufficientInstanceCapacity"
        assert (
            code_of(ec2.run_instances, **{**launch, "InstanceType": "t3.micro", "DryRun": True})
            == "DryRunOperation"
        )
    assert bed.left() == {}


def test_images_and_snapshots_end_as_failed(bed: AwsBed) -> None:
    ec2, ebs = bed.client("ec2"), bed.client("ebs")
    with bed.trouble(end_failed=["snapshot", "image"]):
        failed = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
        ebs.complete_snapshot(SnapshotId=failed, ChangedBlocksCount=0)
        bed.await_snapshot(failed, "error")
        assert "StateMessage" in ec2.describe_snapshots(SnapshotIds=[failed])["Snapshots"][0]
    good = small_snapshot(bed, {0: b"x"})
    with bed.trouble(end_failed=["image"]):
        device = {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": good}}
        image = ec2.register_image(Name="fails", RootDeviceName="/dev/xvda", BlockDeviceMappings=[device])[
            "ImageId"
        ]
        bed.await_image(image, "failed")
    ec2.deregister_image(ImageId=image, DeleteAssociatedSnapshots=True)
    ec2.delete_snapshot(SnapshotId=failed)


def test_pending_lasts_as_long_as_asked_for(bed: AwsBed) -> None:
    ec2 = bed.client("ec2")
    snapshot = small_snapshot(bed, {0: b"x"})
    with bed.trouble(delays={"copy": 3600.0}):
        copied = ec2.copy_snapshot(SourceSnapshotId=snapshot, SourceRegion="us-east-1")["SnapshotId"]
    about = ec2.describe_snapshots(SnapshotIds=[copied])["Snapshots"][0]
    assert about["State"] == "pending"
    for name in (snapshot, copied):
        ec2.delete_snapshot(SnapshotId=name)


def test_blocks_beyond_the_limit_are_refused(bed: AwsBed) -> None:
    from concurrent.futures import ThreadPoolExecutor

    ebs = bed.client("ebs")
    snapshot = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    data = bytes(disks.BLOCK)

    def put(index: int) -> str:
        try:
            uploads.put(ebs, snapshot, index, data)
        except ClientError as error:
            return str(error.response["Error"]["Code"])
        return ""

    with bed.trouble(block_limit=1), ThreadPoolExecutor(8) as threads:
        codes = set(threads.map(put, range(200)))
    assert codes == {"", "ConcurrentLimitExceededException"}
    bed.client("ec2").delete_snapshot(SnapshotId=snapshot)


def test_calls_are_told(bed: AwsBed) -> None:
    ec2 = bed.client("ec2")
    bed.calls(reset=True)
    ec2.describe_images(Owners=["self"])
    group = ec2.create_security_group(GroupName="told", Description="told")["GroupId"]
    ec2.delete_security_group(GroupId=group)
    found = bed.calls(reset=True)
    actions = [(call["action"], call["mutating"]) for call in found]
    assert actions == [
        ("DescribeImages", False),
        ("CreateSecurityGroup", True),
        ("DeleteSecurityGroup", True),
    ]
    assert all("Boto3" in call["agent"] for call in found)
    assert bed.calls() == []


def test_what_is_left_is_told(bed: AwsBed) -> None:
    ec2 = bed.client("ec2", region="us-west-2")
    before = bed.left()
    group = ec2.create_security_group(GroupName="left", Description="left")["GroupId"]
    ec2.import_key_pair(KeyName="left", PublicKeyMaterial=b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIM5ssY+8+zUxkCtgLnKNnzBOT9GEuCohnmreL6fogBxG")  # fmt: skip
    address = ec2.allocate_address(Domain="vpc")["AllocationId"]
    volume = ec2.create_volume(Size=1, AvailabilityZone="us-west-2a")["VolumeId"]
    wanted = {"security_groups": [group], "key_pairs": ["left"], "addresses": [address], "volumes": [volume]}
    found = bed.left()
    assert {kind: names for kind, names in found.items() if kind in wanted} == {
        kind: [*before.get(kind, []), *names] for kind, names in wanted.items()
    }
    ec2.delete_security_group(GroupId=group)
    ec2.delete_key_pair(KeyName="left")
    ec2.release_address(AllocationId=address)
    ec2.delete_volume(VolumeId=volume)
    assert bed.left() == before


def test_a_wish_that_is_not_known_is_refused(bed: AwsBed) -> None:
    with pytest.raises(urllib.error.HTTPError), bed.trouble(thunder=True):
        pass


def test_an_image_of_a_disk_that_does_not_boot(bed: AwsBed) -> None:
    """As on EC2 the instance is running, and its console tells."""
    ec2 = bed.client("ec2")
    image = register(bed, small_snapshot(bed, {0: b"no partition table"}), "does-not-boot")
    instance = ec2.run_instances(ImageId=image, **LAUNCH)["Instances"][0]["InstanceId"]
    bed.await_state(instance, "running")
    assert "does not boot" in ec2.get_console_output(InstanceId=instance)["Output"]
    ec2.terminate_instances(InstanceIds=[instance])
    bed.await_state(instance, "terminated")
    ec2.deregister_image(ImageId=image, DeleteAssociatedSnapshots=True)
    assert bed.left() == {}
