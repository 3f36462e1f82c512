"""What is kept of a build: how each layer came about, and the manifest of what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import ingot
from ingot.errors import IngotError
from ingot.model.digest import plain
from ingot.model.events import Emit, LayerFinished, LayerStarted
from ingot.model.image import Image, LayerRecord, LayerRef, LayerStatus, Manifest, Package, Status
from ingot.model.plan import LayerKey, Plan
from ingot.model.secret import readable
from ingot.model.step import describe
from ingot.model.units import Bytes, Seconds
from ingot.ports import Clock, Inventory, Machine


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """What a build came to. `manifest` is None where all was there already; `layers` begin with the base."""

    image: Image
    layers: tuple[LayerRecord, ...]
    manifest: Manifest | None
    status: Status
    seconds: Seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """What a machine holds: what the manifest says of it."""

    packages: tuple[Package, ...] = ()
    os_release: Mapping[str, str] = field(default_factory=dict)
    kernel: str = ""


def read_contents(inventory: Inventory, machine: Machine) -> Contents:
    """Read before the seal, which may take away what reading needs."""
    return Contents(
        packages=inventory.packages(machine),
        os_release=inventory.os_release(machine),
        kernel=inventory.kernel(machine),
    )


def layer_names(plan: Plan) -> tuple[str, ...]:
    """Names of all layers, base first."""
    return (plan.base.name, *(layer.name for layer in plan.layers))


def layer_keys(plan: Plan) -> tuple[LayerKey, ...]:
    """Keys of all layers, base first."""
    return (plan.base.key, *(layer.key for layer in plan.layers))


class Records:
    """Keeps a record of each layer, and tells of it."""

    def __init__(self, plan: Plan, *, clock: Clock, emit: Emit) -> None:
        self.all: list[LayerRecord] = []
        self._plan = plan
        self._clock = clock
        self._emit = emit

    @property
    def status(self) -> Status:
        """Whether anything was built at all."""
        return "built" if any(record.status == "built" for record in self.all) else "reused"

    def reused(self, index: int, found: LayerRef | None, *, pulled: Seconds | None = None) -> LayerRef | None:
        """A layer that was there, or was `pulled` from the cache in so much time; returns it."""
        seconds = pulled or Seconds(0.0)
        self._keep(index, found, status="reused", seconds=seconds, pulled=pulled is not None)
        return found

    def built(self, index: int, make: Callable[[], LayerRef]) -> LayerRef:
        """A layer that is made now, by `make`; returns it. An error on the way gets the fact `layer`."""
        started = self._clock.monotonic()
        name = layer_names(self._plan)[index]
        self._emit(LayerStarted(subject=self._plan.subject, layer=name, index=index))
        try:
            made = make()
        except IngotError as error:
            error.facts.setdefault("layer", name)
            raise
        self._keep(index, made, status="built", seconds=Seconds(self._clock.monotonic() - started))
        return made

    def _keep(
        self,
        index: int,
        layer: LayerRef | None,
        *,
        status: LayerStatus,
        seconds: Seconds,
        pulled: bool = False,
    ) -> None:
        plan = self._plan
        steps = plan.layers[index - 1].steps if index else ()
        record = LayerRecord(
            name=layer_names(plan)[index],
            key=layer_keys(plan)[index],
            status=status,
            seconds=seconds,
            bytes=layer.size if layer else Bytes(0),
            content=(layer.content or None) if layer else None,
            steps=tuple(readable(describe(step)) for step in steps),
            pulled=pulled,
        )
        self.all.append(record)
        self._emit(
            LayerFinished(
                subject=plan.subject,
                layer=record.name,
                index=index,
                status=status,
                seconds=seconds,
                bytes=record.bytes,
                pulled=pulled,
            )
        )


def manifest_of(
    plan: Plan,
    image: Image,
    *,
    layers: tuple[LayerRecord, ...],
    contents: Contents,
    run: str,
    now: datetime,
) -> Manifest:
    """The manifest of an image just built."""
    return Manifest(
        image=plan.image,
        target=plan.target,
        digest=image.digest,
        project=plan.project,
        arch=plan.arch,
        ingot=ingot.__version__,
        created=now.astimezone(UTC).isoformat(timespec="seconds"),
        run=run,
        layers=layers,
        packages=contents.packages,
        os_release=contents.os_release,
        kernel=contents.kernel,
        plan=plain(plan),
    )
