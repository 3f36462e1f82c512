"""`ingot doctor`: what it says, as lines and as JSON, and what it exits with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ingot.cli.main import run
from ingot.cli.render import findings
from ingot.cli.render.line import draw
from ingot.model.diagnosis import Diagnosis
from ingot.model.views import Examined

from .conftest import Ingot
from .golden import DATA, compare

CLOUD = Examined(
    target="aws",
    backend="aws",
    location="us-east-1",
    findings=(
        Diagnosis(
            what="credentials",
            state="ok",
            message="account 123456789012, as arn:aws:iam::123456789012:user/ci",
        ),
        Diagnosis(
            what="network",
            state="bad",
            message="there is no default VPC in us-east-1, and the target names no `subnet`",
            hint="name a `subnet`, or make a default VPC: `aws ec2 create-default-vpc --region us-east-1`",
        ),
        Diagnosis(what="access", state="skipped", message="this computer's own address is not asked for"),
    ),
    policy={"Version": "2012-10-17", "Statement": []},
)
HERE = Examined(
    target="local",
    backend="local",
    location="local",
    findings=(
        Diagnosis(what="rights", state="ok", message="root, with FUSE and loop devices"),
        Diagnosis(
            what="virtual machines",
            state="warn",
            message="/dev/kvm cannot be used",
            hint="QEMU computes what a processor would",
        ),
    ),
)


@pytest.mark.parametrize(("case", "values"), [("bad", (CLOUD, HERE)), ("well", (HERE,))])
def test_what_it_says(case: str, values: tuple[Examined, ...]) -> None:
    compare(draw(findings.examined(values), colour=False), DATA / "answers" / f"examined-{case}.txt")


def test_a_backend_without_a_doctor(ingot: Ingot) -> None:
    said = ingot("doctor", "--json")
    assert said.code == 0
    (target,) = said.document["targets"]
    assert (target["target"], target["findings"][0]["state"]) == ("local", "skipped")
    assert "a build would fail" not in ingot("doctor").out


def test_a_policy_is_of_one_target_in_a_cloud(ingot: Ingot) -> None:
    said = ingot("doctor", "--policy")
    assert said.code == 2 and "no target asks for a policy" in said.err


def test_a_target_that_there_is_not(ingot: Ingot) -> None:
    said = ingot("doctor", "--on", "nowhere")
    assert said.code == 2 and "nowhere" in said.err


TWO = """\
name: acme
targets:
  east: {backend: aws, region: us-east-1}
  west: {backend: aws, region: us-west-2}
bases:
  debian: {aws: {ami: ami-0123456789abcdef0}}
images:
  node: {base: debian, steps: [{packages: [htop]}]}
"""


@pytest.fixture
def clouds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project for AWS, where nobody is signed in and nothing answers."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("INGOT_STATE", str(tmp_path / "state"))
    (tmp_path / "ingot.yaml").write_text(TWO)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_policy_needs_no_credentials(clouds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--policy"]) == 2
    assert "several targets have a policy: east, west" in capsys.readouterr().err
    assert run(["doctor", "--policy", "--on", "west"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["Version"] == "2012-10-17" and "us-west-2" in json.dumps(document)
    assert "us-east-1" not in json.dumps(document)


def test_what_is_bad_is_told_target_by_target(clouds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor"]) == 4
    said = capsys.readouterr().out
    assert said.count("there are no usable credentials for AWS") == 2 and said.count("aws configure") == 2
    assert "a build would fail: 2 of 4 findings are bad" in said


def test_no_region(clouds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (clouds / "ingot.yaml").write_text(TWO.replace(", region: us-east-1", ""))
    assert run(["doctor", "--on", "east", "--json"]) == 4
    (target,) = json.loads(capsys.readouterr().out)["targets"]
    assert target["findings"][0]["message"] == "no region is given for AWS"


@pytest.mark.local
def test_without_a_definition_this_computer_is_looked_at(
    clouds: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (clouds / "ingot.yaml").unlink()
    assert run(["doctor", "--json"]) == 0
    (target,) = json.loads(capsys.readouterr().out)["targets"]
    assert {one["what"] for one in target["findings"]} >= {"rights", "programs", "room", "virtual machines"}
