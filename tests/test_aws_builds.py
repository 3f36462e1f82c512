"""Whole builds on AWS's test bed: real machines, real disks, EC2's own interface."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingot.api.workspace import Workspace
from ingot.model.digest import short
from ingot.model.image import Outcome
from tests.aws_bed.fixture import AwsBed, KeyPair, log_in
from tests.local_fixtures import cached_base

__all__ = ["cached_base"]
pytestmark = pytest.mark.local

DEFINITION = """\
name: acme
targets:
  aws:
    backend: aws
    region: us-east-1
    instance_type: [c7i.large, c6i.large]
    user: admin
    allow_from: [127.0.0.1/32]
    ami_name: "acme_{image}_1.0+2"
    tags: {Team: hpc, AMISha: "{digest}", BodoVersion: "1.0", Role: "{image}"}
    parallelcluster: {version: 3.11.1, os: alinux2023}
    copy_to: [us-west-2]
    share: {accounts: ["210987654321"]}
    parameter: "/ingot/{image}/latest"
    deprecate_after: 180d
    protect: true
bases:
  debian-12:
    aws: {owners: ["136693071363"], name: "debian-12-amd64-*"}
images:
  node:
    base: debian-12
    steps:
      - script: {inline: "echo one >/etc/one"}
      - files: {dest: /etc/two, text: "two\\n"}
      - playbook: site.yml
    checks: [checks/]
"""
PLAYBOOK = """\
- hosts: all
  tasks:
    - name: Write what is asked for
      ansible.builtin.copy: {content: "three\\n", dest: /etc/three, mode: "0644"}
"""
CHECK = """\
def test_all_of_it_is_there(host):
    for name in ("one", "two", "three"):
        assert host.file(f"/etc/{name}").content_string == f"{name}\\n"
"""


@pytest.fixture
def workspace(tmp_path: Path, bed: AwsBed, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    for name, value in bed.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_POLL_DELAY_SECONDS", "0.2")
    folder = tmp_path / "project"
    (folder / "checks").mkdir(parents=True)
    (folder / "ingot.yaml").write_text(DEFINITION)
    (folder / "site.yml").write_text(PLAYBOOK)
    (folder / "checks" / "test_node.py").write_text(CHECK)
    yield Workspace.open(folder, state=tmp_path / "state")
    left = bed.left()
    assert not {*left} - {"images", "snapshots"}, left


def build(workspace: Workspace, *, check: bool = False) -> Outcome:
    (outcome,) = workspace.build(check=check).outcomes
    assert outcome.error is None, json.dumps(outcome.error)
    return outcome


def test_an_image_is_built_checked_and_given_to_others(workspace: Workspace, bed: AwsBed) -> None:
    outcome = build(workspace, check=True)
    assert outcome.checks is not None and outcome.checks.passed
    assert [layer.status for layer in outcome.layers] == ["built"] * 5
    assert outcome.ref.startswith("ami-") and set(outcome.copies) == {"us-west-2"}
    (image,) = bed.client("ec2").describe_images(ImageIds=[outcome.ref])["Images"]
    assert (image["ImdsSupport"], image["Architecture"], image["EnaSupport"]) == ("v2.0", "x86_64", True)
    assert image["Name"] == "acme_node_1.0-2" and image["DeprecationTime"]
    told = {tag["Key"]: tag["Value"] for tag in image["Tags"] if not tag["Key"].startswith("ingot:")}
    assert told == {
        "Name": "node",
        "Team": "hpc",
        "AMISha": short(outcome.digest),
        "BodoVersion": "1.0",
        "Role": "node",
        "parallelcluster:version": "3.11.1",
        "parallelcluster:os": "alinux2023",
        "parallelcluster:build_status": "available",
    }
    other = bed.client("ec2", other=True)
    assert other.describe_images(ImageIds=[outcome.ref])["Images"], "the other account sees it"
    west = bed.client("ec2", region="us-west-2", other=True)
    assert west.describe_images(ImageIds=[outcome.copies["us-west-2"]])["Images"]
    named = bed.client("ssm").get_parameter(Name="/ingot/node/latest")["Parameter"]
    assert named["Value"] == outcome.ref
    # Again: all of it is there, and nothing is made.
    bed.calls(reset=True)
    again = build(workspace)
    assert (again.status, again.ref, again.copies) == ("reused", outcome.ref, outcome.copies)
    made = {call["action"] for call in bed.calls() if call["mutating"]}
    assert not made & {"RunInstances", "CreateSnapshot", "RegisterImage", "CopyImage"}


def test_a_change_of_the_last_step_starts_from_the_layer_below_it(workspace: Workspace, bed: AwsBed) -> None:
    build(workspace)
    site = workspace.root / "site.yml"
    site.write_text(site.read_text().replace("three", "tres"))
    bed.calls(reset=True)
    outcome = build(Workspace.open(workspace.root, state=workspace.state.root))
    assert [layer.status for layer in outcome.layers] == ["reused"] * 3 + ["built"] * 2
    actions = [call["action"] for call in bed.calls()]
    assert actions.count("RunInstances") == 1 and actions.count("StopInstances") == 1
    # The name is the first image's still.
    (image,) = bed.client("ec2").describe_images(ImageIds=[outcome.ref])["Images"]
    assert image["Name"] == f"acme_node_1.0-2-{short(outcome.digest)}"


def test_fewer_calls_than_packer_makes(
    workspace: Workspace, bed: AwsBed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packer 1.6.6 makes 30 for the same, 16 of them mutating, at a test bed whose answers wait for nothing."""
    monkeypatch.setenv("AWS_POLL_DELAY_SECONDS", "3")
    said = (workspace.root / "ingot.yaml").read_text()
    for line in ("parameter:", "deprecate_after:", "protect:"):
        said = "".join(one for one in said.splitlines(True) if line not in one)
    said = said.replace("    region:", "    checkpoints: 0\n    region:")
    (workspace.root / "ingot.yaml").write_text(said)
    here = Workspace.open(workspace.root, state=workspace.state.root)
    here.lock()
    bed.calls(reset=True)
    build(here)
    made = [(call["action"], call["mutating"]) for call in bed.calls()]
    assert len(made) < 30, made
    assert sum(mutating for _, mutating in made) < 16, made


IMPORTED = """\
name: acme
targets:
  aws: {backend: aws, build: local, region: us-east-1, disk: 3 GiB}
bases:
  debian-12:
    local: {image: base.qcow2}
images:
  disk:
    base: debian-12
    steps:
      - script:
          inline: |
            useradd --create-home --shell /bin/bash admin
            echo "admin ALL=(ALL) NOPASSWD: ALL" >/etc/sudoers.d/admin
      - files: {dest: /etc/made, text: "here\\n"}
"""


def test_a_disk_made_here_boots_there(
    workspace: Workspace, bed: AwsBed, cached_base: Path, key_pair: KeyPair
) -> None:
    (workspace.root / "base.qcow2").symlink_to(cached_base)
    (workspace.root / "ingot.yaml").write_text(IMPORTED)
    first = build(Workspace.open(workspace.root, state=workspace.state.root))
    assert (first.backend, first.location) == ("aws", "us-east-1") and first.ref.startswith("ami-")
    whole = [call for call in bed.calls(reset=True) if call["action"] == "PutSnapshotBlock"]
    assert len(whole) == 6 * 2**10, "every block of 3 GiB"
    assert said_by(bed, first.ref, key_pair) == "here"
    # The next version goes up as what differs.
    text = IMPORTED.replace('"here', '"there')
    (workspace.root / "ingot.yaml").write_text(text)
    second = build(Workspace.open(workspace.root, state=workspace.state.root))
    delta = [call for call in bed.calls(reset=True) if call["action"] == "PutSnapshotBlock"]
    assert 0 < len(delta) < 400
    assert said_by(bed, second.ref, key_pair) == "there"
    again = build(Workspace.open(workspace.root, state=workspace.state.root))
    assert (again.status, again.ref) == ("reused", second.ref)


def said_by(bed: AwsBed, ami: str, key_pair: KeyPair) -> str:
    """What an instance of the AMI has in its file."""
    ec2 = bed.client("ec2")
    made = ec2.run_instances(
        ImageId=ami, InstanceType="c7i.large", KeyName=key_pair.name, MinCount=1, MaxCount=1
    )
    name = made["Instances"][0]["InstanceId"]
    try:
        address = bed.await_state(name, "running")["PublicIpAddress"]
        return log_in(address, key_pair.file, "cat /etc/made").strip()
    finally:
        ec2.terminate_instances(InstanceIds=[name])
        bed.await_state(name, "terminated")
