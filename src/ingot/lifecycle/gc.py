"""Garbage collection: which layers and old runs to remove, decided as data, and removing them.

What stays, whatever is asked for:

- a layer that something holds at this moment, or that was used in the last ten minutes;
- the layers of the newest version of every image of the catalog, and of whatever plans the caller names in `keep`;
- a layer that another one stands on: leaves go first, so nothing that stays ever loses its parent.

What goes: without a limit, what no image of the catalog needs and nobody used for a day; with `older_than`, what was
not used for so long, images of older versions too; with `max_bytes`, from what is left, the least needed and longest
unused first, until the rest fits. Where even all of it does not make it fit, what is protected stays all the same.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ingot.errors import RefusedError
from ingot.model.events import Emit, Warned, ignore
from ingot.model.image import LayerRef
from ingot.model.plan import ContentId, LayerKey
from ingot.model.units import Bytes, Seconds, format_bytes, format_seconds
from ingot.ports import LayerStore, StoredLayer
from ingot.system.locks import try_lock

IN_USE = timedelta(minutes=10)
UNNEEDED = timedelta(days=1)
KEEP_RUNS = Seconds(30 * 86400.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageUse:
    """An image of the catalog: its name (`node@3`) and whether it is of the newest version for its target."""

    name: str
    newest: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What there is to decide about. `images` are the catalog's, by content; `keep` are keys of plans."""

    now: datetime
    layers: tuple[StoredLayer, ...]
    images: Mapping[ContentId, ImageUse] = field(default_factory=dict)
    keep: frozenset[LayerKey] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class Drop:
    """A layer to remove and why; `image` is what the catalog then has to forget (`node@1`), if anything."""

    ref: LayerRef
    reason: str
    image: str = ""


def decide(
    view: View, *, max_bytes: Bytes | None = None, older_than: Seconds | None = None
) -> tuple[Drop, ...]:
    """The layers to remove, in the order in which they can be removed. Pure."""
    heap = _Heap(view)
    drops: list[Drop] = []
    if max_bytes is None and older_than is None:
        drops += heap.take(lambda layer: heap.unneeded(layer) and heap.idle(layer) > UNNEEDED, _unneeded)
    if older_than is not None:
        age = timedelta(seconds=older_than)
        drops += heap.take(lambda layer: heap.idle(layer) > age, heap.tell_idle)
    if max_bytes is not None:
        reason = f"to keep all layers within {format_bytes(max_bytes)}"
        drops += heap.take(lambda layer: heap.bytes > max_bytes, lambda layer: reason)
    return tuple(drops)


def apply(
    drops: Sequence[Drop], *, store: LayerStore, forget: Callable[[ContentId], None], emit: Emit = ignore
) -> tuple[Drop, ...]:
    """Removes the layers and returns those that are gone. One taken into use meanwhile stays, with a warning.

    `forget` takes an image out of its backend and the catalog; it is called before the layer goes, so that the
    catalog never names what is not there.
    """
    gone: list[Drop] = []
    for drop in drops:
        try:
            if drop.image:
                forget(drop.ref.content)
            store.drop(drop.ref)
        except RefusedError as error:
            emit(Warned(message=f"kept a layer: {error}", hint=error.hint))
        else:
            gone.append(drop)
    return tuple(gone)


def old_runs(runs: Path, *, now: datetime, older_than: Seconds = KEEP_RUNS) -> tuple[str, ...]:
    """Ids of runs that began longer ago than that, oldest first."""
    limit = now - timedelta(seconds=older_than)
    names = sorted(path.name for path in runs.iterdir()) if runs.is_dir() else []
    return tuple(name for name in names if (began := _began(name)) and began < limit)


def prune_runs(runs: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Removes these runs' folders and returns the ids of those gone; what lives or is still to be swept stays."""
    gone = []
    for name in names:
        with try_lock(runs / name / "lock") as free:
            if free and not (runs / name / "journal.jsonl").exists():
                shutil.rmtree(runs / name)
                gone.append(name)
    return tuple(gone)


class _Heap:
    """The layers that are left while some are taken away, leaf by leaf."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._left = {layer.ref.content: layer for layer in view.layers}
        self._needed = frozenset(self._chains(view.images))
        self.bytes: int = sum(layer.ref.size for layer in view.layers)

    def idle(self, layer: StoredLayer) -> timedelta:
        """How long nobody used it."""
        return self._view.now - layer.last_used

    def unneeded(self, layer: StoredLayer) -> bool:
        """Whether no image of the catalog stands on it."""
        return layer.ref.content not in self._needed

    def tell_idle(self, layer: StoredLayer) -> str:
        return f"unused for {format_seconds(self.idle(layer).total_seconds())}"

    def take(
        self, wanted: Callable[[StoredLayer], bool], reason: Callable[[StoredLayer], str]
    ) -> Iterator[Drop]:
        """Takes away leaves that are wanted, the least needed and longest unused first, until none is."""
        while leaf := min(filter(wanted, self._leaves()), key=self._worth, default=None):
            del self._left[leaf.ref.content]
            self.bytes -= leaf.ref.size
            image = self._view.images.get(leaf.ref.content)
            yield Drop(ref=leaf.ref, reason=reason(leaf), image=image.name if image else "")

    def _leaves(self) -> Iterator[StoredLayer]:
        for layer in self._left.values():
            if not (layer.children & self._left.keys()) and not self._protected(layer):
                yield layer

    def _protected(self, layer: StoredLayer) -> bool:
        image = self._view.images.get(layer.ref.content)
        return (
            layer.leased
            or self.idle(layer) < IN_USE
            or layer.ref.key in self._view.keep
            or (image is not None and image.newest)
        )

    def _worth(self, layer: StoredLayer) -> tuple[bool, datetime, str]:
        return not self.unneeded(layer), layer.last_used, layer.ref.content

    def _chains(self, tops: Mapping[ContentId, ImageUse]) -> Iterator[ContentId]:
        for top in tops:
            content: ContentId | None = top
            while content is not None and content in self._left:
                yield content
                content = self._left[content].ref.parent


def _unneeded(layer: StoredLayer) -> str:
    return "no image needs it"


def _began(run: str) -> datetime | None:
    """When a run began, by its id; None for a folder that is no run's."""
    try:
        return datetime.strptime(run[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None
