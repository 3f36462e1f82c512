"""Where the layers of one build are made: one machine, opened when first needed, and the lock of one layer at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from types import TracebackType

from ingot.engine.run import Run
from ingot.engine.trace import point
from ingot.errors import IngotError
from ingot.forensics.report import Examiner
from ingot.model.events import Emit
from ingot.model.image import LayerRef
from ingot.model.plan import ContentId, Layer, LayerKey, Plan
from ingot.model.secret import Secret
from ingot.model.step import CloudInitStep
from ingot.model.units import Bytes, Seconds
from ingot.ports import Cancel, Holder, HostKind, Machine, MachineHost, MachineSpec

LONGEST = Seconds(24 * 3600.0)
"""How long a machine may live that nobody removes: it halts itself then. Longer than any build."""


class Bench:
    """Keeps track of what layer the machine stands on."""

    def __init__(
        self,
        plan: Plan,
        *,
        run: Run,
        hosts: MachineHost,
        held: Holder,
        emit: Emit,
        cancel: Cancel,
    ) -> None:
        self.plan = plan
        self.hosts = hosts
        self.emit = emit
        self.cancel = cancel
        self.labels: Mapping[str, str] = {
            "project": plan.project,
            "image": plan.image,
            "target": plan.target,
            "run": run.id,
        }
        self._held = held
        self._clock = run.clock
        self._examiner = Examiner(
            hosts=hosts,
            directory=run.directory,
            image=plan.image,
            scrub=run.scrub,
            emit=emit,
            subject=plan.subject,
        )
        self._ref = ""
        self._kind: HostKind = "chroot"
        self._told = False  # whether the machine was given user-data: then it serves one layer alone
        self._top: LayerRef | None = None

    def make_base(self, *, fresh: bool) -> LayerRef:
        """The plan's base."""
        point("before base")
        made = self.hosts.base(self.plan.base, self._held, emit=self.emit, cancel=self.cancel, fresh=fresh)
        point("after base")
        return made

    def kind_for(self, layer: Layer) -> HostKind:
        """What kind of machine makes a layer: the one that its steps want, or for the engine's own the host's choice.

        A host of instances has no other kind.
        """
        own = self.hosts.own_kind
        return own if own == "instance" or layer.seals or not layer.steps else layer.machine

    def machine_for(self, layer: Layer, top: LayerRef, *, user_data: Secret | None = None) -> Machine:
        """A reachable machine for a layer whose disk is what `top` holds: the one that made it, or a fresh one.

        A fresh one too where the disk has to grow, where somebody else made `top` meanwhile, and before and after a
        layer that has user-data: that is the machine's from its first boot on, and no other layer's.
        """
        kind, disk = self.kind_for(layer), layer.grow
        told = user_data is not None
        if self._ref and (disk is not None or self._top != top or self._kind != kind or told or self._told):
            self._held.close(self._ref)
            self._ref = ""
        if not self._ref:
            assert top.ref, "a fresh machine starts from a layer that was kept"
            spec = MachineSpec(
                parent=top,
                kind=kind,
                arch=self.plan.arch,
                disk=disk,
                labels=self.labels,
                expires=self._clock.now().timestamp() + LONGEST,
                user_data=user_data,
            )
            self._kind, self._told = kind, told
            self._ref = self._held.open(self.hosts.machine(spec))
            self._top = top
        with self.examining(lost=False):
            return self.hosts.attach(self._ref, emit=self.emit, cancel=self.cancel)

    @contextmanager
    def examining(self, *, lost: bool = True) -> Iterator[None]:
        """What fails inside because the machine did not come up, or was `lost`, is told as that, with a bundle."""
        try:
            yield
        except IngotError as error:
            told = self._examiner.explain(error, self._ref, lost=lost)
            if told is error:
                raise
            raise told from error

    def keep(self, until: float) -> None:
        """Leaves the machine, if there is one, to be looked at until then (seconds since the epoch)."""
        if self._ref:
            self.hosts.keep(self._ref, until)
            self._held.keep(self._ref, until)
            self._ref = ""

    def _serves(self, following: Layer) -> bool:
        """Whether the machine that is there can make this layer too, after the one that it makes now."""
        alone = self._told or any(isinstance(step, CloudInitStep) for step in following.steps)
        return not alone and following.grow is None and self.kind_for(following) == self._kind

    def freeze(self, machine: Machine, layer: Layer, *, following: Layer | None) -> LayerRef:
        """Makes a layer of the machine's disk. A sealed one is one that was scanned for leaks before.

        `following` is the layer to be made next, as far as is known.
        """
        goes_on = following and self._serves(following)
        point(f"before freeze {layer.name}")
        self._top = self.hosts.freeze(
            machine,
            layer.key,
            labels={**self.labels, "layer": layer.name},
            scanned=layer.seals,
            sealed=layer.seals,
            final=not goes_on,
            cancel=self.cancel,
        )
        point(f"after freeze {layer.name}")
        return self._top

    def leave(self, layer: Layer, *, on: LayerRef) -> LayerRef:
        """The machine as it is after a layer that is not kept: it goes on to the next, and nobody else can use it."""
        self._top = replace(on, key=layer.key, content=ContentId(""), ref="", size=Bytes(0), labels={})
        return self._top


class Baton:
    """Holds the lock of one layer at a time, and takes the next before it lets go of the last.

    So whoever makes a chain of layers makes it to its end, and others that want the same ones wait behind.
    """

    def __init__(self, lock: Callable[[LayerKey], AbstractContextManager[None]]) -> None:
        self._lock = lock
        self._held = ExitStack()

    def take(self, key: LayerKey) -> None:
        """Waits for the lock on this key; then the one before is free."""
        taken = ExitStack()
        taken.enter_context(self._lock(key))
        self._held.close()
        self._held = taken

    def __enter__(self) -> Baton:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()
