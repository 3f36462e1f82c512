"""The policy as data: what each option of a target adds, and how each action is narrowed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import botocore.session
import pytest

from ingot.backends.aws.policy import Asked, actions, policy
from ingot.backends.aws.shape import BaseShape, TargetShape

GOLDEN = Path(__file__).parent.parent.parent / "data" / "aws" / "policy.json"
KEY = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
EVERYTHING: dict[str, Any] = {
    "instance_type": ["c7i.large"],
    "spot": True,
    "access": "ssm",
    "instance_profile": "builders",
    "encrypt": True,
    "kms_key": KEY,
    "copy_to": [{"region": "us-west-2", "kms_key": "alias/images"}],
    "share": {"accounts": ["210987654321"]},
    "parameter": "/ingot/{image}/latest",
    "deprecate_after": "180d",
    "protect": True,
}
LITTLE = {
    "ec2:DescribeImages", "ec2:DescribeSnapshots", "ec2:DescribeInstances", "ec2:DescribeTags", "ec2:DescribeSubnets",
    "ec2:DescribeVpcs", "ec2:DescribeRegions", "ec2:DescribeRouteTables", "ec2:DescribeInstanceTypes",
    "ec2:DescribeInstanceTypeOfferings", "ec2:GetEbsEncryptionByDefault", "ec2:GetEbsDefaultKmsKeyId",
    "servicequotas:GetServiceQuota", "ec2:RunInstances", "ec2:ImportKeyPair", "ec2:DeleteKeyPair", "ec2:StopInstances",
    "ec2:TerminateInstances", "ec2:GetConsoleOutput", "ec2:CreateSecurityGroup", "ec2:DeleteSecurityGroup",
    "ec2:AuthorizeSecurityGroupIngress", "ec2:CreateSnapshot", "ec2:RegisterImage", "ec2:DeregisterImage", "ec2:CreateTags",
}  # fmt: skip
"""What a target needs that says nothing at all."""


def made(region: str = "us-east-1", *, ssm: str = "", **options: Any) -> dict[str, Any]:
    bases = [BaseShape.model_validate({"ssm": ssm})] if ssm else []
    asked = Asked(
        settings=TargetShape.model_validate(options), region=region, arches=("x86_64",), bases=tuple(bases)
    )
    return policy(asked)


def statements(document: dict[str, Any], action: str) -> list[dict[str, Any]]:
    return [one for one in document["Statement"] if action in one["Action"]]


def test_what_a_target_needs_that_says_nothing() -> None:
    assert actions(made()) == LITTLE


@pytest.mark.parametrize(
    ("options", "more", "less"),
    [
        ({"subnet": "subnet-0123456789abcdef0"}, set(), {"ec2:DescribeVpcs"}),
        (
            {"security_groups": ["sg-0123456789abcdef0"]},
            {"ec2:DescribeSecurityGroups"},
            {"ec2:CreateSecurityGroup", "ec2:DeleteSecurityGroup", "ec2:AuthorizeSecurityGroupIngress"},
        ),
        (
            {"access": "ssm"},
            {"ssm:StartSession", "ssm:ResumeSession", "ssm:TerminateSession"},
            {"ec2:AuthorizeSecurityGroupIngress"},
        ),
        ({"spot": True}, {"iam:CreateServiceLinkedRole"}, set()),
        ({"instance_profile": "b"}, {"iam:GetInstanceProfile", "iam:PassRole"}, set()),
        ({"copy_to": ["us-west-2"]}, {"ec2:CopyImage"}, set()),
        (
            {"share": {"accounts": ["210987654321"]}},
            {"ec2:ModifyImageAttribute", "ec2:ModifySnapshotAttribute"},
            set(),
        ),
        ({"share": {"units": ["arn:aws:x"]}}, {"ec2:ModifyImageAttribute"}, set()),
        ({"deprecate_after": "180d"}, {"ec2:EnableImageDeprecation"}, set()),
        ({"protect": True}, {"ec2:EnableImageDeregistrationProtection"}, set()),
        ({"parameter": "/a/{image}"}, {"ssm:PutParameter"}, set()),
        ({"ssm": "/aws/service/debian/12"}, {"ssm:GetParameter"}, set()),
        (
            {"kms_key": KEY},
            {
                "kms:DescribeKey", "kms:Decrypt", "kms:GenerateDataKeyWithoutPlaintext", "kms:ReEncryptFrom",
                "kms:ReEncryptTo", "kms:CreateGrant",
            },
            set(),
        ),
        ({"encrypt": True}, set(), set()),
    ],
    ids=lambda value: next(iter(value), "-") if isinstance(value, dict) else "",
)  # fmt: skip
def test_what_each_option_adds(options: dict[str, Any], more: set[str], less: set[str]) -> None:
    assert actions(made(**options)) == (LITTLE | more) - less


def test_everything_at_once() -> None:
    """Read it in `git diff`: `INGOT_GOLDEN=write` takes the new text."""
    from tests.cli.golden import compare

    compare(json.dumps(made(ssm="/aws/service/debian/12", **EVERYTHING), indent=2) + "\n", GOLDEN)


def test_every_action_is_one_of_awss() -> None:
    known = {
        "ec2": "ec2",
        "kms": "kms",
        "ssm": "ssm",
        "iam": "iam",
        "servicequotas": "service-quotas",
    }
    not_calls = {"iam:PassRole", "kms:ReEncryptFrom", "kms:ReEncryptTo"}
    session = botocore.session.Session()
    names = {
        f"{prefix}:{name}"
        for prefix, service in known.items()
        for name in session.get_service_model(service).operation_names
    }
    asked = actions(made(ssm="/aws/service/debian/12", **EVERYTHING)) | LITTLE
    assert asked - names == not_calls


@pytest.mark.parametrize(
    "action",
    ["ec2:TerminateInstances", "ec2:StopInstances", "ec2:DeleteKeyPair", "ec2:DeleteSecurityGroup",
     "ec2:AuthorizeSecurityGroupIngress", "ec2:DeregisterImage", "ec2:GetConsoleOutput"],
)  # fmt: skip
def test_nothing_is_ended_but_what_bears_a_token(action: str) -> None:
    (one,) = statements(made(), action)
    assert one["Sid"] == "UseTemporary" and one["Condition"]["StringLike"] == {
        "aws:ResourceTag/ingot:token": "ingot-*"
    }


def test_whatever_changes_something_is_narrowed() -> None:
    document = made(ssm="/aws/service/debian/12", **EVERYTHING)
    looks = ("ec2:Describe", "ec2:Get", "servicequotas:Get")
    for one in document["Statement"]:
        if all(action.startswith(looks) for action in one["Action"]):
            continue
        assert "*" not in one["Resource"], one["Sid"]
    free = {one["Sid"] for one in document["Statement"] if "Condition" not in one}
    # What a launch takes part with and groups are made in; one name, or sessions of one's own.
    assert free == {
        "FindSources", "LaunchWith", "GroupsInVpc", "Name", "ConnectBySsh", "OwnSessions", "SeeProfile", "SeeKeys1",
    }  # fmt: skip


def test_ids_are_unique_and_of_letters() -> None:
    sids = [one["Sid"] for one in made(**EVERYTHING)["Statement"]]
    assert len(set(sids)) == len(sids) and all(sid.isalnum() for sid in sids)


def test_it_fits_into_a_managed_policy() -> None:
    """6,144 characters without white space: "IAM and AWS STS quotas"."""
    usual = {
        name: value for name, value in EVERYTHING.items() if name not in ("access", "kms_key", "encrypt")
    }
    text = json.dumps(made(**{**usual, "copy_to": ["us-west-2"]}), separators=(",", ":"))
    assert len(text) <= 6144
    # With keys of one's own, and Session Manager, it fits a role's inline policies only: 10,240.
    assert len(json.dumps(made(**EVERYTHING), separators=(",", ":"))) <= 10240


def test_partitions() -> None:
    for region, partition in (("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov")):
        document = made(region, instance_profile="b", parameter="/a")
        arns = [arn for one in document["Statement"] for arn in one["Resource"] if arn != "*"]
        assert {arn.split(":")[1] for arn in arns} == {partition}


def test_a_key_by_its_alias() -> None:
    (one,) = statements(made(kms_key="alias/images"), "kms:DescribeKey")
    assert one["Resource"] == ["arn:aws:kms:us-east-1:*:key/*"]
    assert one["Condition"] == {"ForAnyValue:StringEquals": {"kms:ResourceAliases": ["alias/images"]}}
