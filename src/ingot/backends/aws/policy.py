"""The least that AWS must allow for the builds of one target, as an IAM policy. Pure: from the definition alone.

Which resources and condition keys an action knows is told by the Service Authorization Reference, "Actions, resources, and
condition keys for Amazon EC2" (and for KMS, Systems Manager, IAM, Service Quotas). What is narrowed by a tag bears that tag
from the very call that makes it: "Grant permission to tag Amazon EC2 resources during creation" (EC2 User Guide).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ingot.backends.aws import tags
from ingot.backends.aws.instances import TYPES
from ingot.backends.aws.publish import GRANTS
from ingot.backends.aws.shape import BaseShape, TargetShape

Statement = dict[str, Any]

_OURS = {"StringLike": {f"aws:ResourceTag/{tags.TOKEN}": "ingot-*"}}
"""What is temporary: it bears its run's token. IAM User Guide, "Controlling access to AWS resources using tags"."""
_OF_US = {"Null": {f"aws:ResourceTag/{tags.CONTENT}": "false"}}
"""What stays: AMIs and snapshots of ours say what they hold. "Condition operators": `Null` tells whether a key is there."""
_BORN_OURS = {"StringLike": {f"aws:RequestTag/{tags.TOKEN}": "ingot-*"}}
_BORN_OF_US = {"Null": {f"aws:RequestTag/{tags.CONTENT}": "false"}}


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What the policy follows from."""

    settings: TargetShape
    region: str
    arches: Sequence[str]
    bases: Sequence[BaseShape]

    @property
    def partition(self) -> str:
        return partition(self.region)

    @property
    def domain(self) -> str:
        """Of the partition's services."""
        return "amazonaws.com.cn" if self.partition == "aws-cn" else "amazonaws.com"

    @property
    def regions(self) -> tuple[str, ...]:
        """Where images come to be, the one of the builds first."""
        return tuple(dict.fromkeys([self.region, *(one.region for one in self.settings.copy_to)]))

    def ec2(self, *kinds: str, everywhere: bool = False) -> list[str]:
        """ARNs of EC2's things. Those of images and snapshots name no account."""
        places = self.regions if everywhere else (self.region,)
        return [
            f"arn:{self.partition}:ec2:{place}:{'' if kind.startswith(_NOBODYS) else '*'}:{kind}"
            for place in places
            for kind in kinds
        ]


_NOBODYS = ("image/", "snapshot/")


def partition(region: str) -> str:
    """The first word of a region's ARNs after `arn:`."""
    if region.startswith("cn-"):
        return "aws-cn"
    return "aws-us-gov" if region.startswith("us-gov-") else "aws"


def policy(asked: Asked) -> dict[str, Any]:
    """The policy as IAM takes it."""
    parts = (_look, _launch, _temporary, _make, _publish, _connect, _roles, _keys)
    return {"Version": "2012-10-17", "Statement": [one for part in parts for one in part(asked)]}


def actions(document: Mapping[str, Any]) -> frozenset[str]:
    """All actions that a policy of ours allows."""
    return frozenset(action for one in document["Statement"] for action in one["Action"])


def _allow(
    sid: str, actions: Sequence[str], resources: Sequence[str] = ("*",), condition: Any = None
) -> Statement:
    made: Statement = {"Sid": sid, "Effect": "Allow", "Action": list(actions), "Resource": list(resources)}
    return {**made, "Condition": condition} if condition else made


def _look(asked: Asked) -> Iterator[Statement]:
    """EC2's Describe actions know no resources; the region can be told for every one ("AWS global condition keys")."""
    settings = asked.settings
    seen = ["Images", "Snapshots", "Instances", "Tags", "Subnets"]
    if not (settings.subnet or settings.subnet_filters):
        seen.append("Vpcs")
    here = {"StringEquals": {"aws:RequestedRegion": list(asked.regions)}}
    yield _allow("Look", [f"ec2:Describe{name}" for name in seen], condition=here)
    doctor = ["Regions", "RouteTables", "InstanceTypes", "InstanceTypeOfferings"]
    if settings.security_groups:
        doctor.append("SecurityGroups")
    yield _allow(
        "LookAhead",
        [
            *(f"ec2:Describe{name}" for name in doctor),
            "ec2:GetEbsEncryptionByDefault",
            "ec2:GetEbsDefaultKmsKeyId",
            "servicequotas:GetServiceQuota",
        ],
        condition=here,
    )
    named = [base.ssm for base in asked.bases if base.ssm]
    if named:
        where = f"arn:{asked.partition}:ssm:{asked.region}:*:parameter"
        yield _allow("FindSources", ["ssm:GetParameter"], [f"{where}{name}" for name in named])


def _launch(asked: Asked) -> Iterator[Statement]:
    """RunInstances is asked for each thing that it takes part in: EC2 User Guide, "Example policies", "RunInstances"."""
    settings = asked.settings
    types = settings.instance_type or [name for arch in asked.arches for name in TYPES[arch]]
    exact = {"ec2:InstanceType": list(types), "ec2:MetadataHttpTokens": "required"}
    yield _allow(
        "Launch", ["ec2:RunInstances"], asked.ec2("instance/*"), {**_BORN_OURS, "StringEquals": exact}
    )
    groups = [f"security-group/{one}" for one in settings.security_groups] or ["security-group/*"]
    subnet = f"subnet/{settings.subnet or '*'}"
    yield _allow(
        "LaunchWith",
        ["ec2:RunInstances"],
        asked.ec2("image/*", subnet, "network-interface/*", "key-pair/ingot-*", *groups),
    )
    if settings.spot:
        # EC2 User Guide, "Service-linked role for Spot Instance requests": the account's first request makes it.
        role = "role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"
        yield _allow(
            "LaunchSpot",
            ["iam:CreateServiceLinkedRole"],
            [f"arn:{asked.partition}:iam::*:{role}"],
            {"StringEquals": {"iam:AWSServiceName": "spot.amazonaws.com"}},
        )


def _temporary(asked: Asked) -> Iterator[Statement]:
    """What bears a token from its making on, and is ended by whoever sees the token."""
    own_groups = not asked.settings.security_groups
    born = ["ec2:RunInstances", "ec2:ImportKeyPair"]
    kinds = ["volume/*", "key-pair/ingot-*"]
    ours = ["StopInstances", "TerminateInstances", "GetConsoleOutput", "CreateSnapshot", "DeregisterImage"]
    ours.append("DeleteKeyPair")
    if own_groups:
        born.append("ec2:CreateSecurityGroup")
        kinds.append("security-group/*")
        ours.append("DeleteSecurityGroup")
        if asked.settings.access != "ssm":
            ours.append("AuthorizeSecurityGroupIngress")
    yield _allow("MakeTemporary", born, asked.ec2(*kinds), _BORN_OURS)
    if own_groups:
        yield _allow("GroupsInVpc", ["ec2:CreateSecurityGroup"], asked.ec2("vpc/*"))
    what = asked.ec2("instance/*", "image/*", *kinds)
    yield _allow("UseTemporary", [f"ec2:{name}" for name in ours], what, _OURS)
    only = {"ForAllValues:StringEquals": {"aws:TagKeys": [tags.EXPIRES]}}
    yield _allow("KeepMachines", ["ec2:CreateTags"], asked.ec2("instance/*"), {**_OURS, **only})


def _make(asked: Asked) -> Iterator[Statement]:
    """Snapshots and AMIs. An AMI for a launch alone bears a token, one that stays tells its content: either of the keys."""
    yield _allow("Snapshot", ["ec2:CreateSnapshot"], asked.ec2("snapshot/*"), _BORN_OF_US)
    either = {"ForAnyValue:StringEquals": {"aws:TagKeys": [tags.TOKEN, tags.CONTENT]}}
    yield _allow("Register", ["ec2:RegisterImage"], asked.ec2("image/*"), either)
    yield _allow("RegisterOf", ["ec2:RegisterImage"], asked.ec2("snapshot/*"), _OF_US)
    made = ["RunInstances", "ImportKeyPair", "CreateSnapshot", "RegisterImage"]
    kinds = ["instance/*", "volume/*", "key-pair/ingot-*"]
    if not asked.settings.security_groups:
        made.append("CreateSecurityGroup")
        kinds.append("security-group/*")
    if asked.settings.copy_to:
        made.append("CopyImage")
    what = [*asked.ec2(*kinds), *asked.ec2("snapshot/*", "image/*", everywhere=True)]
    yield _allow("TagWhatIsMade", ["ec2:CreateTags"], what, {"StringEquals": {"ec2:CreateAction": made}})


def _publish(asked: Asked) -> Iterator[Statement]:
    settings, share = asked.settings, asked.settings.share
    images = asked.ec2("image/*", everywhere=True)
    if settings.copy_to:
        copies = asked.ec2("image/*", "snapshot/*", everywhere=True)
        yield _allow("Copy", ["ec2:CopyImage"], copies, _BORN_OF_US)
    change = []
    if share.accounts or share.organizations or share.units:
        change.append("ec2:ModifyImageAttribute")
    if settings.deprecate_after:
        change.append("ec2:EnableImageDeprecation")
    if settings.protect:
        change.append("ec2:EnableImageDeregistrationProtection")
    if change:
        yield _allow("Publish", change, images, _OF_US)
    if share.accounts:
        snapshots = asked.ec2("snapshot/*", everywhere=True)
        yield _allow("ShareSnapshots", ["ec2:ModifySnapshotAttribute"], snapshots, _OF_US)
    if settings.parameter:
        name = settings.parameter.replace("{image}", "*").lstrip("/")
        yield _allow(
            "Name",
            ["ssm:PutParameter"],
            [f"arn:{asked.partition}:ssm:{region}:*:parameter/{name}" for region in asked.regions],
        )


def _connect(asked: Asked) -> Iterator[Statement]:
    """Systems Manager User Guide, "Sample IAM policies for Session Manager" and "Step 8: SSH connections"."""
    if asked.settings.access != "ssm":
        return
    ours = {"StringLike": {f"ssm:resourceTag/{tags.TOKEN}": "ingot-*"}}
    yield _allow("Connect", ["ssm:StartSession"], asked.ec2("instance/*"), ours)
    where = f"arn:{asked.partition}:ssm:{asked.region}"
    yield _allow("ConnectBySsh", ["ssm:StartSession"], [f"{where}::document/AWS-StartSSHSession"])
    yield _allow(
        "OwnSessions",
        ["ssm:ResumeSession", "ssm:TerminateSession"],
        [f"{where}:*:session/${{aws:userid}}-*"],
    )


def _roles(asked: Asked) -> Iterator[Statement]:
    """The role of an instance profile need not have its name. IAM User Guide, "Grant a user permissions to pass a role"."""
    profile = asked.settings.instance_profile
    if not profile:
        return
    own = (
        profile if profile.startswith("arn:") else f"arn:{asked.partition}:iam::*:instance-profile/*{profile}"
    )
    yield _allow("SeeProfile", ["iam:GetInstanceProfile"], [own])
    to = {"StringEquals": {"iam:PassedToService": f"ec2.{asked.domain}"}}
    yield _allow("PassRole", ["iam:PassRole"], [f"arn:{asked.partition}:iam::*:role/*"], to)


def keys(settings: TargetShape, region: str) -> list[tuple[str, str]]:
    """(region, key) of every key that the target names."""
    named = [(region, settings.kms_key), *((one.region, one.kms_key) for one in settings.copy_to)]
    return [(where, key) for where, key in named if key]


def _keys(asked: Asked) -> Iterator[Statement]:
    """EBS User Guide, "Requirements for Amazon EBS encryption"; KMS Developer Guide, "AWS KMS condition keys"."""
    groups: dict[str, list[str]] = {}
    for region, key in keys(asked.settings, asked.region):
        arn, alias = _key(asked, region, key)
        groups.setdefault(alias, []).append(arn)
    for number, (alias, arns) in enumerate(groups.items(), 1):
        called = {"ForAnyValue:StringEquals": {"kms:ResourceAliases": [alias]}} if alias else {}
        yield _allow(f"SeeKeys{number}", ["kms:DescribeKey"], arns, called)
        via = {"StringEquals": {"kms:ViaService": [f"ec2.{one}.{asked.domain}" for one in asked.regions]}}
        use = ["kms:Decrypt", "kms:GenerateDataKeyWithoutPlaintext", "kms:ReEncryptFrom", "kms:ReEncryptTo"]
        yield _allow(f"UseKeys{number}", use, arns, {**called, **via})
        resource = {"Bool": {"kms:GrantIsForAWSResource": "true"}}
        yield _allow(f"LendKeys{number}", ["kms:CreateGrant"], arns, {**called, **resource})
        accounts = asked.settings.share.accounts
        if accounts:
            who = [f"arn:{asked.partition}:iam::{account}:root" for account in accounts]
            limits = {
                "StringEquals": {"kms:GranteePrincipal": who},
                "ForAllValues:StringEquals": {"kms:GrantOperations": list(GRANTS)},
            }
            yield _allow(f"ShareKeys{number}", ["kms:CreateGrant"], arns, {**called, **limits})


def _key(asked: Asked, region: str, key: str) -> tuple[str, str]:
    """The ARN of a key, and the alias that it is named by; "" where it is not."""
    known = f"arn:{asked.partition}:kms:{region}:*:key"
    if ":key/" in key:
        return key, ""
    alias = key.rpartition(":")[2]
    return (f"{known}/*", alias) if alias.startswith("alias/") else (f"{known}/{key}", "")
