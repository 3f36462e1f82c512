"""The façade as Python users have it, over the backend in memory."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ingot.api import Workspace, begin
from ingot.api.outcomes import as_record, error_of
from ingot.errors import CancelledError, DefinitionError, NotFoundError, PlanError, ProvisionError, UsageError
from ingot.model.events import Event, LayerStarted, RunFinished, as_json
from ingot.model.image import Outcome
from ingot.model.step import PackagesStep, Step
from ingot.model.units import Bytes, Seconds
from ingot.ports import Machine
from ingot.system.waits import Flag, WallClock
from tests.cli.world import DEFINITION, Steps, memory, world, write_project

SECRET = DEFINITION.replace("variables:\n", "variables:\n  token: {sensitive: true, env: TOKEN}\n").replace(
    "${greeting}", "token is ${token}"
)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    with world(tmp_path / "state"):
        yield tmp_path / "state"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path / "project")


def test_the_example_of_the_docstring(project: Path, state: Path) -> None:
    built = Workspace.open(project).build(["node"])
    assert [outcome.image for outcome in built.outcomes] == ["node"]
    assert built.outcomes[0].ref
    assert error_of(built.outcomes) is None


def test_variables_files_and_environment(project: Path, state: Path, tmp_path: Path) -> None:
    file = tmp_path / "vars.yaml"
    file.write_text("greeting: from-file\n")

    def greeting(workspace: Workspace) -> object:
        return workspace.definition.variables["greeting"].value

    assert greeting(Workspace.open(project, environment={})) == "hello"
    assert greeting(Workspace.open(project, var_files=[file], environment={})) == "from-file"
    given = {"INGOT_VAR_greeting": "from-environment"}
    assert greeting(Workspace.open(project, var_files=[file], environment=given)) == "from-environment"
    named = {"greeting": "named"}
    assert greeting(Workspace.open(project, variables=named, environment=given)) == "named"


def test_plans_are_the_same_each_time_and_change_with_what_counts(project: Path, state: Path) -> None:
    keys = [plan.key for plan in Workspace.open(project).plans()]
    assert keys == [plan.key for plan in Workspace.open(project).plans()]
    other = Workspace.open(project, variables={"greeting": "hi"}).plans()
    assert not set(keys) & {plan.key for plan in other}
    (project / "base.img").write_bytes(b"another disk")
    assert not set(keys) & {plan.key for plan in Workspace.open(project).plans()}


def test_events_begin_with_the_run_and_end_with_it(project: Path, state: Path) -> None:
    heard: list[Event] = []
    Workspace.open(project).build(["node"], emit=heard.append)
    started = [event for event in heard if isinstance(event, LayerStarted)]
    assert [event.index for event in started] == [0, 1, 2, 3]
    assert isinstance(heard[-1], RunFinished)
    assert heard[-1].exit_code == 0


def test_a_wish_to_stop_is_raised_and_nothing_is_left(project: Path, state: Path) -> None:
    write_project(project, DEFINITION.replace("tmux", "endless"))
    flag = Flag()

    def stop(event: Event) -> None:
        if isinstance(event, LayerStarted) and event.index == 1:
            flag.set()

    workspace = Workspace.open(project)
    with pytest.raises(CancelledError):
        workspace.build(emit=stop, cancel=flag)
    assert memory(state).shelf.machines() == []
    assert workspace.runs()[0].exit_code == 130


def test_a_secret_is_in_no_event_plan_or_record(
    project: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_project(project, SECRET)
    monkeypatch.setenv("TOKEN", "hunter2-and-more")
    heard: list[Event] = []
    workspace = Workspace.open(project)
    built = workspace.build(["node"], emit=heard.append)
    # The leak scan finds what the step wrote: that is what it is for.
    assert built.outcomes[0].error is not None
    assert built.outcomes[0].error["kind"] == "LeakError"
    told = json.dumps([as_json(event) for event in heard]) + str(built) + str(workspace.plans())
    files = "".join(
        path.read_text(errors="replace") for path in (state / "runs").rglob("*") if path.is_file()
    )
    assert "hunter2" not in told + files


def test_export_and_check_refuse_what_was_not_built(project: Path, state: Path) -> None:
    workspace = Workspace.open(project)
    for ask in (workspace.check, lambda: workspace.export("node"), lambda: workspace.shell("node")):
        with pytest.raises(NotFoundError, match="node"):
            ask()


def test_a_backend_that_cannot_export_says_so(project: Path, state: Path) -> None:
    workspace = Workspace.open(project)
    workspace.build(["node"])
    with pytest.raises(PlanError, match="cannot be exported"):
        workspace.export("node", dry_run=True)


def test_a_lost_layer_is_built_again_as_a_new_version(project: Path, state: Path) -> None:
    workspace = Workspace.open(project)
    first = workspace.build(["node"]).outcomes[0]
    memory(state).shelf.damage(first.layers[-2].key)
    again = workspace.build(["node"]).outcomes[0]
    assert (again.status, again.version) == ("built", 2)
    assert [layer.status for layer in again.layers] == ["reused", "reused", "built", "built"]


def test_what_reuse_saved_is_what_the_layers_once_took(project: Path, state: Path) -> None:
    workspace = Workspace.open(project)
    first = workspace.build(["node"])
    assert first.saved == Seconds(0.0)
    again = workspace.build(["big-node"])
    took = sum(layer.seconds for layer in first.outcomes[0].layers[:3])
    assert again.saved == pytest.approx(took)


def test_without_cache_everything_is_built(project: Path, state: Path) -> None:
    workspace = Workspace.open(project)
    workspace.build(["node"])
    again = workspace.build(["node"], no_cache=True).outcomes[0]
    assert {layer.status for layer in again.layers} == {"built"}


def test_locking_twice_changes_nothing(project: Path, state: Path) -> None:
    workspace = Workspace.open(project)
    assert workspace.lock(dry_run=True).changes
    assert not (project / "ingot.lock").exists()
    assert workspace.lock().changes
    assert workspace.lock().changes == ()
    (project / "base.img").write_bytes(b"another disk")
    assert workspace.lock().changes == ()
    assert workspace.lock(update=True).changes


def test_freshness_builds_again_when_its_epoch_is_over(project: Path, state: Path) -> None:
    file = project / "ingot.yaml"
    file.write_text(f"freshness: 7d\n{file.read_text()}")
    clock = Clock(datetime(2026, 11, 12, tzinfo=UTC))
    workspace = replace(Workspace.open(project), clock=clock)
    first = workspace.build(["node"])
    clock.at += timedelta(days=2)
    (again,) = workspace.build(["node"], locked=True).outcomes
    assert (again.status, again.digest) == ("reused", first.outcomes[0].digest)
    clock.at += timedelta(days=2)
    before = (project / "ingot.lock").read_text()
    (planned,) = workspace.plan(["node"])
    assert [layer.reason for layer in planned.layers] == [
        "",
        "freshness: 2026-W46 → 2026-W47",
        "parent changed (packages)",
        "parent changed (motd)",
    ]
    assert (project / "ingot.lock").read_text() == before, "planning writes no lock"
    with pytest.raises(PlanError, match=r"is of 2026-W46, and `freshness` asks for 2026-W47 by now"):
        workspace.build(["node"], locked=True)
    (anew,) = workspace.build(["node"]).outcomes
    assert [layer.status for layer in anew.layers] == ["reused", "built", "built", "built"]
    assert "epoch: 2026-W47" in (project / "ingot.lock").read_text()
    assert workspace.build(["node"], locked=True).outcomes[0].status == "reused"


def test_locking_begins_the_new_epoch(project: Path, state: Path) -> None:
    file = project / "ingot.yaml"
    file.write_text(f"freshness: 1d\n{file.read_text()}")
    clock = Clock(datetime(2026, 11, 12, 23, tzinfo=UTC))
    workspace = replace(Workspace.open(project), clock=clock)
    assert "freshness: new → 2026-11-12" in workspace.lock().changes
    assert workspace.lock().changes == ()
    clock.at += timedelta(hours=2)
    assert workspace.lock().changes == ("freshness: 2026-11-12 → 2026-11-13",)


@dataclass
class Clock(WallClock):
    """Shows the time that it is set to."""

    at: datetime

    def now(self) -> datetime:
        return self.at


def test_gc_with_a_cap_keeps_the_newest_images(project: Path, state: Path) -> None:
    workspace = Workspace.open(project)
    workspace.build()
    assert workspace.gc(max_size=Bytes(0)).drops == ()
    assert [outcome.status for outcome in workspace.build().outcomes] == ["reused", "reused"]


def test_begin_never_overwrites(tmp_path: Path) -> None:
    folder = tmp_path / "My Project"
    folder.mkdir()
    (folder / ".gitignore").write_text("mine\n")
    begun = begin(folder)
    assert "ingot.yaml" in begun.files
    assert ".gitignore" not in begun.files
    assert (folder / ".gitignore").read_text() == "mine\n"
    with pytest.raises(UsageError, match="is there already"):
        begin(folder)


def test_a_folder_without_a_definition_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError):
        Workspace.open(tmp_path).validate()


def test_error_records_come_back_as_the_same_error() -> None:
    error = ProvisionError("it broke", hint="mend it", task="Install", tail=("a", "b"))
    outcome = Outcome(
        image="node",
        target="local",
        backend="local",
        location="here",
        status="failed",
        seconds=Seconds(1.0),
        error=as_record(error, kept="", resume="ingot build node"),
    )
    again = error_of([outcome])
    assert isinstance(again, ProvisionError)
    assert (again.message, again.hint, again.facts["task"]) == ("it broke", "mend it", "Install")
    several = error_of([outcome, outcome])
    assert several is not None
    assert several.exit_code == 3


def test_images_are_built_side_by_side_and_each_tells_of_itself(project: Path, state: Path) -> None:
    """Each image's step waits until the other's has begun."""
    text = DEFINITION.split("images:")[0] + (
        "images:\n"
        "  one: {base: tiny, targets: [local], steps: [{packages: [one]}]}\n"
        "  two: {base: tiny, targets: [local], steps: [{packages: [two]}]}\n"
    )
    (project / "ingot.yaml").write_text(text)
    meeting = threading.Barrier(2, timeout=20)
    heard: list[Event] = []
    with pytest.MonkeyPatch.context() as patch:
        apply = Steps.apply

        def together(self: Steps, step: Step, machine: Machine, **more: Any) -> None:
            if isinstance(step, PackagesStep):
                meeting.wait()
            apply(self, step, machine, **more)

        patch.setattr(Steps, "apply", together)
        built = Workspace.open(project).build(jobs=2, emit=heard.append)
    assert [outcome.status for outcome in built.outcomes] == ["built", "built"]
    for name in ("one", "two"):
        own = [event for event in heard if event.subject.startswith(f"{name}/")]
        assert sum(isinstance(event, LayerStarted) for event in own) >= 2
