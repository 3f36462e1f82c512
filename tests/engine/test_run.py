"""A run's folder, its lock, its events and the secrets that they may not tell."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import pytest

from ingot.engine.run import Run
from ingot.errors import CancelledError, PlanError
from ingot.model.events import Event, Output, RunFinished, RunStarted, TaskFinished
from ingot.model.secret import Secret
from ingot.system.locks import try_lock


def test_a_run_has_an_id_a_folder_and_its_events(tmp_path: Path) -> None:
    seen: list[Event] = []
    with Run(tmp_path, verb="build", plans=("node/local",), sinks=[seen.append]) as run:
        assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{4}", run.id)
        run.emit(Output(text="hello"))
    kept = [json.loads(line) for line in (tmp_path / run.id / "events.jsonl").read_text().splitlines()]
    assert [entry["event"] for entry in kept] == ["RunStarted", "Output", "RunFinished"]
    assert [type(event) for event in seen] == [RunStarted, Output, RunFinished]
    assert all(event.at > 1.7e9 for event in seen)


def test_the_lock_is_held_while_it_lives(tmp_path: Path) -> None:
    with Run(tmp_path, verb="build") as run, try_lock(run.directory / "lock") as free:
        assert not free
    with try_lock(run.directory / "lock") as free:
        assert free


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PlanError("no"), 2),
        (CancelledError("stop", signal=15), 143),
        (CancelledError("stop", signal=2), 130),
        (ExceptionGroup("both", [PlanError("no"), ValueError("x")]), 2),
        (ValueError("a bug"), 1),
    ],
)
def test_its_end_tells_the_exit_code(tmp_path: Path, error: Exception, code: int) -> None:
    seen: list[Event] = []
    with pytest.raises(type(error)), Run(tmp_path, verb="build", sinks=[seen.append]):
        raise error
    assert isinstance(seen[-1], RunFinished)
    assert seen[-1].exit_code == code


def test_secrets_are_blanked_out_of_every_text(tmp_path: Path) -> None:
    seen: list[Event] = []
    secrets = {"token": Secret("hunter2!"), "key": Secret("line one\nline two"), "short": Secret("ab")}
    with Run(tmp_path, verb="build", sinks=[seen.append], secrets=secrets) as run:
        run.emit(Output(text="the token is hunter2!, ab"))
        run.emit(TaskFinished(task="x hunter2!", outcome="failed", seconds=0.0, message="line two"))
    told = (tmp_path / run.id / "events.jsonl").read_text() + repr(seen)
    assert "hunter2" not in told
    assert "line two" not in told
    assert "the token is ***, ab" in told


def test_many_threads_may_tell_at_once(tmp_path: Path) -> None:
    with Run(tmp_path, verb="build") as run:

        def talk() -> None:
            for _ in range(50):
                run.emit(Output(text="x" * 500))

        threads = [threading.Thread(target=talk) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lines = (run.directory / "events.jsonl").read_text().splitlines()
    assert len([json.loads(line) for line in lines]) == 202


def test_two_runs_never_share_a_folder(tmp_path: Path) -> None:
    runs = [Run(tmp_path, verb="build") for _ in range(20)]
    assert len({run.id for run in runs}) == 20


def test_a_sink_that_broke_hears_no_more_and_stops_nothing(tmp_path: Path) -> None:
    heard: list[Event] = []
    tries: list[Event] = []

    def broken(event: Event) -> None:
        tries.append(event)
        raise BrokenPipeError

    with Run(tmp_path, verb="build", sinks=[broken, heard.append]) as run:
        run.emit(Output(text="hello"))
    assert len(tries) == 1
    assert len(heard) == 3
