"""Each bad state is made at the test bed, and found; where all is well, nothing is made."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ingot.backends.aws.backend import AwsBackend, open_backend
from ingot.backends.aws.source import IMAGE
from ingot.model.definition import Arch, CloudBase
from ingot.model.diagnosis import Diagnosis
from ingot.model.plan import Base, LayerKey
from ingot.model.units import Bytes
from ingot.ports import BackendSettings, Wanted
from tests.aws_bed import state
from tests.aws_bed.fixture import AwsBed
from tests.local_fixtures import cached_base

__all__ = ["cached_base"]
pytestmark = pytest.mark.local

GIB = 2**30
DEBIAN = {"owners": [state.DEBIAN], "name": "debian-12-amd64-*"}
SOUND = {"region": state.REGION, "instance_type": ["c7i.large", "c6i.large"], "allow_from": ["127.0.0.1/32"]}
Examine = Callable[..., tuple[Diagnosis, ...]]


def wanted(
    *,
    image: str = "node",
    query: dict[str, Any] | None = None,
    pin: str = "",
    arch: Arch = "x86_64",
    disk: int = 8 * GIB,
) -> Wanted:
    base = Base(
        name="debian-12",
        source=CloudBase(backend="aws", query=DEBIAN if query is None else query),
        arch=arch,
        disk=Bytes(disk),
        pins={IMAGE: pin} if pin else {},
        key=LayerKey("sha256:0"),
    )
    return Wanted(project="acme", image=image, arch=arch, disk=Bytes(disk), base=base)


def opened(folder: Path, options: dict[str, Any]) -> AwsBackend:
    return open_backend(BackendSettings(state=folder, directory=folder, root=folder, options=options))


@pytest.fixture
def here(bed: AwsBed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This process uses the bed, and no configuration of whoever runs it."""
    for name, value in bed.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_POLL_DELAY_SECONDS", "0.2")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest.fixture
def examine(here: None, tmp_path: Path) -> Examine:
    """What is found for a target with these options beside the sound ones; None takes one away."""

    def found(*images: Wanted, **options: Any) -> tuple[Diagnosis, ...]:
        merged = {key: value for key, value in {**SOUND, **options}.items() if value is not None}
        return tuple(opened(tmp_path, merged).doctor.examine(images or (wanted(),)))

    return found


def bad(findings: tuple[Diagnosis, ...]) -> list[str]:
    return [f"{one.what}: {one.message}" for one in findings if one.state == "bad"]


def states(findings: tuple[Diagnosis, ...], what: str) -> list[str]:
    return [one.state for one in findings if one.what == what]


def the(findings: tuple[Diagnosis, ...], what: str, state: str = "bad") -> Diagnosis:
    """The one finding of this subject and state."""
    (one,) = [one for one in findings if (one.what, one.state) == (what, state)]
    return one


def test_where_all_is_well_nothing_is_made(examine: Examine, bed: AwsBed) -> None:
    before = bed.left()
    found = examine(
        copy_to=["us-west-2"], share={"accounts": [state.OTHER]}, parameter="/ingot/{image}/latest"
    )
    assert bad(found) == [] and {one.state for one in found} == {"ok"}
    told = {one.what: one.message for one in found}
    assert state.HOME in told["credentials"] and "of the default VPC" in told["network"]
    assert (
        "0 of 64" in told["quota"] and bed.source() in told["source"] and "not pinned yet" in told["source"]
    )
    assert told["permission"].endswith("ImportKeyPair, CreateSecurityGroup, RunInstances")
    assert bed.left() == before


def test_a_pinned_source_is_looked_at_as_it_is_pinned(examine: Examine, bed: AwsBed) -> None:
    assert the(examine(wanted(pin=bed.source())), "source", "ok").message.endswith(", pinned")
    gone = the(examine(wanted(pin="ami-0123456789abcdef0")), "source")
    assert "ami-0123456789abcdef0" in gone.message and "region" in gone.hint


# ---- who we are, and where


def test_expired_credentials_are_the_only_finding(examine: Examine, bed: AwsBed) -> None:
    failure = {"action": "GetCallerIdentity", "code": "ExpiredToken", "message": "It expired", "status": 403}
    with bed.trouble(fail=[{**failure, "times": 0}]):
        found = examine()
    assert [one.state for one in found] == ["bad", "skipped"]
    assert "expired" in found[0].message.lower() and "aws sso login" in found[0].hint


def test_no_credentials(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    found = examine()
    assert "no usable credentials" in found[0].message and "aws configure" in found[0].hint
    assert found[1].state == "skipped" and len(found) == 2


def test_an_unknown_profile(examine: Examine) -> None:
    found = examine(profile="nobody")
    assert bad(found) == ["credentials: The config profile (nobody) could not be found"]
    assert "list-profiles" in found[0].hint


def test_a_region_that_there_is_not(examine: Examine) -> None:
    found = examine(copy_to=["us-west-9"])
    assert bad(found) == ["region: AWS has no region us-west-9"]
    assert found[-1].state == "skipped"


def test_a_region_that_is_not_enabled(examine: Examine) -> None:
    told = the(examine(copy_to=["ap-east-1"]), "region")
    assert told.message == "ap-east-1 is not enabled for this account" and "enable-region" in told.hint


def test_what_does_not_answer_is_told_in_seconds(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    began = time.monotonic()
    found = examine()
    assert "AWS is not reachable" in found[0].message and found[-1].state == "skipped"
    assert time.monotonic() - began < 60


def test_a_busy_aws_is_asked_again(examine: Examine, bed: AwsBed) -> None:
    with bed.trouble(throttle_every=4):
        assert bad(examine()) == []


# ---- where instances run


@contextmanager
def a_subnet(bed: AwsBed, *, gateway: bool = False, public: bool = False) -> Iterator[str]:
    """A subnet of a VPC of its own."""
    ec2 = bed.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.1.0/24")["Subnet"]["SubnetId"]
    ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": public})
    made = ""
    if gateway:
        made = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        ec2.attach_internet_gateway(InternetGatewayId=made, VpcId=vpc)
        table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
        ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=made)
        ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)
    yield subnet


def test_there_is_no_default_vpc(examine: Examine, bed: AwsBed) -> None:
    region = "eu-north-1"
    ec2 = bed.client("ec2", region=region)
    (vpc,) = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    for subnet in ec2.describe_subnets()["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    ec2.delete_vpc(VpcId=vpc["VpcId"])
    told = the(examine(region=region), "network")
    assert "no default VPC in eu-north-1" in told.message
    assert "aws ec2 create-default-vpc --region eu-north-1" in told.hint


def test_a_subnet_without_a_way_in(examine: Examine, bed: AwsBed) -> None:
    with a_subnet(bed) as subnet:
        assert "no route to an internet gateway" in the(examine(subnet=subnet), "network").message
        found = examine(subnet=subnet, access="private")
        assert "fetch nothing" in the(found, "network", "warn").message and not bad(found)


def test_a_subnet_whose_instances_get_no_address(examine: Examine, bed: AwsBed) -> None:
    with a_subnet(bed, gateway=True) as subnet:
        told = the(examine(subnet=subnet), "network")
        assert "no public address" in told.message and "public_ip: true" in told.hint
        assert states(examine(subnet=subnet, public_ip=True), "network") == ["ok"]
        assert states(examine(subnet=subnet, access="private"), "network") == ["warn"]


def test_a_subnet_that_there_is_not(examine: Examine) -> None:
    found = examine(subnet="subnet-0123456789abcdef0")
    (told,) = bad(found)
    assert told.startswith("network: ") and "subnet-0123456789abcdef0" in told
    assert states(found, "quota") == states(found, "permission") == ["skipped"], "told once"
    filtered = the(examine(subnet_filters={"tag:Name": ["nowhere"]}), "network")
    assert "tag:Name=nowhere" in filtered.message


def test_a_security_group_that_there_is_not(examine: Examine) -> None:
    assert "sg-0123456789abcdef0" in the(examine(security_groups=["sg-0123456789abcdef0"]), "access").message


def test_this_computers_address_is_not_asked_for_at_a_stand_in(examine: Examine) -> None:
    assert states(examine(allow_from=None), "access") == ["skipped"]


def test_session_manager_needs_its_programs(
    examine: Examine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    assert "aws, session-manager-plugin" in the(examine(access="ssm"), "access").message
    for name in ("aws", "session-manager-plugin"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    found = examine(access="ssm")
    assert not bad(found) and "AmazonSSMManagedInstanceCore" in the(found, "access", "warn").hint


def test_instance_types(examine: Examine) -> None:
    found = examine(instance_type=["c7i.large", "zz9.large"])
    assert not bad(found) and "zz9.large: not offered" in the(found, "instance type", "warn").message
    assert "zz9.large: not offered" in the(examine(instance_type=["zz9.large"]), "instance type").message
    assert "c7g.large is not of x86_64" in the(examine(instance_type=["c7g.large"]), "instance type").message
    graviton = wanted(arch="aarch64", query={**DEBIAN, "name": "debian-12-arm64-*"})
    assert states(examine(graviton, instance_type=["c7g.large"]), "instance type") == ["ok"]


def test_a_quota_that_is_used_up(examine: Examine) -> None:
    told = the(examine(instance_type=["g5.xlarge"]), "quota")
    assert "0 of 0 vCPUs" in told.message and "g5.xlarge takes 4" in told.message
    assert "--quota-code L-DB2E81BA --desired-value 4" in told.hint
    large = the(examine(instance_type=["c7i.24xlarge"]), "quota")
    assert "64 vCPUs" in large.message and "takes 96" in large.message
    spot = examine(instance_type=["c7i.12xlarge"], spot=True)
    assert "0 of 32" in the(spot, "quota").message and "0 of 64" in the(spot, "quota", "ok").message


def test_an_instance_profile(examine: Examine, bed: AwsBed) -> None:
    told = the(examine(instance_profile="nowhere"), "instance profile")
    assert "nowhere" in told.message
    iam = bed.client("iam")
    iam.create_instance_profile(InstanceProfileName="builders")
    assert "no role" in the(examine(instance_profile="builders"), "instance profile").message
    iam.create_role(RoleName="building", AssumeRolePolicyDocument="{}")
    iam.add_role_to_instance_profile(InstanceProfileName="builders", RoleName="building")
    found = examine(instance_profile="builders")
    assert the(
        found, "instance profile", "ok"
    ).message == "builders stands for the role building" and not bad(found)


# ---- images


def test_a_source_that_there_is_not(examine: Examine) -> None:
    nothing = wanted(query={**DEBIAN, "name": "debian-99-*"})
    found = examine(nothing)
    assert "debian-99-*" in the(found, "source").message


def test_a_disk_that_is_smaller_than_the_source(examine: Examine) -> None:
    told = the(examine(wanted(disk=1 * GIB)), "source")
    assert "the target's is 1" in told.message and told.hint.startswith("write `disk:")


def test_names(examine: Examine, bed: AwsBed) -> None:
    assert "'x' becomes 'x-" in the(examine(ami_name="x"), "name", "warn").message
    assert the(examine(ami_name="node#{created}"), "name", "warn").message.startswith("'node#")
    two = (wanted(image="one"), wanted(image="two"))
    assert "one and two would both be called 'nodes'" in the(examine(*two, ami_name="nodes"), "name").message
    taken = bed.client("ec2").copy_image(Name="taken", SourceImageId=bed.source(), SourceRegion=state.REGION)[
        "ImageId"
    ]
    try:
        told = the(examine(ami_name="taken"), "name", "warn")
        assert taken in told.message and "{created}" in told.hint
    finally:
        bed.await_image(taken)
        bed.client("ec2").deregister_image(ImageId=taken, DeleteAssociatedSnapshots=True)


def test_what_may_not_be_done_is_named(examine: Examine, bed: AwsBed) -> None:
    message = "You are not authorized to perform this operation."
    failure = {"action": "RunInstances", "code": "UnauthorizedOperation", "message": message, "status": 403}
    with bed.trouble(fail=[{**failure, "times": 0}]):
        found = examine()
    told = the(found, "permission")
    assert "run_instances" in told.message and "--policy" in told.hint
    assert "CreateSecurityGroup" in the(found, "permission", "ok").message


def test_what_only_the_doctor_asks_for_may_be_denied(examine: Examine, bed: AwsBed) -> None:
    failure = {"action": "GetServiceQuota", "code": "AccessDeniedException", "message": "No.", "status": 400}
    with bed.trouble(fail=[{**failure, "times": 0}]):
        found = examine()
    assert not bad(found) and "GetServiceQuota" in the(found, "quota", "warn").hint


# ---- keys


def test_the_account_encrypts_with_a_key_that_nobody_else_can_use(examine: Examine, bed: AwsBed) -> None:
    ec2 = bed.client("ec2")
    ec2.enable_ebs_encryption_by_default()
    try:
        assert states(examine(), "encryption") == ["ok"]
        told = the(examine(share={"accounts": [state.OTHER]}), "encryption")
        assert "nobody that the image is shared with" in told.message and "`kms_key`" in told.hint
        own = bed.client("kms").create_key()["KeyMetadata"]["Arn"]
        found = examine(share={"accounts": [state.OTHER]}, kms_key=own)
        assert states(found, "encryption") == ["ok"] and not bad(found)
    finally:
        ec2.disable_ebs_encryption_by_default()


def test_keys(examine: Examine, bed: AwsBed) -> None:
    kms = bed.client("kms")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    found = examine(kms_key=key, share={"accounts": [state.OTHER]})
    assert states(found, "key") == ["ok", "ok"] and f"{state.OTHER} can be let use it" in found[-2].message
    assert not kms.list_grants(KeyId=key)["Grants"], "it was only asked whether"
    kms.disable_key(KeyId=key.rpartition("/")[2])  # moto knows no other name here
    assert "is Disabled" in the(examine(kms_key=key), "key").message
    gone = the(examine(kms_key="alias/nobodys"), "key")
    assert "alias/nobodys" in gone.message
    signing = kms.create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
    assert "is not symmetric" in the(examine(kms_key=signing), "key").message


def test_a_key_that_may_not_be_shared(examine: Examine, bed: AwsBed) -> None:
    key = bed.client("kms").create_key()["KeyMetadata"]["Arn"]
    failure = {"action": "CreateGrant", "code": "AccessDeniedException", "message": "No.", "status": 400}
    with bed.trouble(fail=[{**failure, "times": 0}]):
        told = the(examine(kms_key=key, share={"accounts": [state.OTHER]}), "key")
    assert f"{state.OTHER} cannot be let use" in told.message and "--policy" in told.hint
    unit = f"arn:aws:organizations::{state.HOME}:ou/o-bedbedbed0/ou-bed0-bedbedbe"
    found = examine(kms_key=key, share={"units": [unit]})
    assert "aws:PrincipalOrgID" in the(found, "key", "warn").hint


def test_the_key_of_ebs_itself_is_of_no_use_to_others(examine: Examine, bed: AwsBed) -> None:
    key = bed.client("ec2").get_ebs_default_kms_key_id()["KmsKeyId"]
    told = the(examine(kms_key=key, share={"accounts": [state.OTHER]}), "key")
    assert "AWS's own" in told.message
