"""What `ingot.yaml` can say of AWS. Read without boto3; the names are those that EC2 uses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ingot.backends.aws.names import WORDS, unknown_words
from ingot.model.units import parse_seconds

CHECKPOINTS = 4
"""Layers that a build keeps beside the sealed one where nothing is said: each is a snapshot that costs money."""


class Wrong(ValueError):  # noqa: N818 -- said of a value, and told with its place by whoever reads it
    """What a value is not, with what to write instead."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


def _matching(pattern: str, what: str, example: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise Wrong(f"{value!r} is not {what}", hint=f"such as `{example}`")
        return value

    return AfterValidator(check)


def _one_or_more() -> BeforeValidator:
    """A list, or the one thing that would be in it."""
    return BeforeValidator(
        lambda value: [value] if isinstance(value, str) else value, json_schema_input_type=str | list[str]
    )


def _shorthand(field: str) -> BeforeValidator:
    """A map, or text that is its most telling entry."""
    return BeforeValidator(lambda value: {field: value} if isinstance(value, str) else value)


Region = Annotated[str, _matching(r"[a-z]{2}(-[a-z]+)+-\d", "a region", "us-west-2")]
Account = Annotated[
    str, _matching(r"\d{12}", "an account's number, twelve digits in quotes", '"123456789012"')
]
Owner = Annotated[
    str,
    _matching(r"\d{12}|self|amazon|aws-marketplace|aws-backup-vault", "an owner", '"136693071363"` or `self'),
]
ImageId = Annotated[str, _matching(r"ami-[0-9a-f]{8,17}", "an AMI's id", "ami-0123456789abcdef0")]
SubnetId = Annotated[str, _matching(r"subnet-[0-9a-f]{8,17}", "a subnet's id", "subnet-0123456789abcdef0")]
GroupId = Annotated[str, _matching(r"sg-[0-9a-f]{8,17}", "a security group's id", "sg-0123456789abcdef0")]
InstanceType = Annotated[str, _matching(r"[a-z][a-z0-9-]*\.[a-z0-9-]+", "an instance type", "c7i.large")]
Parameter = Annotated[
    str, _matching(r"/[\w./-]+", "a parameter's name", "/aws/service/debian/release/12/latest/amd64")
]


def _network(value: str) -> str:
    try:
        ipaddress.ip_network(value)
    except ValueError as error:
        raise Wrong(f"{value!r} is not a network", hint="such as `198.51.100.7/32`") from error
    return value


def _time(value: str) -> str:
    if value:
        parse_seconds(value)
    return value


def _template(value: str) -> str:
    known = ", ".join(f"`{{{word}}}`" for word in WORDS)
    try:
        unknown = unknown_words(value)
    except ValueError as error:
        raise Wrong(
            f"{value!r} cannot be read: {error}", hint=f"known: {known}; a brace itself is written twice"
        ) from error
    if unknown:
        raise Wrong(f"`{{{unknown[0]}}}` is not known here", hint=f"known: {known}")
    return value


Template = Annotated[str, AfterValidator(_template)]
Network = Annotated[str, AfterValidator(_network)]
TagKey = Annotated[str, _matching(r"(?!aws:)(?!ingot:).{1,128}", "a tag's key of your own", "Team")]
Organization = Annotated[
    str,
    _matching(
        r"arn:[\w-]+:organizations::\d{12}:organization/o-\w+/o-\w+|.*organization/.+", "an ARN", "arn:…"
    ),
]


class BaseShape(_Model):
    """An AMI to begin with: by its `ami` id, by the `ssm` parameter that names it, or the newest that fits `name`."""

    ami: ImageId | None = Field(default=None, description="The AMI's id, which is of one region alone.")
    ssm: Parameter | None = Field(
        default=None, description="A parameter that holds the id, such as those that publishers keep."
    )
    name: str = Field(
        default="", description="The AMI's name, with `*` and `?`; the newest that fits is taken."
    )
    owners: list[Owner] = Field(default=[], description="Whose AMIs are looked at; needed with `name`.")
    filters: dict[str, Annotated[list[str], _one_or_more()]] = Field(
        default={}, description="Further filters, as EC2's DescribeImages has them."
    )
    user: str = Field(default="", description="Who logs in; known for the usual distributions.")

    @model_validator(mode="after")
    def _one_way(self) -> BaseShape:
        ways = [way for way, given in (("ami", self.ami), ("ssm", self.ssm), ("name", self.name)) if given]
        if len(ways) != 1:
            said = " and ".join(f"`{way}`" for way in ways) if ways else "none of them"
            raise Wrong(
                f"a base says one of `ami`, `ssm` and `name`, and this says {said}",
                hint='such as `{owners: ["136693071363"], name: "debian-12-amd64-*"}`',
            )
        if self.name and not self.owners:
            raise Wrong(
                "a `name` without `owners` would take anybody's image",
                hint='say whose: `owners: ["136693071363"]`, or `self` for your own',
            )
        return self


class VolumeShape(_Model):
    """What a volume is like."""

    type: Literal["gp3", "gp2", "io2", "io1", "st1", "sc1", "standard"] = Field(
        default="gp3", description="The volume's type."
    )
    iops: Annotated[int, Field(ge=100, le=256_000)] | None = Field(
        default=None, description="I/O operations a second; the type's baseline where nothing is said."
    )
    throughput: Annotated[int, Field(ge=125, le=2_000)] | None = Field(
        default=None, description="MiB/s, for gp3; the baseline where nothing is said."
    )


class BastionShape(_Model):
    """A host between here and the instances."""

    host: str = Field(description="Its name or address.")
    user: str = Field(default="", description="Who logs in there; OpenSSH's own choice otherwise.")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(default=22, description="Its SSH port.")


class CopyShape(_Model):
    """A region to which images are copied."""

    region: Region = Field(description="The region.")
    kms_key: str = Field(default="", description="The key that encrypts the copy there.")


class ShareShape(_Model):
    """Who else may launch the image."""

    accounts: list[Account] = Field(default=[], description="Accounts, each twelve digits in quotes.")
    organizations: list[str] = Field(default=[], description="ARNs of whole organisations.")
    units: list[str] = Field(default=[], description="ARNs of organisational units.")


class ParallelClusterShape(_Model):
    """Which AWS ParallelCluster an image is for: one of another version is refused when a cluster is made."""

    version: Annotated[str, _matching(r"\d+\.\d+\.\d+\w*", "a version of ParallelCluster", "3.11.1")] = Field(
        description="The version of ParallelCluster that the source AMI was made by."
    )
    os: Annotated[str, _matching(r"[a-z]+\d+", "a system as ParallelCluster calls it", "alinux2023")] = Field(
        description="The system, as `Image: Os` of a cluster's configuration has it: `alinux2023`, `ubuntu2204`."
    )


class TargetShape(_Model):
    """The options of a target on AWS."""

    region: Region | None = Field(
        default=None, description="The region; else what `AWS_DEFAULT_REGION` or the profile says."
    )
    profile: str = Field(
        default="", description="A profile of `~/.aws/config`; else what `AWS_PROFILE` says."
    )
    instance_type: Annotated[list[InstanceType], _one_or_more()] = Field(
        default=[], description="What to build on; of several the first that has capacity."
    )
    spot: bool = Field(default=False, description="Spot instances first; on-demand where there are none.")
    user: str = Field(
        default="", description="Who logs in to the source AMI; known for the usual distributions."
    )
    subnet: SubnetId | None = Field(
        default=None, description="Where instances are launched; the default VPC where nothing is said."
    )
    subnet_filters: dict[str, Annotated[list[str], _one_or_more()]] = Field(
        default={},
        description="Filters that find the subnet, as EC2's DescribeSubnets has them, such as `{tag:Name: build}`.",
    )
    security_groups: list[GroupId] = Field(
        default=[],
        description="Groups for the instances; else one is made that lets in this computer's address alone.",
    )
    allow_from: list[Network] = Field(
        default=[],
        description="Networks from which SSH is let in; this computer's public address alone where nothing is said.",
    )
    public_ip: bool | None = Field(
        default=None,
        description="Whether instances get a public address; the subnet's own setting otherwise.",
    )
    access: Literal["public", "private", "ssm"] = Field(
        default="public",
        description="How instances are reached: by their `public` or `private` address, or through Session "
        "Manager (`ssm`), which needs no open port.",
    )
    bastion: BastionShape | None = Field(default=None, description="A host to go through.")
    instance_profile: str = Field(default="", description="The instance profile (an IAM role) of instances.")
    volume: VolumeShape = Field(
        default=VolumeShape(), description="The root volume of instances of the image."
    )
    build_volume: VolumeShape = Field(
        default=VolumeShape(iops=6000, throughput=500), description="The root volume while building."
    )
    checkpoints: Annotated[int, Field(ge=0, le=20)] = Field(
        default=CHECKPOINTS,
        description="How many layers of a build are kept as snapshots beside the last one, for later builds to start from.",
    )
    encrypt: bool = Field(default=False, description="Encrypt the image's snapshots.")
    kms_key: str = Field(default="", description="The key that encrypts them; EBS's own otherwise.")
    leave_out_zeros: bool = Field(
        default=False,
        description="Do not send blocks of zeros of an imported disk, where no encryption is in the way: an encrypted "
        "copy of such a snapshot would hold noise there.",
    )
    boot_mode: Literal["legacy-bios", "uefi", "uefi-preferred"] | None = Field(
        default=None, description="How the image boots; as its source does where nothing is said."
    )
    imds: Literal["v2.0", "optional"] = Field(
        default="v2.0", description="Whether instances of the image take only session tokens (`v2.0`)."
    )
    tpm: Literal["v2.0"] | None = Field(default=None, description="A NitroTPM, with UEFI only.")
    ami_name: Template = Field(
        default="{project}-{image}-{created}",
        description="The AMI's name: `{project}`, `{image}`, `{target}`, `{run}`, `{arch}`, `{created}` and `{digest}` "
        "are filled in.",
    )
    tags: dict[TagKey, Template] = Field(
        default={}, description="Tags on all that is made; the words of `ami_name` are filled in."
    )
    parallelcluster: ParallelClusterShape | None = Field(
        default=None, description="What AWS ParallelCluster reads of a custom AMI: its tags are added."
    )
    copy_to: list[Annotated[CopyShape, _shorthand("region")]] = Field(
        default=[], description="Further regions for the image: `us-east-1`, or `{region: …, kms_key: …}`."
    )
    share: ShareShape = Field(default=ShareShape(), description="Who else may launch it.")
    parameter: Template = Field(
        default="",
        description="An SSM parameter that holds the id of the newest, such as `/ingot/{image}/latest`.",
    )
    deprecate_after: Annotated[str, AfterValidator(_time)] = Field(
        default="", description="When the image counts as deprecated, such as `180d`."
    )
    protect: bool = Field(default=False, description="Whether the image is protected from deregistration.")

    @model_validator(mode="after")
    def _usable_by_others(self) -> TargetShape:
        """EBS's own key is of one account alone: what it encrypts, no other account can launch."""
        share = self.share
        if not (share.accounts or share.organizations or share.units):
            return self
        without = [one.region for one in self.copy_to if not one.kms_key and (self.encrypt or self.kms_key)]
        if self.encrypt and not self.kms_key:
            without.insert(0, self.region or "its own region")
        if without:
            raise Wrong(
                f"what is shared would be encrypted with EBS's own key in {', '.join(without)}, and no other account can "
                "use that",
                hint="set `kms_key` to a key of yours, and one for each region: `copy_to: [{region: …, kms_key: …}]`",
            )
        return self


class _Shape:
    """Implements `ports.Shape`."""

    target = TargetShape
    base = BaseShape

    def checkpoints(self, options: Mapping[str, Any]) -> int:
        """As many as the target says."""
        return int(options.get("checkpoints", CHECKPOINTS))

    def location(self, options: Mapping[str, Any]) -> str:
        """The region: the target's own, or as boto3 finds it; "" where nothing says it, or boto3 is not installed."""
        if options.get("region"):
            return str(options["region"])
        try:
            import botocore.session
        except ImportError:
            return ""
        session = botocore.session.Session(profile=options.get("profile") or None)
        try:
            return str(session.get_config_variable("region") or "")
        except botocore.exceptions.ProfileNotFound:
            return ""


SHAPE = _Shape()
