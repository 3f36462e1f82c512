"""Building: one image after the other, each recorded as soon as it is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ingot.api import adapters
from ingot.api.outcomes import Built, as_record, error_of, exit_code, failed_outcome, first_of
from ingot.errors import CancelledError, IngotError, PlanError, UsageError
from ingot.model.events import BuildFinished, Emit, Event, LayerFinished, Warned
from ingot.model.image import LayerRecord, Outcome
from ingot.model.units import Bytes, Seconds

if TYPE_CHECKING:
    from ingot.api.workspace import Workspace
    from ingot.engine.run import Run
    from ingot.model.plan import ContentId, LayerKey, Plan
    from ingot.ports import Backend, Cancel, LayerCache
    from ingot.stores import packer_manifest
    from ingot.stores.catalog import Catalog


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What `build` was asked for."""

    names: Sequence[str] = ()
    targets: Sequence[str] = ()
    no_cache: bool = False
    check: bool = False
    locked: bool = False
    from_step: str = ""
    """The step that is applied anew, with all after it, whatever is there."""
    deadline: Seconds | None = None
    """How long all of it may take."""
    jobs: int = 1
    """How many images are built at once, each in a thread of its own."""


def build(workspace: Workspace, wish: Wish, *, emit: Emit, cancel: Cancel) -> Built:
    """Plans, sweeps what dead runs left, builds, records; a failed image does not keep others from being tried."""
    from ingot.engine.run import Run
    from ingot.engine.steps import Deadline
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
    with run, Catalog(workspace.state.catalog) as catalog:
        started = run.clock.monotonic()
        if wish.deadline is not None:
            hint = (
                "finished layers are kept, and the next build goes on from them; `--deadline` sets the limit"
            )
            cancel = Deadline(cancel, clock=run.clock, seconds=wish.deadline, what="the build", hint=hint)
        batch = Batch(
            workspace=workspace,
            wish=wish,
            run=run,
            catalog=catalog,
            finished=finished,
            cancel=cancel,
            cache=adapters.layer_cache(workspace),
        )
        outcomes = _all(plans, batch)
        if workspace.simulated is None:
            write_packer_manifest(outcomes, folder=workspace.root, run=run)
        error = error_of(outcomes)
        run.exit_code = exit_code(error) if error else 0
        seconds = Seconds(run.clock.monotonic() - started)
        saved = saved_by_reuse(catalog, workspace.definition.name, outcomes)
    return Built(run=run.id, outcomes=outcomes, seconds=seconds, saved=saved)


def _all(plans: Sequence[Plan], batch: Batch) -> tuple[Outcome, ...]:
    """The plans' outcomes; an image waits for the one that it continues."""
    jobs = min(batch.wish.jobs, len(plans))
    if jobs < 2:
        return tuple(batch.build(plan) for plan in plans)
    from concurrent.futures import ThreadPoolExecutor

    from ingot.engine.matrix import run_all

    known = {(plan.image, plan.target): plan for plan in plans}

    def continued(subject: tuple[str, str]) -> tuple[str, str] | None:
        parent = batch.workspace.definition.images[subject[0]].parent
        return (parent, subject[1]) if parent else None

    with ThreadPoolExecutor(jobs, thread_name_prefix="build") as executor:
        return run_all(list(known), lambda one: batch.build(known[one]), executor=executor, after=continued)


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


class Finished:
    """Hears which layers were finished, so that a failed build can tell of them too."""

    def __init__(self) -> None:
        self._events: list[LayerFinished] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, LayerFinished):
            self._events.append(event)

    def records(self, plan: Plan) -> tuple[LayerRecord, ...]:
        """The finished layers of a plan."""
        from ingot.engine.records import layer_keys

        keys = layer_keys(plan)
        return tuple(
            LayerRecord(
                name=event.layer,
                key=keys[event.index],
                status=event.status,
                seconds=Seconds(event.seconds),
                bytes=Bytes(event.bytes),
                pulled=event.pulled,
            )
            for event in self._events
            if event.subject == plan.subject
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """The plans of one run: parents come before those that continue them. For several threads."""

    workspace: Workspace
    wish: Wish
    run: Run
    catalog: Catalog
    finished: Finished
    cancel: Cancel
    cache: LayerCache | None = None
    failed: set[tuple[str, str]] = field(default_factory=set)
    made: set[LayerKey] = field(default_factory=set)
    """What this run has made: an image that continues another one stands on it, though all was to be made anew."""

    def build(self, plan: Plan) -> Outcome:
        """The outcome of one plan, recorded. Raises CancelledError, and what is no error of ours."""
        started = self.run.clock.monotonic()
        try:
            self._refuse_after_parent(plan)
            outcome = self._made(plan)
        except (IngotError, BaseExceptionGroup) as raised:
            error = first_of(raised)
            if isinstance(error, CancelledError) or not isinstance(error, IngotError):
                raise error from raised
            seconds = Seconds(self.run.clock.monotonic() - started)
            self.run.emit(BuildFinished(subject=plan.subject, status="failed", seconds=seconds))
            layers = self.finished.records(plan)
            record = as_record(error, **_what_now(plan, error, layers))
            outcome = failed_outcome(plan, record, seconds=seconds, layers=layers)
            self.failed.add((plan.image, plan.target))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.catalog.record_outcome(outcome, project=plan.project, run=self.run.id, created=now)
        return outcome

    def _refuse_after_parent(self, plan: Plan) -> None:
        """What an image continues has failed in this very run: trying its layers again would only take time."""
        parent = self.workspace.definition.images[plan.image].parent
        if (parent, plan.target) in self.failed:
            raise PlanError(f"not tried, because {parent}, which it continues, has failed")

    def _anew(self, plan: Plan) -> frozenset[LayerKey]:
        from ingot.engine.records import layer_keys
        from ingot.planning.names import find_step

        keys = layer_keys(plan)
        if not self.wish.no_cache:
            first = find_step(plan, self.wish.from_step) if self.wish.from_step else None
            keys = () if first is None else keys[first + 1 :]  # the first key is the base's
        return frozenset(keys) - self.made

    def _made(self, plan: Plan) -> Outcome:
        from ingot.engine.build import build as make

        workspace, run = self.workspace, self.run
        backend = adapters.open_backend(
            workspace, plan.backend, options=plan.options, directory=run.directory
        )

        def before_base() -> None:
            if workspace.simulated is None:
                from ingot.api.moved import tell_moved

                tell_moved(workspace.definition, plan, locked=self.wish.locked, emit=run.emit)

        built = make(
            plan,
            run=run,
            backend=backend,
            provisioner=adapters.provisioner(workspace, run),
            inventory=adapters.inventory(workspace),
            secrets=workspace.loaded.secrets,
            emit=run.emit,
            cancel=self.cancel,
            anew=self._anew(plan),
            cache=self.cache,
            before_base=before_base,
        )
        self.made.update(layer.key for layer in built.layers if layer.status == "built")
        version = self.catalog.record(
            plan.project, built.image, target=plan.target, run=run.id, manifest=built.manifest
        )
        workspace.state.save_plan(plan)
        self._share(plan, built.image.digest, backend)
        outcome = Outcome(
            image=plan.image,
            target=plan.target,
            backend=plan.backend,
            location=plan.location,
            status=built.status,
            seconds=built.seconds,
            version=version,
            ref=built.image.ref,
            digest=built.image.digest,
            layers=built.layers,
        )
        if not self.wish.check:
            return outcome
        from ingot.api.checking import Checker

        checker = Checker(workspace=workspace, run=run, catalog=self.catalog, cancel=self.cancel)
        return checker.checked(outcome, image=built.image, backend=backend, options=plan.options)

    def _share(self, plan: Plan, content: ContentId, backend: Backend) -> None:
        """Gives to others what was built, now that it is recorded here."""
        if self.cache is None or not self.cache.gives:
            return
        from ingot.engine.build import place_of
        from ingot.engine.resources import Resources
        from ingot.engine.sharing import Shared, push

        run = self.run
        with Resources(run.journal, place=place_of(plan), emit=run.emit, subject=plan.subject) as held:
            push(
                Shared(plan=plan, content=content, secrets=self.workspace.loaded.secrets),
                self.cache,
                backend=backend,
                held=held,
                clock=run.clock,
                emit=run.emit,
                cancel=self.cancel,
            )


def _what_now(plan: Plan, error: IngotError, layers: Sequence[LayerRecord]) -> dict[str, str]:
    """What became of the machine, and the command that goes on from the last finished layer."""
    if isinstance(error, PlanError):
        return {}
    count = len(layers)
    kept = f"not kept; {count} finished layer{'s are' if count != 1 else ' is'}" if count else ""
    return {"kept": kept, "resume": f"ingot build {plan.image}"}


def write_packer_manifest(outcomes: Sequence[Outcome], *, folder: Path, run: Run) -> None:
    """`packer-manifest.json` of the run, and the project's, which grows with each run that built something."""
    from ingot.stores import packer_manifest

    builds = [_packer_build(outcome) for outcome in outcomes if outcome.ref]
    if not builds:
        return
    packer_manifest.write(run.directory / packer_manifest.NAME, builds, run=run.id, force=True)
    ours = folder / packer_manifest.NAME
    if ours.exists() and all(outcome.status != "built" for outcome in outcomes):
        return
    try:
        packer_manifest.write(ours, builds, run=run.id)
    except (UsageError, OSError) as error:  # the images are there and recorded: no reason to fail
        hint = f"this run's own is {run.directory / packer_manifest.NAME}"
        run.emit(Warned(message=f"the project's manifest was not written: {error}", hint=hint))


def _packer_build(outcome: Outcome) -> packer_manifest.PackerBuild:
    from ingot.stores import packer_manifest

    path = Path(outcome.ref)
    files = ((outcome.ref, path.stat().st_size),) if path.is_file() else None
    return packer_manifest.PackerBuild(
        name=outcome.image,
        builder_type=outcome.backend,
        build_time=int(datetime.now(UTC).timestamp()),
        artifact_id=outcome.ref,
        files=files,
        custom_data={
            "target": outcome.target,
            "version": str(outcome.version),
            "digest": outcome.digest,
        },
    )
