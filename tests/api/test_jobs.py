"""Jobs as data, run by other processes on the pretend cloud: again after a death, to an early end, without a parent."""

from __future__ import annotations

import base64
import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest

from ingot.api import Workspace
from ingot.api.jobs import Job, JobResult, run_job, shared_variables
from ingot.api.making import Wish
from ingot.backends.memory.backend import MemoryBackend
from ingot.engine.asking import ask
from ingot.engine.journal import NAME as JOURNAL
from ingot.engine.run import Run, attempts
from ingot.errors import CancelledError, DeadlineError, UsageError
from ingot.model.events import Event, JobStarted, LayerFinished, StepStarted, Warned, ignore
from ingot.model.units import Seconds
from ingot.system.locks import try_lock
from ingot.system.waits import Flag, poll
from ingot.telling.replay import read
from tests.cli.world import DEFINITION, write_project

SLOW = "step=10m"
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


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(write_project(tmp_path / "project"), state=tmp_path / "state", environment={})


@pytest.fixture
def parent(workspace: Workspace) -> Iterator[Run]:
    with Run(workspace.state.runs, verb="build", plans=["node/local"]) as run:
        yield run


def job_of(workspace: Workspace, parent: Run, *, habits: str = "", wish: Wish | None = None) -> Job:
    return Job(
        id=f"{parent.id}-j1",
        parent=parent.id,
        project=str(workspace.project),
        state=str(workspace.state.root),
        plan=workspace.plans(["node"])[0],
        wish=wish or Wish(),
        simulated=habits,
    )


def events(folder: Path) -> list[Event]:
    file = folder / "events.jsonl"
    return list(read(file.read_text().splitlines())) if file.exists() else []


def wait_for(true: Callable[[], bool], what: str) -> None:
    poll(lambda: true() or None, what=what, every=Seconds(0.05), deadline=Seconds(300.0), cancel=Flag())


@contextmanager
def running(workspace: Workspace, job: Job) -> Iterator[subprocess.Popen[bytes]]:
    """A job in its process, which has come to its first step."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "ingot.api.job_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin
    process.stdin.write(pickle.dumps(job))
    process.stdin.close()
    process.stdin = None

    def arrived() -> bool:
        assert process.poll() is None, process.communicate()
        folders = attempts(workspace.state.runs, job.id)
        return bool(folders) and any(isinstance(event, StepStarted) for event in events(folders[-1]))

    try:
        wait_for(arrived, "the first step")
        yield process
    finally:
        process.kill()
        process.communicate()


def answer(process: subprocess.Popen[bytes]) -> JobResult:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err.decode()
    result: JobResult = pickle.loads(base64.b64decode(out))
    return result


def machines(workspace: Workspace) -> list[str]:
    return MemoryBackend(root=workspace.state.root / "memory").shelf.machines()


def test_a_job_survives_pickle_and_comes_to_an_outcome(workspace: Workspace, parent: Run) -> None:
    job = job_of(workspace, parent)
    assert pickle.loads(pickle.dumps(job)) == job
    made = run_job(job).made
    assert made and made.image and made.manifest and made.outcome.error is None
    assert [layer.status for layer in made.outcome.layers] == ["built"] * 4
    (folder,) = attempts(workspace.state.runs, job.id)
    (started,) = [event for event in events(folder) if isinstance(event, JobStarted)]
    assert (started.run, started.attempt, started.subject) == (job.id, 1, "node/local")
    assert workspace.run(job.id).verb == "job" and workspace.run(job.id).exit_code == 0
    assert (
        workspace.run().id == workspace.run(parent.id).id == parent.id
    )  # jobs do not hide whom they work for


@pytest.mark.parametrize("no_cache", [False, True])
def test_a_job_that_was_killed_is_swept_and_continued_by_itself(
    workspace: Workspace, parent: Run, no_cache: bool
) -> None:
    job = job_of(workspace, parent, habits=SLOW, wish=Wish(no_cache=no_cache))
    with running(workspace, job) as process:
        process.kill()
        process.wait()
    assert len(machines(workspace)) == 1
    made = run_job(replace(job, simulated="")).made
    assert made and made.outcome.error is None
    assert [layer.status for layer in made.outcome.layers] == ["reused", "built", "built", "built"]
    assert machines(workspace) == []
    first, second = attempts(workspace.state.runs, job.id)
    assert second.name == f"{job.id}-r2" and not (first / JOURNAL).exists()
    (started,) = [event for event in events(second) if isinstance(event, JobStarted)]
    assert started.attempt == 2


def test_a_third_run_of_a_finished_job_gives_the_same_image_and_manifest(
    workspace: Workspace, parent: Run
) -> None:
    job = job_of(workspace, parent)
    first, again = run_job(job).made, run_job(job).made
    assert first and again
    assert again.outcome.status == "reused" and again.outcome.digest == first.outcome.digest
    assert again.manifest == first.manifest and again.manifest is not None


def test_an_attempt_that_still_lives_is_left_alone(workspace: Workspace, parent: Run) -> None:
    job = job_of(workspace, parent)
    with Run(workspace.state.runs, verb="job", name=job.id) as first:
        made = run_job(job).made
        assert first.directory.is_dir()
    assert made and made.outcome.status == "built"
    second = attempts(workspace.state.runs, job.id)[1]
    warned = [event.message for event in events(second) if isinstance(event, Warned)]
    assert warned == [f"the earlier attempt {job.id} still goes on"]


@pytest.mark.parametrize("whose", ["parent", "job"])
def test_a_word_in_the_folder_of_a_run_ends_its_jobs(workspace: Workspace, parent: Run, whose: str) -> None:
    job = job_of(workspace, parent, habits=SLOW)
    with running(workspace, job) as process:
        folder = workspace.state.runs / (parent.id if whose == "parent" else job.id)
        ask(folder, CancelledError("stopped on request", signal=15))
        result = answer(process)
    assert isinstance(result.error, CancelledError) and result.error.facts["signal"] == 15
    assert machines(workspace) == []
    assert workspace.run(job.id).exit_code == 143


def test_a_run_of_another_computer_is_cancelled_through_its_folder(workspace: Workspace, parent: Run) -> None:
    job = job_of(workspace, parent, habits=SLOW)
    with running(workspace, job) as process:
        (workspace.state.runs / job.id / "lock").write_text("1\n")  # the number of a process over there
        seen = workspace.cancel(job.id)
        assert isinstance(answer(process).error, CancelledError)
    assert seen.exit_code == 143 and machines(workspace) == []


def test_a_deadline_of_the_parent_is_an_outcome_of_the_job(workspace: Workspace, parent: Run) -> None:
    job = job_of(workspace, parent, habits=SLOW)
    with running(workspace, job) as process:
        ask(parent.directory, DeadlineError("the build did not end within 1s"))
        made = answer(process).made
    assert made and made.outcome.error and made.outcome.error["code"] == 7
    assert [layer.name for layer in made.outcome.layers] == ["tiny"]


def test_a_job_ends_when_nobody_wants_its_result_any_more(workspace: Workspace) -> None:
    with Run(workspace.state.runs, verb="build", plans=["node/local"]) as parent:
        job = job_of(workspace, parent, habits=SLOW)
        context = running(workspace, job)
        process = context.__enter__()
    try:
        result = answer(process)
    finally:
        context.__exit__(None, None, None)
    assert isinstance(result.error, CancelledError) and "is over" in result.error.message
    assert machines(workspace) == []
    late = run_job(job).made
    assert late and late.outcome.error and "is over" in late.outcome.error["message"]


def test_a_state_folder_that_is_not_shared_is_told(workspace: Workspace, parent: Run, tmp_path: Path) -> None:
    made = run_job(replace(job_of(workspace, parent), state=str(tmp_path / "elsewhere"))).made
    assert made and made.outcome.error
    error = made.outcome.error
    assert f"does not see the run {parent.id}" in error["message"] and "shared" in error["hint"]


def test_another_version_is_refused_by_name(workspace: Workspace, parent: Run) -> None:
    made = run_job(replace(job_of(workspace, parent), ingot="0.0.1")).made
    assert made and made.outcome.error and "begun by 0.0.1" in made.outcome.error["message"]
    assert attempts(workspace.state.runs, f"{parent.id}-j1") == ()


def test_values_travel_and_secrets_do_not(workspace: Workspace, tmp_path: Path) -> None:
    variables = (
        "variables:\n  token: {sensitive: true, env: TOKEN}\n  sizes: {type: list, default: []}\n"
        "  many: {type: number, default: 1}\n  fast: {type: boolean, default: false}\n"
    )
    project = write_project(tmp_path / "secret", DEFINITION.replace("variables:\n", variables))
    given = {"TOKEN": "hunter2-and-more", "INGOT_VAR_sizes": '["a", "b"]', "INGOT_VAR_fast": "true"}
    opened = Workspace.open(project, variables={"many": "2.5", "greeting": "yes"}, environment=given)
    shared = shared_variables(opened)
    there = Workspace.open(project, variables=shared, environment={"TOKEN": "another one"})
    for name in ("sizes", "many", "fast", "greeting"):
        assert there.definition.variables[name].value == opened.definition.variables[name].value
    assert "hunter2" not in json.dumps(shared)
    typed = Workspace.open(project, variables={"token": "hunter2"}, environment={})
    with pytest.raises(UsageError, match="'token' is sensitive"):
        shared_variables(typed)


def pool(count: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"))


def test_a_pool_of_processes_builds_all_images(workspace: Workspace) -> None:
    heard: list[Event] = []
    write_project(workspace.project, DEFINITION + OTHERS)
    with pool(3) as executor:
        built = workspace.build(executor=executor, simulate="step=100ms", emit=heard.append)
    assert [outcome.image for outcome in built.outcomes] == ["node", "big-node", "mc", "zsh"]
    assert [outcome.status for outcome in built.outcomes] == ["built"] * 4
    statuses = [layer.status for layer in built.outcomes[1].layers]
    assert statuses == ["reused"] * 3 + ["built"] * 2  # it began when what it continues was done
    started = [event for event in heard if isinstance(event, JobStarted)]
    assert len({event.run for event in started}) == 4
    assert all(event.run.startswith(f"{built.run}-j") for event in started)
    for image in ("node", "big-node", "mc", "zsh"):
        layers = [event for event in heard if event.subject == f"{image}/local"]
        assert sum(isinstance(event, LayerFinished) for event in layers) >= 3


def test_threads_of_somebody_else_build_in_this_process(workspace: Workspace) -> None:
    heard: list[Event] = []
    write_project(workspace.project, DEFINITION + OTHERS)
    with ThreadPoolExecutor(2) as executor:
        built = workspace.build(executor=executor, simulate="", emit=heard.append)
        assert executor.submit(str.upper, "still open").result() == "STILL OPEN"
    assert [outcome.status for outcome in built.outcomes] == ["built"] * 4
    assert not any(isinstance(event, JobStarted) for event in heard)


def test_a_pool_whose_processes_die_loses_its_images_and_says_so(workspace: Workspace) -> None:
    write_project(workspace.project, DEFINITION + OTHERS)
    heard: list[Event] = []
    with pool(1) as executor:

        def kill(event: Event) -> None:
            heard.append(event)
            if isinstance(event, StepStarted):
                for process in list(executor._processes.values()):
                    process.kill()

        built = workspace.build(executor=executor, simulate=SLOW, emit=kill)
    assert [outcome.status for outcome in built.outcomes] == ["failed"] * 4
    messages = {
        outcome.image: outcome.error["message"] for outcome in built.outcomes if outcome.error is not None
    }
    assert "not tried" in messages["big-node"]
    for image in ("node", "mc", "zsh"):
        assert f"the job of {image}/local was lost: BrokenProcessPool" in messages[image]


def test_a_deadline_takes_back_what_has_not_begun(workspace: Workspace) -> None:
    write_project(workspace.project, DEFINITION + OTHERS)
    with pool(1) as executor:
        built = workspace.build(
            ["node", "mc", "zsh"], executor=executor, simulate=SLOW, deadline=Seconds(8.0), emit=ignore
        )
    assert [outcome.error and outcome.error["kind"] for outcome in built.outcomes] == ["DeadlineError"] * 3


def test_a_wish_to_stop_reaches_the_jobs_and_waits_for_them(workspace: Workspace, tmp_path: Path) -> None:
    """Not simulated but for its backend: what is left has to be looked for in the state folder."""
    flag, held = Flag(), []
    write_project(workspace.project, DEFINITION + OTHERS)
    pretend = replace(workspace, simulated=SLOW)

    def stop(event: Event) -> None:
        if isinstance(event, StepStarted):
            held.append(machines(pretend))
            flag.set(15)

    with pool(2) as executor, pytest.raises(CancelledError) as told:
        pretend.build(executor=executor, emit=stop, cancel=flag)
    assert told.value.facts["signal"] == 15
    assert held[0] and machines(pretend) == []
    for run in pretend.state.runs.iterdir():
        with try_lock(run / "lock") as free:
            assert free
        assert not (run / JOURNAL).exists()
