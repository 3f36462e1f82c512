"""Layers on their way between computers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ingot.model.digest import Digest
from ingot.model.events import Emit
from ingot.model.image import LayerRef
from ingot.model.plan import ContentId, LayerKey
from ingot.model.units import Bytes
from ingot.ports.basics import Cancel, Resource
from ingot.ports.machines import Needle


@dataclass(frozen=True, kw_only=True, slots=True)
class Parcel:
    """A layer on its way between computers: all that whoever takes it in has to believe."""

    key: LayerKey
    content: ContentId
    parent: ContentId | None
    kind: str
    """What its bytes are: `qcow2`. A backend takes in what it gives out."""
    file: Digest
    bytes: Bytes
    """The file's checksum and length."""
    disk: Bytes
    created: str
    sealed: bool
    scanned: bool
    """As the layer's own record had it: whether it was scanned as the last layer of a disk."""
    labels: Mapping[str, str] = field(default_factory=dict)


class LayerCarrier(Protocol):
    """Gives a backend's layers out as files, and takes in those of other computers."""

    @property
    def kind(self) -> str: ...
    def room(self) -> Resource:
        """A folder for what is on its way, where a file can become a layer without being copied."""
        ...

    def folder(self, ref: str) -> Path:
        """Where the room of this ref is."""
        ...

    def chain(self, content: ContentId) -> tuple[Parcel, ...]:
        """What would be given out of a whole disk, base first; () for what is not there."""
        ...

    def opened(
        self, parcel: Parcel, needles: Sequence[Needle], *, cancel: Cancel
    ) -> AbstractContextManager[Path]:
        """The file of a layer, its bytes known to be right; nobody drops it meanwhile.

        Raises RefusedError, with the reason, unless the leak scan has read all of the layer and found nothing of these
        needles in it, not even what a layer above it hides.
        """
        ...

    def take(self, file: Path, parcel: Parcel) -> LayerRef:
        """Makes a layer of a file, which is moved; the key leads to it then. The caller holds the key's lock.

        Raises BackendError for bytes other than the parcel's, and for a disk that names other files.
        """
        ...


class LayerCache(Protocol):
    """Layers that computers share. What it raises is a BackendError: a build goes on without it."""

    @property
    def url(self) -> str: ...
    @property
    def gives(self) -> bool:
        """Whether layers can be signed, and so given to others."""
        ...

    def find(
        self, keys: Sequence[LayerKey], *, kind: str, standing: Sequence[ContentId | None], emit: Emit
    ) -> tuple[Parcel, ...]:
        """The layers that lead from what is standing to the deepest that is offered, the lowest first.

        `keys` are those of a plan, base first; `standing` are the contents that the first of them have here. The lowest
        stands on one of those, or on nothing; () where nothing deeper is offered. What is not signed by somebody allowed
        is passed over with a warning.
        """
        ...

    def has(self, key: LayerKey, content: ContentId) -> bool:
        """Whether it offers this very layer, signed by somebody allowed."""
        ...

    def take(self, parcel: Parcel, folder: Path, *, subject: str, emit: Emit, cancel: Cancel) -> Path:
        """The layer's file, made in the folder. Raises RefusedError for what is not what was signed."""
        ...

    def give(
        self, parcel: Parcel, file: Path, folder: Path, *, subject: str, emit: Emit, cancel: Cancel
    ) -> Bytes:
        """Offers the layer to others; the folder is for what is made on the way. Returns how much was sent."""
        ...
