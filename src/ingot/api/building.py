"""Building: the images of a definition, one after the other or side by side, each recorded as soon as it is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ingot.api import adapters, resuming
from ingot.api.making import Finished, Made, Maker, Wish, failed
from ingot.api.outcomes import Built, error_of, exit_code
from ingot.api.recording import Recorder, write_packer_manifest
from ingot.errors import PlanError
from ingot.model.events import Emit
from ingot.model.image import Outcome
from ingot.model.units import Seconds

if TYPE_CHECKING:
    from concurrent.futures import Executor
    from pathlib import Path

    from ingot.api.workspace import Workspace
    from ingot.engine.run import Run
    from ingot.engine.work import Decide
    from ingot.model.plan import Plan
    from ingot.ports import Cancel
    from ingot.stores.catalog import Catalog

Subject = tuple[str, str]
"""Image and target of a plan."""


def build(
    workspace: Workspace,
    wish: Wish,
    *,
    executor: Executor | None = None,
    emit: Emit,
    cancel: Cancel,
    ask: Decide | None = None,
) -> Built:
    """Plans, sweeps what dead runs left, builds, records; a failed image does not keep others from being tried.

    Threads of this process build where there is no executor, or one of threads; any other one is given jobs. `ask`
    decides about each machine on which something failed, where the wish is to ask.
    """
    from ingot.engine.run import Run
    from ingot.engine.sweep import sweep
    from ingot.stores.catalog import Catalog

    adapters.fetch_requirements(workspace, emit=emit, cancel=cancel)
    plans = workspace.plans(
        wish.names, targets=wish.targets, locked=wish.locked, keep_pins=workspace.simulated is None, emit=emit
    )
    _refuse_unknown_step(plans, wish.from_step)
    sweep(workspace.state.runs, adapters.open_place(workspace), emit=emit)
    finished = Finished()
    run = Run(
        workspace.state.runs,
        verb="build",
        plans=[plan.subject for plan in plans],
        sinks=(emit, finished),
        secrets=workspace.loaded.secrets,
    )
    logs = _write_logs(run, plans) if len(plans) > 1 or executor else None
    with run, Catalog(workspace.state.catalog) as catalog:
        resuming.remember(workspace, wish, run)
        started = run.clock.monotonic()
        maker = Maker(
            workspace=workspace,
            wish=wish,
            run=run,
            cancel=_in_time(wish, run, cancel),
            finished=finished,
            ask=ask,
            cache=adapters.layer_cache(workspace),
            keep=Recorder(state=workspace.state, run=run, catalog=catalog).keep,
        )
        batch = Batch(maker=maker, plans=plans, catalog=catalog, logs=logs)
        outcomes = batch.build_all(executor)
        if workspace.simulated is None:
            write_packer_manifest(outcomes, folder=workspace.root, run=run)
        error = error_of(outcomes)
        run.exit_code = exit_code(error) if error else 0
        seconds = Seconds(run.clock.monotonic() - started)
        saved = saved_by_reuse(catalog, workspace.definition.name, outcomes)
    return Built(run=run.id, outcomes=outcomes, seconds=seconds, saved=saved)


def _in_time(wish: Wish, run: Run, cancel: Cancel) -> Cancel:
    """The wish to stop, as it is expressed here, in the run's folder, or by the deadline."""
    from ingot.engine.asking import Asked, asked
    from ingot.engine.steps import Deadline

    cancel = Asked(cancel, clock=run.clock, why=lambda: asked(run.directory))
    if wish.deadline is None:
        return cancel
    hint = "finished layers are kept, and the next build goes on from them; `--deadline` sets the limit"
    return Deadline(cancel, clock=run.clock, seconds=wish.deadline, what="the build", hint=hint)


def _write_logs(run: Run, plans: Sequence[Plan]) -> Path:
    from ingot.api.logs import Logs

    run.listen(Logs(run.directory, [plan.subject for plan in plans]))
    return run.directory


def _refuse_unknown_step(plans: Sequence[Plan], name: str) -> None:
    from ingot.definition.suggest import did_you_mean
    from ingot.planning.names import find_step

    if name and all(find_step(plan, name) is None for plan in plans):
        known = list(dict.fromkeys(layer.name for plan in plans for layer in plan.layers))
        raise PlanError(f"no image has a step {name!r}", hint=did_you_mean(name, known))


def saved_by_reuse(catalog: Catalog, project: str, outcomes: Sequence[Outcome]) -> Seconds:
    """How long the reused layers once took to build, as far as the catalog's last outcomes know.

    0 where nothing was built: that is told by itself, and should not wait for the question.
    """
    if all(one.status == "reused" for one in outcomes):
        return Seconds(0.0)
    reused = {layer.key for one in outcomes for layer in one.layers if layer.status == "reused"}
    took: dict[str, float] = {}
    for outcome in catalog.outcomes(project) if reused else ():
        for layer in outcome["layers"]:
            if layer["status"] == "built" and layer["key"] in reused:
                took.setdefault(layer["key"], float(layer["seconds"]))
    return Seconds(sum(took.values()))


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """The plans of one run: parents come before those that continue them. For several threads."""

    maker: Maker
    plans: Sequence[Plan]
    catalog: Catalog
    logs: Path | None = None
    """The folder of the builds' logs, where they are written."""
    failed: set[Subject] = field(default_factory=set)

    def build_all(self, executor: Executor | None) -> tuple[Outcome, ...]:
        """The plans' outcomes; an image waits for the one that it continues."""
        jobs = min(self.maker.wish.jobs, len(self.plans))
        if jobs < 2 and executor is None:
            return tuple(self.refused(plan) or self.build(plan) for plan in self.plans)
        from concurrent.futures import ThreadPoolExecutor

        if executor is None:
            with ThreadPoolExecutor(jobs, thread_name_prefix="build") as threads:
                return self._in_threads(threads)
        if isinstance(executor, ThreadPoolExecutor):
            return self._in_threads(executor)
        from ingot.api.remote import Remote

        return Remote(batch=self, executor=executor).build_all()

    def _in_threads(self, threads: Executor) -> tuple[Outcome, ...]:
        from ingot.engine.matrix import run_all, submitted

        known = self.known
        return run_all(
            list(known),
            lambda one: submitted(threads, self.build, known[one]),
            after=self.continued,
            settle=lambda one, future: future.result(),
            instead=lambda one: self.refused(known[one]),
        )

    @property
    def known(self) -> dict[Subject, Plan]:
        """The plans by image and target."""
        return {(plan.image, plan.target): plan for plan in self.plans}

    def continued(self, subject: Subject) -> Subject | None:
        """The image that this one continues, for the same target."""
        parent = self.maker.workspace.definition.images[subject[0]].parent
        return (parent, subject[1]) if parent else None

    def refused(self, plan: Plan) -> Outcome | None:
        """The outcome of an image that is not tried, because what it continues has failed in this very run."""
        parent = self.continued((plan.image, plan.target))
        if parent not in self.failed or parent is None:
            return None
        error = PlanError(f"not tried, because {parent[0]}, which it continues, has failed")
        return self.record(plan, failed(self.maker.run, plan, error, seconds=Seconds(0.0)))

    def build(self, plan: Plan) -> Outcome:
        """The outcome of one plan, built here and recorded. Raises CancelledError, and what is no error of ours."""
        return self.record(plan, self.maker.make(plan))

    def record(self, plan: Plan, made: Made) -> Outcome:
        """Records what came of a plan whose image, if there is one, was kept before."""
        if made.image is None:
            self.failed.add((plan.image, plan.target))
        outcome = made.outcome
        if self.logs:
            from ingot.api.logs import log_of

            outcome = replace(outcome, log=str(log_of(self.logs, plan.subject)))
        recorder = Recorder(state=self.maker.workspace.state, run=self.maker.run, catalog=self.catalog)
        recorder.copies(plan, made.copies)
        return recorder.outcome(plan, outcome)
