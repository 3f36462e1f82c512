"""What the engine's tests share: plans over the memory backend, and a way to build them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ingot.backends.memory.backend import Hook, MemoryBackend, no_hook
from ingot.backends.memory.habits import Habits
from ingot.backends.memory.steps import MemoryInventory, MemoryProvisioner
from ingot.engine.build import build
from ingot.engine.journal import Place
from ingot.engine.records import Built
from ingot.engine.run import Run
from ingot.engine.sweep import Swept, sweep
from ingot.engine.work import OnError
from ingot.model.definition import DebootstrapBase
from ingot.model.events import Event
from ingot.model.image import Package
from ingot.model.plan import Base, Layer, LayerKey, Plan, base_key, layer_key
from ingot.model.secret import Secret
from ingot.model.step import FilesStep, PackagesStep, SealStep, Step
from ingot.model.units import Bytes, Seconds
from ingot.ports import Cancel, Machine
from ingot.system.waits import Flag

GIB = 2**30


class Impatient(Flag):
    """A flag whose pauses take no time."""

    def wait(self, duration: Seconds) -> bool:
        return super().wait(Seconds(0.0))


def plan_of(
    *steps: Step | tuple[Step, ...], image: str = "node", grow: int | None = None, sealed: bool = True
) -> Plan:
    """A plan with a layer for each step (or tuple of steps), grown at the end if asked, and a seal."""
    source = DebootstrapBase(suite="bookworm")
    base = Base(
        name="debian-12",
        source=source,
        arch="x86_64",
        disk=Bytes(8 * GIB),
        key=base_key(source, arch="x86_64", disk=8 * GIB, pins={}),
    )
    parts: list[tuple[tuple[Step, ...], int | None]] = [
        (step if isinstance(step, tuple) else (step,), None) for step in steps
    ]
    parts += [((), grow)] if grow else []
    parts += [((SealStep(),), None)] if sealed else []
    layers: list[Layer] = []
    parent = base.key
    for number, (part, size) in enumerate(parts):
        key = layer_key(parent, arch="x86_64", steps=part, grow=size)
        name = "seal" if part and isinstance(part[0], SealStep) else f"layer-{number + 1}"
        disk = Bytes(size) if size else None
        layers.append(Layer(name=name, key=key, parent=parent, steps=part, grow=disk))
        parent = key
    return Plan(
        project="acme",
        image=image,
        target="local",
        backend="memory",
        location="here",
        arch="x86_64",
        disk=Bytes(grow or 8 * GIB),
        base=base,
        layers=tuple(layers),
    )


def packages(*names: str, retries: int = 0, timeout: float = 60.0) -> PackagesStep:
    return PackagesStep(install=names, retries=retries, timeout=Seconds(timeout))


def text(dest: str, content: str) -> FilesStep:
    return FilesStep(dest=dest, text=content)


PLAN = plan_of(packages("htop"), (text("/etc/motd", "hello"), packages("tmux")), packages("slurmd"))


class Unsealed(MemoryInventory):
    """Refuses to look at a disk that was sealed: its package database may be gone."""

    def packages(self, machine: Machine) -> tuple[Package, ...]:
        assert "seal" not in self.cloud.disk_of(machine.ref)["done"]
        return MemoryInventory.packages(self, machine)


ALL = (PLAN.base.key, *(layer.key for layer in PLAN.layers))
"""The keys of the plan: nothing of it is reused."""


@dataclass(kw_only=True, slots=True)
class Workshop:
    """A state folder with a memory backend, and what happened in it."""

    root: Path
    fault: Hook = no_hook
    step_fault: Hook = no_hook
    habits: Habits = Habits()
    cloud: type[MemoryBackend] = MemoryBackend
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    applied: list[str] = field(default_factory=list)
    looked: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def store(self) -> MemoryBackend:
        return self.cloud(
            root=self.root / "memory",
            habits=self.habits,
            hook=self.fault,
            counts=self.counts,
            calls=self.calls,
        )

    def build(
        self,
        plan: Plan = PLAN,
        *,
        cancel: Cancel | None = None,
        anew: Collection[LayerKey] = (),
        on_error: OnError | None = None,
        keys: Mapping[str, str] | None = None,
    ) -> Built:
        """One build as the façade does it: sweep first, then a run of its own."""
        self.sweep()
        with Run(self.runs, verb="build", sinks=[self.events.append], secrets=self.secrets) as run:
            for name, content in (keys or {}).items():
                (run.directory / name).write_text(content)
            return build(
                plan,
                run=run,
                backend=self.store,
                provisioner=MemoryProvisioner(
                    cloud=self.store, hook=self.step_fault, secrets=self.secrets, applied=self.applied
                ),
                inventory=Unsealed(cloud=self.store, looked=self.looked),
                secrets=self.secrets,
                emit=run.emit,
                cancel=cancel or Impatient(),
                anew=anew,
                on_error=on_error,
            )

    def sweep(self, *, names: Sequence[str] = ()) -> Swept:
        return sweep(self.runs, self.open_place, emit=self.events.append, names=names)

    def open_place(self, place: Place, directory: Path) -> MemoryBackend:
        assert place.backend == "memory"
        return self.store

    def told(self, kind: type[Event]) -> list[Event]:
        """The events of one kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]
