"""`ingot build -j`: several images at once, each with a log of its own; some of them fail."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from ingot.cli.render.screen import Screen
from ingot.cli.sinks import Redrawn
from ingot.telling.replay import read

from .conftest import Ingot
from .golden import DATA
from .world import DEFINITION, write_project

IMAGES = """\
  good: {base: tiny, targets: [local], steps: [{packages: [mc]}]}
  bad: {base: tiny, targets: [local], steps: [{packages: [broken]}]}
  worse: {base: tiny, targets: [local], steps: [{packages: [broken, zsh]}]}
"""


@pytest.fixture(autouse=True)
def _definition(project: Path) -> None:
    write_project(project, DEFINITION.split("images:")[0] + "images:\n" + IMAGES)


def test_one_failure_has_its_own_exit_code_and_several_have_3(ingot: Ingot) -> None:
    alone = ingot("build", "good", "bad", "-j", "2", "--json")
    assert alone.code == alone.document["error"]["code"] == 5
    several = ingot("build", "-j", "3", "--json")
    assert several.code == several.document["error"]["code"] == 3
    outcomes = {one["image"]: one for one in several.document["outcomes"]}
    assert outcomes["good"]["error"] is None and outcomes["good"]["version"] == 1
    assert {outcomes[name]["error"]["kind"] for name in ("bad", "worse")} == {"ProvisionError"}


@pytest.mark.parametrize("jobs", ["1", "3"])
def test_each_image_has_a_log_of_its_own(ingot: Ingot, state: Path, jobs: str) -> None:
    document = ingot("build", "-j", jobs, "--json").document
    for outcome in document["outcomes"]:
        log = Path(outcome["log"])
        assert log == state / "runs" / document["run"] / f"{outcome['image']}-local.log"
        lines = log.read_text().splitlines()
        assert all(line.startswith(f"==> {outcome['image']}/local: [") for line in lines)
        assert "| doing packages" in log.read_text()
        assert re.search(r"(built|failed) in ", lines[-1])
    assert "no such package" in Path(document["outcomes"][1]["log"]).read_text()


def test_logs_are_named_where_people_look(ingot: Ingot, state: Path) -> None:
    said = ingot("build", "-j", "3")
    (run,) = ingot("logs", "--list", "--json").document["runs"]
    for name in ("good", "bad", "worse"):
        path = str(state / "runs" / run["id"] / f"{name}-local.log")
        assert path in (said.out if name == "good" else said.err)
        assert path in ingot("logs").out and path in run["logs"]


def test_a_build_of_one_image_has_no_log_beside_its_run(ingot: Ingot, state: Path) -> None:
    (outcome,) = ingot("build", "good", "--json").document["outcomes"]
    assert outcome["log"] == ""
    assert not list(state.glob("runs/*/*-local.log"))


def test_a_log_has_no_secrets(
    ingot: Ingot, project: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (project / "ingot.yaml").read_text()
    text = text.replace("variables:\n", "variables:\n  word: {sensitive: true, env: WORD}\n")
    write_project(project, text.replace("[mc]", "[mc-hunter2]"))
    monkeypatch.setenv("WORD", "hunter2")
    (good, _) = ingot("build", "good", "bad", "-j", "2", "--json").document["outcomes"]
    assert "doing packages mc-***" in Path(good["log"]).read_text()
    assert "hunter2" not in Path(good["log"]).read_text()


def test_a_live_screen_draws_the_table_no_higher_than_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")  # a dumb one is not drawn on
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "8")
    stream = io.StringIO()
    reader = Redrawn(stream, verbose=0, screen=Screen(live=True, columns=60))
    lines = (DATA / "tables" / "matrix.jsonl").read_text().splitlines()
    upto = next(
        number for number, line in enumerate(lines) if '"node-12/local"' in line and "LayerStarted" in line
    )
    for event in read(lines[: upto + 1]):
        reader(event)
    assert reader._live is not None
    reader._live.refresh()
    reader.close()
    frame = stream.getvalue()[stream.getvalue().rindex("11 running") :]
    assert frame.startswith("11 running · 1 waiting · 1 done · 1 failed")
    assert "… and 7 more" in frame
