"""What a backend keeps: images, layers, and the files that they are written as."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from ingot.model.events import Emit
from ingot.model.image import Image, LayerRef
from ingot.model.plan import ContentId
from ingot.ports.basics import Cancel, Holder
from ingot.ports.disks import Disk


class ImageStore(Protocol):
    """Images of one backend at one location."""

    def list(self, labels: Mapping[str, str]) -> Iterator[Image]: ...
    def register(self, layer: LayerRef, name: str, *, arch: str, labels: Mapping[str, str]) -> Image:
        """Makes an image of a sealed layer. The same layer under the same name again gives the image there is."""
        ...

    def delete(self, image: Image) -> None: ...


class Importer(Protocol):
    """Takes in finished disks that were made elsewhere."""

    def take(
        self,
        image: Image,
        exporter: Exporter,
        *,
        labels: Mapping[str, str],
        held: Holder,
        subject: str,
        emit: Emit,
        cancel: Cancel,
    ) -> Image:
        """The same image here. What is there already is found; an upload that was broken off goes on."""
        ...


class Publisher(Protocol):
    """Does with a finished image what its target asks for: copies it to further locations, shares it, names it."""

    def publish(self, image: Image, *, subject: str, emit: Emit, cancel: Cancel) -> tuple[Image, ...]:
        """The copies, one for each further location, in the target's order.

        The same again finds what is done already and does the rest. What was made stays where something fails.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredLayer:
    """A layer as its store sees it. `children` are the contents of the layers that stand directly on it."""

    ref: LayerRef
    last_used: datetime
    """Aware, UTC: when it was last made, opened as a parent, checked or exported."""
    leased: bool
    """Whether a machine, a check or an export holds it at this moment."""
    children: frozenset[ContentId] = frozenset()


class LayerStore(Protocol):
    """The layers that a backend keeps, as garbage collection sees them."""

    def layers(self) -> Iterator[StoredLayer]:
        """Every complete layer, base layers too, in no particular order."""
        ...

    def drop(self, ref: LayerRef) -> None:
        """Removes a layer durably. One already gone is fine; RefusedError for one leased or with children."""
        ...


class Exporter(Protocol):
    """Writes an image as one flat disk file, with nothing left of what its layers deleted."""

    @property
    def formats(self) -> Mapping[str, str]:
        """The formats by name (`qcow2`, `vhd`), each with the ending that a file of it has (`.vhd`)."""
        ...

    def export(
        self, image: Image, output: Path, *, format: str, subject: str, emit: Emit, cancel: Cancel
    ) -> Path:
        """Writes the image to `output`, which it replaces; the file appears whole and durable, or not at all."""
        ...

    def opened(
        self, content: ContentId, *, since: ContentId | None = None, cancel: Cancel
    ) -> AbstractContextManager[Disk]:
        """The disk of that content, to be read by blocks; they know whether they are as they were on the one of `since`."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundBase:
    """What a base is by now. `pins` count in its key and are enough to find it again; `seen` only tells people."""

    pins: Mapping[str, str]
    seen: Mapping[str, str] = field(default_factory=dict)


class BaseFinder(Protocol):
    """Finds the image of a cloud that a base means."""

    def find(self, query: Mapping[str, object], *, arch: str) -> FoundBase:
        """The newest image that fits. Raises NotFoundError, saying where it was looked for."""
        ...
