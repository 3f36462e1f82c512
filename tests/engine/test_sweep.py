"""Sweeping: dead runs only, whole or in part, and never a live one."""

from __future__ import annotations

import json
import time

import pytest

from ingot.backends.memory.backend import MemoryMachines, no_hook
from ingot.backends.memory.habits import Habits
from ingot.engine.journal import Journal, Place
from ingot.engine.run import Run
from ingot.errors import BackendError, NotFoundError, RefusedError
from ingot.model.events import Warned
from ingot.model.units import Seconds
from ingot.ports import MachineSpec

from .bench import PLAN, Workshop

PLACE = Place(backend="memory")


def leave_machine(workshop: Workshop, *, named: bool) -> str:
    """A dead run with one machine, whose ref it wrote down or not; returns the run's id."""
    if workshop.store.layer(PLAN.base.key) is None:
        workshop.build()
    base = workshop.store.layer(PLAN.base.key)
    assert base
    with Run(workshop.runs, verb="build") as run:
        token = run.journal.open("memory.machine", PLACE)
        ref = MemoryMachines(cloud=workshop.store, spec=MachineSpec(parent=base)).create(token)
        if named:
            run.journal.made(token, ref)
    return run.id


@pytest.mark.parametrize("named", [True, False])
def test_a_dead_run_is_swept_and_set_aside(workshop: Workshop, named: bool) -> None:
    run = leave_machine(workshop, named=named)
    assert len(workshop.store.shelf.machines()) == 1
    swept = workshop.sweep()
    assert len(swept.removed) == 1
    assert run in swept.removed[0]
    assert swept.left == ()
    assert workshop.store.shelf.machines() == []
    assert not (workshop.runs / run / "journal.jsonl").exists()
    assert workshop.sweep() == type(swept)()


def test_what_never_came_to_be_is_no_leftover(workshop: Workshop) -> None:
    with Run(workshop.runs, verb="build") as run:
        run.journal.open("memory.machine", PLACE)
    swept = workshop.sweep()
    assert swept.removed == () and swept.left == ()
    assert not (workshop.runs / run.id / "journal.jsonl").exists()


def test_a_live_run_is_left_alone_and_refused_by_name(workshop: Workshop) -> None:
    leave_machine(workshop, named=True)
    workshop.sweep()
    with Run(workshop.runs, verb="build") as run:
        run.journal.open("memory.machine", PLACE)
        assert workshop.sweep().removed == ()
        with pytest.raises(RefusedError, match=run.id):
            workshop.sweep(names=[run.id])
        assert len(run.journal.read()) == 1


@pytest.mark.parametrize("name", ["20200101-000000-abcd", "../..", "x/y"])
def test_a_run_that_is_not_there(workshop: Workshop, name: str) -> None:
    with pytest.raises(NotFoundError):
        workshop.sweep(names=[name])


def test_one_failure_does_not_stop_the_others(workshop: Workshop) -> None:
    first = leave_machine(workshop, named=True)
    second = leave_machine(workshop, named=False)
    left = [1]

    def fail_once(name: str) -> None:
        if name == "delete" and left:
            left.pop()
            raise BackendError("away")

    workshop.fault = fail_once
    swept = workshop.sweep()
    assert len(swept.removed) == len(swept.left) == 1
    assert workshop.told(Warned)
    workshop.sweep()
    assert workshop.store.shelf.machines() == []
    assert {first, second} == {entry.split(":")[0] for entry in (*swept.removed, *swept.left)}


def test_a_kind_that_nobody_knows_is_left_and_told(workshop: Workshop) -> None:
    journal = Journal(workshop.runs / "20261121-000000-dead", run="20261121-000000-dead")
    journal.path.parent.mkdir(parents=True)
    journal.open("memory.unicorn", PLACE)
    assert len(workshop.sweep().left) == 1
    assert journal.path.exists()


def test_what_is_not_listed_yet_is_not_taken_for_gone(workshop: Workshop) -> None:
    """Clouds list what they made a moment later; a run that dies in between has the thing in its journal alone."""
    workshop.habits = Habits(lag=Seconds(0.6))
    run = leave_machine(workshop, named=False)
    swept = workshop.sweep()
    assert swept.removed == () and run in swept.left[0]
    assert any("may still come to be listed" in str(event) for event in workshop.told(Warned))
    time.sleep(0.7)
    assert run in workshop.sweep().removed[0]
    assert workshop.store.shelf.machines() == []
    assert not (workshop.runs / run / "journal.jsonl").exists()


def test_asked_for_long_ago_may_have_been_made_a_moment_ago(workshop: Workshop) -> None:
    """A call that took long (a throttled one, a busy computer) made the machine right before its caller died."""
    workshop.habits = Habits(lag=Seconds(0.6))
    run = leave_machine(workshop, named=False)
    journal = workshop.runs / run / "journal.jsonl"
    line = json.loads(journal.read_text())
    journal.write_text(json.dumps({**line, "at": line["at"] - 3600.0}) + "\n")
    assert run in workshop.sweep().left[0]
    time.sleep(0.7)
    assert run in workshop.sweep().removed[0]
    assert workshop.store.shelf.machines() == []


def test_a_refusal_after_which_something_may_be_there_is_remembered(workshop: Workshop) -> None:
    """The cloud made the machine, and the answer was lost: nothing is listed when the build cleans up."""
    workshop.habits = Habits(lag=Seconds(1.0))

    def lose_the_answer(name: str) -> None:
        if name == "create":
            token = next(workshop.runs.glob("*/journal.jsonl")).parent.name
            made = {"disk": {}, "on": "", "made": time.time()}
            workshop.store.shelf.put_machine(f"ingot-{token}-1", made)
            raise BackendError("the connection was lost")

    workshop.fault = lose_the_answer
    with pytest.raises(BackendError, match="connection"):
        workshop.build()
    workshop.fault = no_hook
    assert len(workshop.store.shelf.machines()) == 1
    time.sleep(1.1)
    assert len(workshop.sweep().removed) == 1
    assert workshop.store.shelf.machines() == []
