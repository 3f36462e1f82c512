"""`ingot build --executor`: the whole program on a dask.distributed cluster, in the pretend cloud."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ingot.api.executors import open_executor
from ingot.errors import BackendError, UsageError
from ingot.model.events import ignore
from ingot.model.units import Seconds
from ingot.system.waits import Flag, poll
from tests.cluster import Cluster, cluster

from .world import DEFINITION, write_project

OTHERS = """\
  mc:
    base: tiny
    targets: [local]
    steps: [{packages: [mc]}]
  zsh:
    base: tiny
    targets: [local]
    steps: [{packages: [zsh]}]
"""


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster for tests that leave it whole."""
    with cluster(tmp_path_factory.mktemp("cluster")) as found:
        yield found


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path / "project", DEFINITION + OTHERS)


@pytest.fixture
def events(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


@contextmanager
def building(project: Path, address: str, *words: str, events: Path) -> Iterator[subprocess.Popen[str]]:
    """A simulated build on the cluster."""
    argv = ["build", "--json", "--events", str(events), "--executor", address, *words]
    process = subprocess.Popen(
        [sys.executable, "-m", "ingot", *argv],
        cwd=project,
        env={**os.environ, "INGOT_STATE": str(project.parent / "state"), "TMPDIR": str(project.parent)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def told(events: Path, kind: str) -> list[dict[str, Any]]:
    lines = events.read_text().splitlines() if events.exists() else []
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def wait_for(true: Callable[[], object], what: str) -> None:
    poll(lambda: true() or None, what=what, every=Seconds(0.05), deadline=Seconds(300.0), cancel=Flag())


def ended(process: subprocess.Popen[str]) -> tuple[int, Any]:
    out, err = process.communicate(timeout=300)
    assert "Traceback" not in err, err
    return process.returncode, json.loads(out)


def test_images_are_built_on_the_cluster(dask: Cluster, project: Path, events: Path) -> None:
    with building(project, dask.address, "--simulate", events=events) as process:
        code, document = ended(process)
    assert code == 0
    outcomes = {one["image"]: one for one in document["outcomes"]}
    assert list(outcomes) == ["node", "big-node", "mc", "zsh"]
    assert [layer["status"] for layer in outcomes["big-node"]["layers"]][:3] == ["reused"] * 3
    runs = [event["run"] for event in told(events, "JobStarted")]
    assert sorted(runs) == [f"{document['run']}-j{number}" for number in (1, 2, 3, 4)]
    assert len(told(events, "BuildFinished")) == 4
    assert len(told(events, "RunStarted")) == len(told(events, "RunFinished")) == 1


def test_several_failures_are_exit_code_3(dask: Cluster, project: Path, events: Path) -> None:
    words = ("--simulate-with", "fail=scan", "node", "mc")
    with building(project, dask.address, *words, events=events) as process:
        code, document = ended(process)
    assert code == document["error"]["code"] == 3
    assert document["error"]["message"] == "2 of 2 images failed: node/local, mc/local"
    assert [one["error"]["code"] for one in document["outcomes"]] == [4, 4]


def test_a_signal_ends_the_jobs_too(dask: Cluster, project: Path, events: Path) -> None:
    with building(project, dask.address, "--simulate-with", "step=10m", events=events) as process:
        wait_for(lambda: len(told(events, "StepStarted")) == 2, "a step on each worker")
        process.send_signal(signal.SIGINT)
        code, document = ended(process)
    assert code == document["error"]["code"] == 130
    opened, closed = told(events, "ResourceOpened"), told(events, "ResourceClosed")
    assert sorted(one["ref"] for one in opened) == sorted(one["ref"] for one in closed)
    assert len(told(events, "JobStarted")) == 2  # the third waited for room, the fourth for the first
    # The workers have room again.
    with building(project, dask.address, "--simulate", "mc", events=events) as process:
        assert ended(process)[0] == 0


def test_the_job_of_a_killed_worker_is_done_by_another(tmp_path: Path, project: Path, events: Path) -> None:
    with cluster(tmp_path / "cluster") as own:
        words = ("--simulate-with", "step=10s", "mc", "zsh")
        with building(project, own.address, *words, events=events) as process:
            wait_for(lambda: told(events, "StepStarted"), "the first step")
            (victim,) = [event["run"] for event in told(events, "JobStarted")][:1]
            (lock,) = tmp_path.glob(f"ingot-simulated-*/runs/{victim}/lock")
            own.worker_of(int(lock.read_text())).kill()
            code, document = ended(process)
    assert code == 0 and [one["status"] for one in document["outcomes"]] == ["built", "built"]
    started = {event["run"]: event for event in told(events, "JobStarted")}
    assert started[f"{victim}-r2"]["attempt"] == 2
    assert started[f"{victim}-r2"]["subject"] == started[victim]["subject"]
    assert len(started) == 3
    opened, closed = told(events, "ResourceOpened"), told(events, "ResourceClosed")
    assert {one["ref"] for one in opened} == {one["ref"] for one in closed}


def test_a_scheduler_that_goes_away_loses_the_images_one_by_one(
    tmp_path: Path, project: Path, events: Path
) -> None:
    with cluster(tmp_path / "cluster", workers=1) as own:
        words = ("--simulate-with", "step=10m", "mc", "zsh")
        with building(project, own.address, *words, events=events) as process:
            wait_for(lambda: told(events, "StepStarted"), "a step")
            own.scheduler.kill()
            code, document = ended(process)
    assert code == 3
    for outcome in document["outcomes"]:
        assert (
            "was lost: its executor gave it up" in outcome["error"]["message"]
            and outcome["error"]["code"] == 4
        )


@pytest.mark.parametrize(
    "address",
    [
        "spark://host:8786",
        "dask://host",
        "dask://",
        "host:8786",
        "dask://host:99999",
        "dask://a:1/x",
        "threads",
    ],
)
def test_what_is_no_executor_is_named(address: str) -> None:
    with pytest.raises(UsageError) as told, open_executor(address, emit=ignore):
        pass
    assert repr(address) in told.value.message and "dask://HOST:PORT" in told.value.hint


def test_without_distributed_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="not installed") as told, open_executor("dask://h:1", emit=ignore):
        pass
    assert "ingot[dask]" in told.value.hint


def test_a_scheduler_that_does_not_answer_is_named() -> None:
    with socket.socket() as deaf:  # takes connections and says nothing
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        port = deaf.getsockname()[1]
        address = f"dask://127.0.0.1:{port}"
        with (
            pytest.raises(BackendError, match=f"tcp://127.0.0.1:{port} did not answer within 2.0s"),
            open_executor(address, emit=ignore, patience=Seconds(2.0)),
        ):
            pass


def test_a_worker_with_another_version_is_named(tmp_path: Path) -> None:
    about = tmp_path / "other" / "ingot-9.9.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: ingot\nVersion: 9.9\n")
    paths = os.pathsep.join([str(about.parent), *filter(None, sys.path)])
    with cluster(tmp_path / "cluster", workers=1, PYTHONPATH=paths) as own:
        with (
            pytest.raises(
                BackendError, match=r"worker tcp://.* has Ingot 9\.9, and this computer has"
            ) as told,
            open_executor(own.address, emit=ignore),
        ):
            pass
        assert "same versions" in told.value.hint


def test_threads_and_a_cluster_are_not_asked_for_together(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ingot.cli.main import run

    monkeypatch.chdir(project)
    assert run(["build", "-j", "2", "--executor", "dask://h:1"]) == 2
    assert "leave one out" in capsys.readouterr().err
