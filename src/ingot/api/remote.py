"""The builds of a run as jobs of an executor: what they tell and what comes of them, brought together here."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import CancelledError as FutureCancelledError
from concurrent.futures import Executor, Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ingot.api import adapters, jobs
from ingot.api.jobs import Job, JobResult
from ingot.api.making import Made, failed
from ingot.engine.asking import ask
from ingot.engine.journal import NAME as JOURNAL
from ingot.engine.matrix import run_all, submitted
from ingot.engine.run import EVENTS, attempts
from ingot.engine.sweep import sweep
from ingot.errors import BackendError, CancelledError, DeadlineError, IngotError, RefusedError
from ingot.model.events import BuildFinished, Emit, RunFinished, RunStarted, Warned
from ingot.model.image import Outcome
from ingot.model.units import Seconds
from ingot.telling.replay import read

if TYPE_CHECKING:
    from ingot.api.building import Batch, Subject

_PATIENCE = Seconds(300.0)
"""How long jobs that were asked to stop may take to clean up."""


class Tail:
    """What the attempts of one job tell, each event once."""

    def __init__(self, runs: Path, job: str) -> None:
        self._runs = runs
        self._job = job
        self._offsets: dict[Path, int] = {}
        self.ended = False
        """Whether the last attempt has told how its build ended."""

    @property
    def attempts(self) -> tuple[Path, ...]:
        """The folders of its attempts."""
        return attempts(self._runs, self._job)

    def relay(self, emit: Emit) -> None:
        """Passes on what is new. That a job's own run begins and ends is not about the build."""
        for folder in self.attempts:
            for event in read(self._fresh(folder / EVENTS)):
                if isinstance(event, RunStarted):
                    self.ended = False
                elif not isinstance(event, RunFinished):
                    self.ended = self.ended or isinstance(event, BuildFinished)
                    emit(event)

    def _fresh(self, path: Path) -> list[str]:
        """The whole lines that were not read yet."""
        offset = self._offsets.get(path, 0)
        try:
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offsets[path] = offset + len(whole)
        return whole.decode(errors="replace").splitlines()


class Remote:
    """Gives the plans of a batch to an executor, as jobs that each make a run of their own."""

    def __init__(self, *, batch: Batch, executor: Executor) -> None:
        self._batch = batch
        self._run = batch.maker.run
        self._runs = self._run.directory.parent
        self._begin = partial(submitted, executor, jobs.run_job)
        self._plans = batch.known
        self._tails: dict[Subject, Tail] = {}
        self._variables = jobs.shared_variables(batch.maker.workspace)
        self._lost: set[Subject] = set()
        self._stopped: IngotError | None = None

    def build_all(self) -> tuple[Outcome, ...]:
        """The plans' outcomes; raises CancelledError once those that ran have cleaned up."""
        try:
            return run_all(
                list(self._plans),
                lambda one: self._begin(self._job(one)),
                after=self._batch.continued,
                settle=self._settle,
                instead=lambda one: self._batch.refused(self._plans[one]),
                tick=self._tick,
            )
        finally:
            self._tidy()

    def _job(self, subject: Subject) -> Job:
        maker, number = self._batch.maker, len(self._tails) + 1
        workspace = maker.workspace
        job = Job(
            id=f"{self._run.id}-j{number}",
            parent=self._run.id,
            project=str(workspace.project.absolute()),
            state=str(workspace.state.root.absolute()),
            plan=self._plans[subject],
            wish=maker.wish,
            variables=self._variables,
            var_files=tuple(str(file.absolute()) for file in workspace.var_files),
            simulated=workspace.simulated,
            made=frozenset(maker.made),
        )
        self._tails[subject] = Tail(self._runs, job.id)
        return job

    def _tick(self, running: Mapping[Future[JobResult], Subject]) -> None:
        """Tells what is new, and passes on the wish to stop; what nobody has begun is taken back then."""
        for subject in running.values():
            self._tails[subject].relay(self._run.emit)
        if self._stopped is None:
            try:
                self._batch.maker.cancel.check()
            except IngotError as error:
                self._stopped = error
                ask(self._run.directory, error)
        if self._stopped is not None:
            for future, subject in running.items():
                if not self._tails[subject].attempts:
                    future.cancel()

    def _settle(self, subject: Subject, future: Future[JobResult]) -> Outcome:
        tail, plan = self._tails[subject], self._plans[subject]
        lost = FutureCancelledError() if future.cancelled() else future.exception()
        result = JobResult() if lost else future.result()
        tail.relay(self._run.emit)
        if lost:
            self._lost.add(subject)
        if isinstance(self._stopped, CancelledError) and result.made is None:
            raise self._stopped
        made = result.made
        if made is None:
            made = self._failed(subject, result.error or self._stopped or _gone(plan.subject, lost))
        elif made.image is None and not tail.ended:
            seconds = made.outcome.seconds
            self._run.emit(BuildFinished(subject=plan.subject, status="failed", seconds=seconds))
        if made.image is not None:
            layers = made.outcome.layers
            self._batch.maker.made.update(layer.key for layer in layers if layer.status == "built")
            made = self._batch.maker.keep(plan, made)
        return self._batch.record(plan, made)

    def _failed(self, subject: Subject, error: IngotError) -> Made:
        """A job that came to no end of its own. An image that it had made by then is there all the same."""
        plan, tail = self._plans[subject], self._tails[subject]
        before = jobs.kept_in(tail.attempts)
        if before is not None:
            self._batch.maker.keep(plan, before)
        return failed(self._run, plan, error, seconds=Seconds(0.0))

    def _tidy(self) -> None:
        """Waits for jobs that were asked to stop, as those are whose result is lost, and sweeps those that died."""
        workspace = self._batch.maker.workspace
        gone = CancelledError("stopped, because its result was lost", hint="finished layers are kept")
        for subject in self._lost:
            for folder in self._tails[subject].attempts:
                ask(folder, gone)
        for subject, folder in [
            (one, folder) for one, tail in self._tails.items() for folder in tail.attempts
        ]:
            try:
                if self._stopped is not None or subject in self._lost:
                    jobs.wait_until_free(folder, patience=_PATIENCE)
                    self._tails[subject].relay(self._run.emit)
                if (folder / JOURNAL).exists():
                    sweep(
                        self._runs,
                        adapters.open_place(workspace),
                        emit=self._run.emit,
                        names=[folder.name],
                    )
            except (RefusedError, DeadlineError) as error:
                self._run.emit(
                    Warned(message=str(error), hint="`ingot ps` shows it; `ingot sweep` tidies up")
                )


def _gone(subject: str, error: BaseException | None) -> IngotError:
    """The error of a job that its executor lost for good."""
    why = "its executor gave it up"
    if error is not None and str(error):
        why = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return BackendError(
        f"the job of {subject} was lost: {why}",
        hint="finished layers are kept, and the next build goes on from them; see the executor's own logs",
    )
