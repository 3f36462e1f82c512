"""One plan's image: built, and checked where that was asked for. Nothing is recorded here: see `recording`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from ingot.api import adapters
from ingot.api.outcomes import as_record, failed_outcome, first_of, with_error
from ingot.errors import CancelledError, IngotError, PlanError
from ingot.model.events import BuildFinished, Event, LayerFinished
from ingot.model.image import Image, LayerRecord, Manifest, Outcome
from ingot.model.units import Bytes, Seconds

if TYPE_CHECKING:
    from ingot.api.workspace import Workspace
    from ingot.engine.run import Run
    from ingot.engine.work import Decide, OnError
    from ingot.model.plan import Destination, LayerKey, Plan
    from ingot.ports import Backend, Cancel, LayerCache


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
    on_error: Literal["cleanup", "keep", "ask"] = "cleanup"
    """What becomes of a machine on which a step has failed."""
    keep_for: Seconds = Seconds(12 * 3600.0)
    """How long such a machine stays where it is kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """What came of one plan. There is an image with an error where its checks failed; else the one or the other."""

    outcome: Outcome
    image: Image | None = None
    manifest: Manifest | None = None
    """How the image was made; None where all of it was there before."""
    copies: tuple[Image, ...] = ()
    """The same image at the target's further locations."""


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
class Maker:
    """Makes the images of one run. For several threads."""

    workspace: Workspace
    wish: Wish
    run: Run
    cancel: Cancel
    finished: Finished
    keep: Callable[[Plan, Made], Made]
    """Told of each image as soon as it is there, before its checks; what it returns goes on."""
    cache: LayerCache | None = None
    """Where layers are shared."""
    ask: Decide | None = None
    """Decides about each machine on which something failed, where the wish is to ask."""
    made: set[LayerKey] = field(default_factory=set)
    """What this run has made: an image that continues another one stands on it, though all was to be made anew."""

    def make(self, plan: Plan) -> Made:
        """What came of the plan. Raises CancelledError, and what is no error of ours."""
        started = self.run.clock.monotonic()
        try:
            made = self.keep(plan, self._built(plan))
            self._share(plan, made)
            made = self._published(plan, self._checked(plan, made))
        except (IngotError, BaseExceptionGroup) as raised:
            error = first_of(raised)
            if isinstance(error, CancelledError) or not isinstance(error, IngotError):
                raise error from raised
            seconds = Seconds(self.run.clock.monotonic() - started)
            return failed(self.run, plan, error, seconds=seconds, layers=self.finished.records(plan))
        return made

    def _anew(self, plan: Plan) -> frozenset[LayerKey]:
        from ingot.engine.records import layer_keys
        from ingot.planning.names import find_step

        keys = layer_keys(plan)
        if not self.wish.no_cache:
            first = find_step(plan, self.wish.from_step) if self.wish.from_step else None
            keys = () if first is None else keys[first + 1 :]  # the first key is the base's
        return frozenset(keys) - self.made

    def _on_error(self) -> OnError:
        from ingot.engine.work import OnError, always_cleanup, always_keep

        decide = {"cleanup": always_cleanup, "keep": always_keep, "ask": self.ask or always_cleanup}
        return OnError(decide=decide[self.wish.on_error], keep_for=self.wish.keep_for)

    def _built(self, plan: Plan) -> Made:
        from ingot.engine.build import build

        workspace, run = self.workspace, self.run
        backend = self._backend(plan)

        def before_base() -> None:
            if workspace.simulated is None:
                from ingot.api.moved import tell_moved

                tell_moved(workspace.definition, plan, locked=self.wish.locked, emit=run.emit)

        built = build(
            plan,
            run=run,
            backend=backend,
            provisioner=adapters.provisioner(workspace, run),
            inventory=adapters.inventory(workspace),
            secrets=workspace.loaded.secrets,
            emit=run.emit,
            cancel=self.cancel,
            anew=self._anew(plan),
            on_error=self._on_error(),
            cache=self.cache,
            before_base=before_base,
        )
        self.made.update(layer.key for layer in built.layers if layer.status == "built")
        outcome = Outcome(
            image=plan.image,
            target=plan.target,
            backend=plan.backend,
            location=plan.location,
            status=built.status,
            seconds=built.seconds,
            ref=built.image.ref,
            digest=built.image.digest,
            layers=built.layers,
        )
        return Made(outcome=outcome, image=built.image, manifest=built.manifest)

    def _backend(self, plan: Plan) -> Backend:
        return adapters.open_backend(
            self.workspace, plan.backend, options=plan.options, directory=self.run.directory
        )

    def _share(self, plan: Plan, made: Made) -> None:
        """Gives to others what was built, now that it is recorded here."""
        if self.cache is None or not self.cache.gives or made.image is None:
            return
        from ingot.engine.build import place_of
        from ingot.engine.resources import Resources
        from ingot.engine.sharing import Shared, push

        run = self.run
        with Resources(run.journal, place=place_of(plan), emit=run.emit, subject=plan.subject) as held:
            push(
                Shared(plan=plan, content=made.image.digest, secrets=self.workspace.loaded.secrets),
                self.cache,
                backend=self._backend(plan),
                held=held,
                clock=run.clock,
                emit=run.emit,
                cancel=self.cancel,
            )

    def _checked(self, plan: Plan, made: Made) -> Made:
        if not self.wish.check or made.image is None:
            return made
        from ingot.api.checking import Checker

        checker = Checker(workspace=self.workspace, run=self.run, cancel=self.cancel)
        outcome = checker.checked(
            made.outcome, image=made.image, backend=self._backend(plan), options=plan.options
        )
        return replace(made, outcome=outcome)

    def _published(self, plan: Plan, made: Made) -> Made:
        """Imports the image where that is wanted, and gives it to whoever is to have it; none whose checks failed."""
        backend = self._backend(plan)
        if made.image is None or made.outcome.error:
            return made
        there = plan.imported
        if there:
            backend = adapters.open_backend(
                self.workspace, there.backend, options=there.options, directory=self.run.directory
            )
        try:
            if there:
                made = self._imported(plan, made, there, backend)
            if backend.publisher:
                image, emit = made.copies[0] if there else made.image, self.run.emit
                assert image is not None
                copies = backend.publisher.publish(image, subject=plan.subject, emit=emit, cancel=self.cancel)
                places = {copy.location: copy.ref for copy in copies}
                made = replace(
                    made, copies=(*made.copies, *copies), outcome=replace(made.outcome, copies=places)
                )
        except CancelledError:
            raise
        except IngotError as error:
            return replace(made, outcome=with_error(made.outcome, error))
        return made

    def _imported(self, plan: Plan, made: Made, there: Destination, backend: Backend) -> Made:
        """The image at its destination, which is the one that the outcome tells of."""
        from ingot.engine.journal import Place
        from ingot.engine.resources import Resources

        exporter, run = self._backend(plan).exporter, self.run
        if backend.importer is None or exporter is None:
            raise PlanError(
                f"{there.backend!r} takes in no disks that were made elsewhere",
                hint="leave the target's `build` out",
            )
        assert made.image is not None
        place = Place(backend=there.backend, location=there.location, options=there.options)
        labels = {"project": plan.project, "image": plan.image, "target": plan.target, "run": run.id}
        with Resources(run.journal, place=place, emit=run.emit, subject=plan.subject) as held:
            image = backend.importer.take(
                made.image,
                exporter,
                labels=labels,
                held=held,
                subject=plan.subject,
                emit=run.emit,
                cancel=self.cancel,
            )
        outcome = replace(made.outcome, backend=there.backend, location=there.location, ref=image.ref)
        return replace(made, copies=(image,), outcome=outcome)


def failed(
    run: Run, plan: Plan, error: IngotError, *, seconds: Seconds, layers: Sequence[LayerRecord] = ()
) -> Made:
    """A plan that came to nothing, told and as a value."""
    run.emit(BuildFinished(subject=plan.subject, status="failed", seconds=seconds))
    record = as_record(error, **_what_now(plan, error, layers, run=run))
    return Made(outcome=failed_outcome(plan, record, seconds=seconds, layers=tuple(layers)))


def _what_now(plan: Plan, error: IngotError, layers: Sequence[LayerRecord], *, run: Run) -> dict[str, str]:
    """What became of the machine, and the command that goes on from the last finished layer."""
    if isinstance(error, PlanError):
        return {}
    if "kept_until" in error.facts:
        from ingot.engine.run import first_run

        until = datetime.fromtimestamp(error.facts["kept_until"]).astimezone()
        what = f"kept until {until:%Y-%m-%d %H:%M}"
        kept = f"{what}: `ingot ssh {run.id}` enters it, `ingot cancel {run.id}` removes it"
        return {"kept": kept, "resume": f"ingot resume {first_run(run.id)}"}
    count = len(layers)
    kept = f"not kept; {count} finished layer{'s are' if count != 1 else ' is'}" if count else ""
    return {"kept": kept, "resume": f"ingot build {plan.image}"}
