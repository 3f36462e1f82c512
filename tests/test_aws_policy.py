"""The policy that `ingot doctor` prints is what builds call: no less, and no more than is told here."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from ingot.api.workspace import Workspace
from ingot.backends.aws.policy import actions
from tests.aws_bed.fixture import AwsBed
from tests.local_fixtures import cached_base
from tests.test_aws_builds import build, workspace

__all__ = ["cached_base", "workspace"]
pytestmark = pytest.mark.local

_SERVICES = {"service-quotas": "servicequotas"}
NEEDS_NO_LEAVE = {
    "sts:GetCallerIdentity": "AWS lets everybody ask who they are",
}
NOT_CALLED: Mapping[str, str] = {
    "ec2:CreateTags": "EC2 asks for it where a call tags what it makes; of its own it is called to keep a machine",
    "ec2:GetConsoleOutput": "asked of a machine that does not answer",
    "ec2:GetEbsDefaultKmsKeyId": "asked where the account encrypts by default",
}


def called(bed: AwsBed) -> set[str]:
    """What was called, as policies name it."""
    return {f"{_SERVICES.get(call['service'], call['service'])}:{call['action']}" for call in bed.calls()}


def test_what_is_called_is_allowed_and_what_is_allowed_is_called(workspace: Workspace, bed: AwsBed) -> None:
    document = workspace.policy(targets=["aws"])
    assert not bed.calls(), "it is made of the definition alone"
    (examined,) = workspace.examine()
    assert examined.well and examined.policy == document
    build(workspace, check=True)
    # A build on a layer of ours registers an AMI for its own launch.
    site = workspace.root / "site.yml"
    site.write_text(site.read_text().replace("three", "tres"))
    build(Workspace.open(workspace.root, state=workspace.state.root))
    (copy,) = bed.client("ec2", region="us-west-2").describe_snapshots(OwnerIds=["self"])["Snapshots"][:1]
    assert "ingot:content" in {tag["Key"] for tag in copy["Tags"]}, "else the policy forbids to share it"
    allowed = actions(document)
    assert called(bed) - allowed == set(NEEDS_NO_LEAVE)
    assert allowed - called(bed) == set(NOT_CALLED)
