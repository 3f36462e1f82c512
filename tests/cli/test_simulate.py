"""`ingot build --simulate`: the whole program in a pretend cloud, which leaves nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ingot.cli.main import run

from .conftest import project, state
from .world import DEFINITION, write_project

__all__ = ["project", "state"]


@pytest.fixture(autouse=True)
def _here(project: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setenv("INGOT_STATE", str(state))


def test_nothing_is_made_or_recorded(project: Path, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(path.name for path in project.iterdir())
    assert run(["build", "--simulate"]) == 0
    said = capsys.readouterr()
    assert "✓ node/local" in said.out and "✓ big-node/local" in said.out
    assert "simulated: nothing was made or recorded" in said.out
    assert "version" not in said.out and "image " not in said.out
    assert sorted(path.name for path in project.iterdir()) == before
    assert not state.exists()


def test_a_refusal_ends_as_a_real_one_would(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["build", "node", "--simulate-with", "fail=freeze:2", "--json"]) == 4
    document = json.loads(capsys.readouterr().out)
    (outcome,) = document["outcomes"]
    assert document["simulated"] and outcome["status"] == "failed"
    assert "refused call 2 of 'freeze'" in outcome["error"]["message"]
    assert [layer["status"] for layer in outcome["layers"]] == ["built", "built"]


def test_a_quota_is_met_by_builds_side_by_side(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = "  other:\n    base: tiny\n    targets: [local]\n    steps:\n      - packages: [mc]\n"
    write_project(project, DEFINITION + other)
    words = ["build", "node", "other", "-j", "2", "--json"]
    assert run([*words, "--simulate-with", "step=300ms,machines=1"]) == 4
    failed = [one for one in json.loads(capsys.readouterr().out)["outcomes"] if one["error"]]
    assert len(failed) == 1 and "quota of 1" in failed[0]["error"]["message"]
    assert run([*words, "--simulate-with", "step=300ms,machines=2"]) == 0


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--simulate", "--check"], "nothing to boot"),
        (["--simulate-with", "boot=soon"], "boot=soon"),
        (["--simulate-with", "sleep=1s"], "sleep"),
    ],
)
def test_what_cannot_be_simulated_is_told(
    words: list[str], names: str, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["build", *words]) == 2
    assert names in capsys.readouterr().err
    assert not state.exists()
