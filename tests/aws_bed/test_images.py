"""What images and snapshots of the bed are and who sees them, up to a machine that boots from uploaded blocks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ingot.model.units import Seconds
from ingot.system.waits import Flag, poll
from tests.aws_bed import disks, state, uploads
from tests.aws_bed.bed import ORGANISATION
from tests.aws_bed.fixture import (
    AwsBed,
    KeyPair,
    log_in,
)
from tests.aws_bed.test_machines import launched, register

pytestmark = pytest.mark.local


def small_snapshot(bed: AwsBed, texts: dict[int, bytes], **start: Any) -> str:
    """A complete snapshot of 1 GiB with these blocks."""
    ebs = bed.client("ebs")
    snapshot = str(ebs.start_snapshot(VolumeSize=1, **start)["SnapshotId"])
    for index, text in texts.items():
        uploads.put(ebs, snapshot, index, text.ljust(disks.BLOCK, b"\0"))
    ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=len(texts))
    bed.await_snapshot(snapshot)
    return snapshot


def code_of(act: Any, **params: Any) -> str:
    with pytest.raises(ClientError) as caught:
        act(**params)
    return str(caught.value.response["Error"]["Code"])


def test_uploaded_blocks_boot_and_blocks_of_a_machine_read_back(bed: AwsBed, key_pair: KeyPair) -> None:
    ebs, ec2 = bed.client("ebs"), bed.client("ec2")
    disk = disks.base()
    snapshot = uploads.upload(ebs, disk, sorted(disks.allocated(disk)))
    bed.await_snapshot(snapshot)
    image = register(bed, snapshot, "uploaded")
    with launched(bed, key_pair, image) as name:
        log_in(bed.instance(name)["PublicIpAddress"], key_pair.file, "sudo touch /made")
        ec2.stop_instances(InstanceIds=[name])
        bed.await_state(name, "stopped")
        volume = bed.instance(name)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
        later = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
        bed.await_snapshot(later)
    assert uploads.block(ebs, later, 0) == disks.read_block(disk, 0)
    changed = ebs.list_changed_blocks(FirstSnapshotId=snapshot, SecondSnapshotId=later)["ChangedBlocks"]
    assert 0 < len(changed) < len(disks.allocated(disk)) / 4
    index = changed[0]["BlockIndex"]
    about = ebs.get_snapshot_block(
        SnapshotId=later, BlockIndex=index, BlockToken=changed[0]["SecondBlockToken"]
    )
    assert about["BlockData"].read() != disks.read_block(disk, index)
    ec2.deregister_image(ImageId=image)
    for name in (snapshot, later):
        ec2.delete_snapshot(SnapshotId=name)


def test_a_child_has_its_parents_blocks(bed: AwsBed) -> None:
    ebs, ec2 = bed.client("ebs"), bed.client("ec2")
    parent = small_snapshot(bed, {0: b"zero", 7: b"seven"})
    child = small_snapshot(bed, {7: b"new seven", 9: b"nine"}, ParentSnapshotId=parent)
    listed = ebs.list_snapshot_blocks(SnapshotId=child)
    assert [item["BlockIndex"] for item in listed["Blocks"]] == [0, 7, 9]
    assert (listed["BlockSize"], listed["VolumeSize"]) == (524288, 1)
    assert uploads.block(ebs, child, 0).startswith(b"zero\0")
    changed = ebs.list_changed_blocks(FirstSnapshotId=parent, SecondSnapshotId=child)["ChangedBlocks"]
    assert [item["BlockIndex"] for item in changed] == [7, 9]
    assert "FirstBlockToken" not in changed[1]
    ec2.delete_snapshot(SnapshotId=parent)
    assert uploads.block(ebs, child, 0).startswith(b"zero\0")
    ec2.delete_snapshot(SnapshotId=child)


def test_what_was_not_written_to_an_encrypted_snapshot_is_noise(bed: AwsBed) -> None:
    ec2 = bed.client("ec2")
    ec2.enable_ebs_encryption_by_default()
    try:
        assert ec2.get_ebs_encryption_by_default()["EbsEncryptionByDefault"]
        started = bed.client("ebs").start_snapshot(VolumeSize=1)
        assert started["KmsKeyArn"]
        ec2.delete_snapshot(SnapshotId=started["SnapshotId"])
        snapshot = small_snapshot(bed, {0: b"text"})
    finally:
        ec2.disable_ebs_encryption_by_default()
    assert ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]["Encrypted"]
    volume = ec2.create_volume(SnapshotId=snapshot, AvailabilityZone="us-east-1a")["VolumeId"]
    again = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    bed.await_snapshot(again)
    ebs = bed.client("ebs")
    assert uploads.block(ebs, again, 0).startswith(b"text\0")
    assert uploads.block(ebs, again, 5).count(0) < disks.BLOCK / 2
    ec2.delete_volume(VolumeId=volume)
    for name in (snapshot, again):
        ec2.delete_snapshot(SnapshotId=name)
    plain = small_snapshot(bed, {0: b"text"})
    assert [item["BlockIndex"] for item in ebs.list_snapshot_blocks(SnapshotId=plain)["Blocks"]] == [0]
    ec2.delete_snapshot(SnapshotId=plain)


def test_a_registered_image_is_as_it_was_asked_for(bed: AwsBed) -> None:
    ec2 = bed.client("ec2")
    snapshot = small_snapshot(bed, {0: b"x"})
    asked = {
        "Name": "all-attributes",
        "Description": "words",
        "Architecture": "arm64",
        "VirtualizationType": "hvm",
        "BootMode": "uefi",
        "TpmSupport": "v2.0",
        "ImdsSupport": "v2.0",
        "SriovNetSupport": "simple",
        "EnaSupport": True,
        "RootDeviceName": "/dev/xvda",
    }
    ebs = {"SnapshotId": snapshot, "VolumeSize": 20, "VolumeType": "gp3", "DeleteOnTermination": True}
    tags = [{"Key": "a", "Value": "b"}]
    image = ec2.register_image(
        **asked,
        BlockDeviceMappings=[
            {"DeviceName": "/dev/xvda", "Ebs": ebs},
            {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},
        ],
        TagSpecifications=[{"ResourceType": "image", "Tags": tags}],
    )["ImageId"]
    about = bed.await_image(image)
    assert {key: about[key] for key in asked} == asked
    assert about["BlockDeviceMappings"][0]["Ebs"] == {**ebs, "Encrypted": False}
    assert about["Tags"] == tags
    by_snapshot = [{"Name": "block-device-mapping.snapshot-id", "Values": [snapshot]}]
    for filters in (
        by_snapshot,
        [{"Name": "ena-support", "Values": ["true"]}],
        [{"Name": "tag:a", "Values": ["b"]}],
    ):
        assert [
            one["ImageId"] for one in ec2.describe_images(Owners=["self"], Filters=filters)["Images"]
        ] == [image]
    pages = ec2.get_paginator("describe_images").paginate(PaginationConfig={"PageSize": 2})
    found = [one["ImageId"] for page in pages for one in page["Images"]]
    assert len(found) == len(set(found)) == len(state.STAND_INS) + 1
    ec2.deregister_image(ImageId=image, DeleteAssociatedSnapshots=True)
    assert code_of(ec2.describe_snapshots, SnapshotIds=[snapshot]) == "InvalidSnapshot.NotFound"


def test_deprecation_and_protection(bed: AwsBed) -> None:
    ec2, other = bed.client("ec2"), bed.client("ec2", other=True)
    image = register(bed, small_snapshot(bed, {0: b"x"}), "deprecated")
    at = (datetime.now(UTC) + timedelta(days=30)).replace(second=0, microsecond=0)
    ec2.enable_image_deprecation(ImageId=image, DeprecateAt=at)
    wanted = at.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    assert ec2.describe_images(ImageIds=[image])["Images"][0]["DeprecationTime"] == wanted
    ec2.disable_image_deprecation(ImageId=image)
    assert "DeprecationTime" not in ec2.describe_images(ImageIds=[image])["Images"][0]
    ec2.enable_image_deregistration_protection(ImageId=image)
    assert code_of(ec2.deregister_image, ImageId=image) == "OperationNotPermitted"
    assert code_of(other.deregister_image, ImageId=image) == "InvalidAMIID.NotFound"
    ec2.disable_image_deregistration_protection(ImageId=image)
    ec2.deregister_image(ImageId=image, DeleteAssociatedSnapshots=True)
    assert bed.left() == {}


@pytest.mark.parametrize("permission", [{"UserId": state.OTHER}, {"OrganizationArn": ORGANISATION[0]}, {"OrganizationalUnitArn": ORGANISATION[1]}], ids=["account", "organisation", "unit"])  # fmt: skip
def test_a_shared_image_is_seen_by_the_other_account(bed: AwsBed, permission: dict[str, str]) -> None:
    ec2, other = bed.client("ec2"), bed.client("ec2", other=True)
    snapshot = small_snapshot(bed, {0: b"x"})
    image = register(bed, snapshot, "shared")
    assert code_of(other.describe_images, ImageIds=[image]) == "InvalidAMIID.NotFound"
    ec2.modify_image_attribute(ImageId=image, LaunchPermission={"Add": [permission]})
    assert [one["ImageId"] for one in other.describe_images(Owners=[state.HOME])["Images"]] == [image]
    # It may be launched, and only be copied where its storage is shared too.
    copy = {"Name": "copied", "SourceImageId": image, "SourceRegion": state.REGION}
    assert code_of(other.copy_image, **copy) == "InvalidRequest"
    ec2.modify_snapshot_attribute(
        SnapshotId=snapshot, CreateVolumePermission={"Add": [{"UserId": state.OTHER}]}
    )
    copied = other.copy_image(**copy)["ImageId"]
    assert other.describe_images(ImageIds=[copied])["Images"][0]["OwnerId"] == state.OTHER
    other.deregister_image(ImageId=copied, DeleteAssociatedSnapshots=True)
    ec2.modify_image_attribute(ImageId=image, LaunchPermission={"Remove": [permission]})
    assert code_of(other.describe_images, ImageIds=[image]) == "InvalidAMIID.NotFound"
    ec2.deregister_image(ImageId=image, DeleteAssociatedSnapshots=True)


def test_a_shared_image_boots_in_the_other_account(bed: AwsBed, key_pair: KeyPair) -> None:
    ec2, other = bed.client("ec2"), bed.client("ec2", other=True)
    with launched(bed, key_pair) as name:
        log_in(bed.instance(name)["PublicIpAddress"], key_pair.file, "sudo touch /made")
        image = ec2.create_image(InstanceId=name, Name="to-share")["ImageId"]
    bed.await_image(image)
    ec2.modify_image_attribute(ImageId=image, LaunchPermission={"Add": [{"UserId": state.OTHER}]})
    file = key_pair.file.with_name("other")
    file.touch(mode=0o600)
    file.write_text(other.create_key_pair(KeyName="other", KeyType="ed25519")["KeyMaterial"])
    launch = {"ImageId": image, "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1, "KeyName": "other"}
    name = other.run_instances(**launch)["Instances"][0]["InstanceId"]
    address = other.describe_instances(InstanceIds=[name])["Reservations"][0]["Instances"][0][
        "PublicIpAddress"
    ]
    assert log_in(address, file, "ls /made").split() == ["/made"]
    other.terminate_instances(InstanceIds=[name])
    other.delete_key_pair(KeyName="other")
    ec2.deregister_image(ImageId=image, DeleteAssociatedSnapshots=True)


def test_an_encrypted_copy_and_its_key(bed: AwsBed) -> None:
    there = bed.client("ec2", region="us-west-2")
    ec2 = bed.client("ec2")
    image = register(bed, small_snapshot(bed, {0: b"x"}), "to-copy", TagSpecifications=[{"ResourceType": "image", "Tags": [{"Key": "a", "Value": "b"}]}])  # fmt: skip
    copy = {"SourceImageId": image, "SourceRegion": state.REGION, "Encrypted": True}
    key = bed.client("kms", region="us-west-2").create_key()["KeyMetadata"]["Arn"]
    copied = there.copy_image(Name="good-key", KmsKeyId=key, CopyImageTags=True, **copy)["ImageId"]
    about = bed.await_image(copied, region="us-west-2")
    assert about["Tags"] == [{"Key": "a", "Value": "b"}]
    snapshot = about["BlockDeviceMappings"][0]["Ebs"]
    assert snapshot["Encrypted"]
    assert there.describe_snapshots(SnapshotIds=[snapshot["SnapshotId"]])["Snapshots"][0]["KmsKeyId"] == key
    # The same call again, as after an answer that was lost.
    token = {"ClientToken": "token-of-a-copy", "Name": "once", **copy}
    once = there.copy_image(**token)["ImageId"]
    assert there.copy_image(**token)["ImageId"] == once
    failed = there.copy_image(Name="bad-key", KmsKeyId="11111111-2222-3333-4444-555555555555", **copy)[
        "ImageId"
    ]
    assert "not accessible" in bed.await_image(failed, "failed", region="us-west-2")["StateReason"]["Message"]
    plain = there.copy_image(Name="default-key", **copy)["ImageId"]
    about = bed.await_image(plain, region="us-west-2")
    share = {"LaunchPermission": {"Add": [{"UserId": state.OTHER}]}}
    assert code_of(there.modify_image_attribute, ImageId=plain, **share) == "InvalidParameterValue"
    there.modify_image_attribute(ImageId=copied, **share)
    for name in (copied, once, failed, plain):
        there.deregister_image(ImageId=name, DeleteAssociatedSnapshots=True)
    ec2.deregister_image(ImageId=image, DeleteAssociatedSnapshots=True)
    assert bed.left() == {}


def test_an_encrypted_image_launches_where_its_key_may_be_used(bed: AwsBed, key_pair: KeyPair) -> None:
    ec2, other, kms = bed.client("ec2"), bed.client("ec2", other=True), bed.client("kms")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    copy = {"SourceImageId": bed.source(), "SourceRegion": state.REGION, "Name": "encrypted", "KmsKeyId": key}
    image = ec2.copy_image(Encrypted=True, **copy)["ImageId"]
    bed.await_image(image)
    ec2.modify_image_attribute(ImageId=image, LaunchPermission={"Add": [{"UserId": state.OTHER}]})

    def launch() -> dict[str, Any]:
        about = other.run_instances(ImageId=image, InstanceType="t3.micro", MinCount=1, MaxCount=1)[
            "Instances"
        ][0]

        def settled() -> dict[str, Any] | None:
            found: dict[str, Any] = other.describe_instances(InstanceIds=[about["InstanceId"]])
            instance: dict[str, Any] = found["Reservations"][0]["Instances"][0]
            return instance if instance["State"]["Name"] != "pending" else None

        return poll(settled, what="the launch", every=Seconds(0.05), deadline=Seconds(60.0), cancel=Flag())

    refused = launch()
    assert refused["State"]["Name"] in ("shutting-down", "terminated")
    assert refused["StateReason"]["Code"] == "Client.InternalError"
    kms.create_grant(KeyId=key, GranteePrincipal=f"arn:aws:iam::{state.OTHER}:root", Operations=["Decrypt"])
    accepted = launch()
    assert accepted["State"]["Name"] == "running"
    other.terminate_instances(InstanceIds=[accepted["InstanceId"]])
    ec2.deregister_image(ImageId=image, DeleteAssociatedSnapshots=True)


def test_tags_of_several_things_at_once(bed: AwsBed) -> None:
    ec2 = bed.client("ec2")
    snapshot = small_snapshot(bed, {0: b"x"}, Tags=[{"Key": "own", "Value": "1"}])
    image = register(bed, snapshot, "tagged")
    group = ec2.create_security_group(GroupName="tagged", Description="tagged")["GroupId"]
    tags = [{"Key": "a", "Value": "b"}]
    unknown = {"Resources": [image, "snap-0123456789abcdef0"], "Tags": tags}
    assert code_of(ec2.create_tags, **unknown) == "InvalidSnapshot.NotFound"
    assert ec2.describe_images(ImageIds=[image])["Images"][0]["Tags"] == []
    ec2.create_tags(Resources=[image, snapshot, group], Tags=tags)
    assert ec2.describe_images(ImageIds=[image])["Images"][0]["Tags"] == tags
    assert ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["Tags"] == tags
    found = ec2.describe_snapshots(
        Filters=[{"Name": "tag:own", "Values": ["1"]}, {"Name": "tag:a", "Values": ["b"]}]
    )
    assert [one["SnapshotId"] for one in found["Snapshots"]] == [snapshot]
    ec2.delete_tags(Resources=[image, group], Tags=[{"Key": "a"}])
    assert ec2.describe_images(ImageIds=[image])["Images"][0]["Tags"] == []
    ec2.delete_security_group(GroupId=group)
    ec2.deregister_image(ImageId=image, DeleteAssociatedSnapshots=True)


def test_quotas(bed: AwsBed) -> None:
    quotas = bed.client("service-quotas")
    about = quotas.get_service_quota(ServiceCode="ec2", QuotaCode="L-1216C47A")["Quota"]
    assert about["Value"] == 64.0
    assert about in quotas.list_service_quotas(ServiceCode="ec2")["Quotas"]
    assert code_of(quotas.get_service_quota, ServiceCode="ec2", QuotaCode="L-1") == "NoSuchResourceException"


def test_public_parameters_resolve_to_the_newest_image(bed: AwsBed) -> None:
    ssm = bed.client("ssm")
    name = "/aws/service/debian/release/12/latest/amd64"
    assert ssm.get_parameter(Name=name)["Parameter"]["Value"] == bed.source()
    ssm.put_parameter(Name="/ingot/own", Value="ami-1", Type="String")
    found = ssm.get_parameters(Names=["/ingot/own"])
    assert [one["Value"] for one in found["Parameters"]] == ["ami-1"]
    ssm.delete_parameter(Name="/ingot/own")
