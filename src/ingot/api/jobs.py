"""A job: the build of one image as data, which any process can run that shares the project and the state folder.

`run_job` is what an executor is given. It starts a process for the job (`job_process`), which calls `perform`: signals,
machines that end with the thread that started them, and a worker that lives for weeks then have nothing to do with
each other. A job may be run again: it first sweeps what its earlier attempts left, and reuses what they finished.
"""

from __future__ import annotations

import base64
import os
import pickle
import platform
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ingot import __version__
from ingot.api.given import given_variables
from ingot.api.making import Finished, Made, Maker, Wish
from ingot.api.outcomes import as_record, failed_outcome, first_of
from ingot.errors import BackendError, CancelledError, DeadlineError, IngotError, RefusedError, UsageError
from ingot.model.events import JobStarted, LayerFinished, Warned
from ingot.model.plan import LayerKey, Plan
from ingot.model.units import Seconds

if TYPE_CHECKING:
    from ingot.api.workspace import Workspace
    from ingot.engine.run import Run
    from ingot.ports import Cancel

BUILT = "built.pickle"
_LONGEST = Seconds(30 * 86400.0)
_PATIENCE = Seconds(10.0)
"""How long a process that was killed may take to let go of its run's lock."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One image to be built. Plain data without secrets: those are looked up where the job runs."""

    id: str
    """Of its run; `<id>-r2` is its second attempt."""
    parent: str
    """The run that it belongs to, which must be alive as long as it goes on."""
    project: str
    state: str
    plan: Plan
    wish: Wish
    ingot: str = __version__
    variables: Mapping[str, str] = field(default_factory=dict)
    var_files: Sequence[str] = ()
    simulated: str | None = None
    made: frozenset[LayerKey] = frozenset()
    """What the run made before: not to be made anew once more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobResult:
    """What came of a job: an outcome with what is to be recorded, or the error that ended it without one."""

    made: Made | None = None
    error: IngotError | None = None


def shared_variables(workspace: Workspace) -> Mapping[str, str]:
    """The values that variables were given outside the definition and its files, as `--var` takes them.

    Raises UsageError for a secret of the command line: its value does not leave this process.
    """
    given = given_variables(workspace)
    for name in given.secrets:
        raise UsageError(
            f"the value of {name!r} is sensitive and is not sent to other processes",
            hint=f"set INGOT_VAR_{name} where the jobs run, or put it into a file for `--var-file`",
        )
    return given.texts


def run_job(job: Job) -> JobResult:
    """Runs the job in a process of its own on this computer, to its end. Raises nothing of ours.

    The process ends with the thread that calls this; what it leaves then is swept by the job's next attempt.
    """
    from ingot.system import process

    host = platform.node()
    if job.ingot != __version__:
        return _lost(
            job,
            f"{host} has Ingot {__version__}, and the build was begun by {job.ingot}",
            hint="install the same version on every worker",
        )
    argv = [sys.executable, "-P", "-m", "ingot.api.job_process"]
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    try:
        done = process.run(argv, timeout=_LONGEST, env=environment, input=pickle.dumps(job))
    except process.ToolError as error:
        return _lost(
            job,
            f"the process of {job.id} on {host} {_how(error.code)} before it was done",
            hint="`ingot logs` shows how far it came; out of memory, perhaps" if error.code < 0 else "",
            tail=error.tail,
        )
    result: JobResult = pickle.loads(base64.b64decode(done.stdout))
    return result


def _how(code: int) -> str:
    return f"was ended by signal {-code}" if code < 0 else f"exited with {code}"


def _lost(job: Job, message: str, *, hint: str, tail: Sequence[str] = ()) -> JobResult:
    error = BackendError(message, hint=hint, tail=tuple(tail))
    outcome = failed_outcome(job.plan, as_record(error), seconds=Seconds(0.0))
    return JobResult(made=Made(outcome=outcome))


def perform(job: Job, *, cancel: Cancel) -> JobResult:
    """Builds the job's image in a run of its own; called in the job's process."""
    try:
        return JobResult(made=_performed(job, cancel))
    except (IngotError, BaseExceptionGroup) as raised:
        error = first_of(raised)
        if not isinstance(error, IngotError):
            raise error from raised
        if isinstance(error, CancelledError):
            return JobResult(error=error)
        record = as_record(error, resume=f"ingot build {job.plan.image}")
        return JobResult(made=Made(outcome=failed_outcome(job.plan, record, seconds=Seconds(0.0))))


def _performed(job: Job, cancel: Cancel) -> Made:
    from ingot.api.adapters import layer_cache
    from ingot.api.workspace import Workspace
    from ingot.engine.run import Run, attempts
    from ingot.stores.state import State

    state = State(Path(job.state))
    if gone := ended(state.runs / job.parent):
        raise gone
    workspace = Workspace(
        project=Path(job.project),
        state=state,
        variables=job.variables,
        var_files=tuple(Path(file) for file in job.var_files),
        environment=os.environ,
        simulated=job.simulated,
    )
    earlier = attempts(state.runs, job.id)
    finished = Finished()
    run = Run(
        state.runs,
        verb="job",
        plans=[job.plan.subject],
        sinks=(finished,),
        secrets=workspace.loaded.secrets,
        name=job.id,
    )
    with run:
        attempt = len(earlier) + 1
        run.emit(JobStarted(subject=job.plan.subject, run=run.id, host=platform.node(), attempt=attempt))
        for folder in earlier:
            _sweep(workspace, folder, run=run, subject=job.plan.subject)
        maker = Maker(
            workspace=workspace,
            wish=job.wish,
            run=run,
            cancel=_listening(job, run, cancel),
            finished=finished,
            cache=layer_cache(workspace),
            keep=lambda plan, made: _kept(run, made, earlier),
            made={*job.made, *(key for folder in earlier for key in _finished(folder, job.plan))},
        )
        made = maker.make(job.plan)
        run.exit_code = int(made.outcome.error["code"]) if made.outcome.error else 0
    return made


def ended(parent: Path) -> IngotError | None:
    """Why a job of this run has nobody to work for; None while the run is alive.

    What a job sees is the state folder: where that is not shared, or its locks are not, it says so.
    """
    from ingot.engine.run import LOCK
    from ingot.system.locks import try_lock

    host, shared = platform.node(), "the state folder and its locks (flock) must be shared with every worker"
    if not (parent / LOCK).exists():
        return BackendError(f"{host} does not see the run {parent.name} in {parent.parent}", hint=shared)
    with try_lock(parent / LOCK) as free:
        if free:
            return BackendError(f"the run {parent.name} is over, as {host} sees it", hint=shared)
    return None


def _listening(job: Job, run: Run, cancel: Cancel) -> Cancel:
    """The wish to stop: a signal here, a word in the folder of this run or of its parent, or the parent's end."""
    from ingot.engine.asking import Asked, asked

    parent = run.directory.parent / job.parent

    def why() -> IngotError | None:
        found = asked(run.directory) or asked(parent)
        if found is None and (gone := ended(parent)):
            found = CancelledError(f"stopped, because {gone.message}", hint="finished layers are kept")
        return found

    return Asked(cancel, clock=run.clock, why=why)


def _sweep(workspace: Workspace, folder: Path, *, run: Run, subject: str) -> None:
    """Sweeps an earlier attempt that is dead. One that lives (its worker was only cut off) goes on unharmed."""
    from ingot.api import adapters
    from ingot.engine.sweep import sweep

    try:
        wait_until_free(folder, patience=_PATIENCE)
        sweep(workspace.state.runs, adapters.open_place(workspace), emit=run.emit, names=[folder.name])
    except (RefusedError, DeadlineError):
        hint = "what it finishes is reused; `ingot ps` shows it"
        run.emit(
            Warned(subject=subject, message=f"the earlier attempt {folder.name} still goes on", hint=hint)
        )


def wait_until_free(folder: Path, *, patience: Seconds) -> None:
    """Waits until the run of this folder has ended. Raises DeadlineError for one that goes on."""
    from ingot.engine.run import LOCK
    from ingot.system.locks import try_lock
    from ingot.system.waits import Flag, poll

    def free() -> bool | None:
        with try_lock(folder / LOCK) as free:
            return free or None

    poll(free, what=f"the end of run {folder.name}", every=Seconds(0.1), deadline=patience, cancel=Flag())


def _kept(run: Run, made: Made, earlier: Sequence[Path]) -> Made:
    """The image as it is there now, also for those who come after a death; with the manifest of who made it."""
    from ingot.system.files import write_atomically

    before = kept_in(earlier)
    if made.manifest is None and before and before.outcome.digest == made.outcome.digest:
        made = replace(made, manifest=before.manifest)
    write_atomically(run.directory / BUILT, pickle.dumps(made), mode=0o600)
    return made


def kept_in(folders: Sequence[Path]) -> Made | None:
    """The image that one of these attempts had made, the last one first."""
    for folder in reversed(folders):
        with suppress(FileNotFoundError):
            found: Made = pickle.loads((folder / BUILT).read_bytes())
            return found
    return None


def _finished(folder: Path, plan: Plan) -> tuple[LayerKey, ...]:
    """The layers that the run of this folder built."""
    from ingot.engine.records import layer_keys
    from ingot.engine.run import EVENTS
    from ingot.telling.replay import read

    try:
        lines = (folder / EVENTS).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return ()
    built = [event for event in read(lines) if isinstance(event, LayerFinished) and event.status == "built"]
    return tuple(layer_keys(plan)[event.index] for event in built)
