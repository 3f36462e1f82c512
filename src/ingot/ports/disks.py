"""The port of a disk that is read by blocks, so that a cloud's folder can send what another folder keeps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from ingot.model.plan import ContentId
from ingot.model.units import Bytes

BLOCK = Bytes(512 * 1024)
"""The length of a block; what clouds take in one piece."""


class Block(Protocol):
    """One block of a disk. It can be read by any thread while its disk is open."""

    @property
    def index(self) -> int: ...  # counted from 0
    @property
    def empty(self) -> bool:
        """Whether it is known to be zeros without being read."""
        ...

    @property
    def same(self) -> bool:
        """Whether it is known to be what it was on the earlier disk, without being read."""
        ...

    def read(self) -> bytes:
        """Its bytes, `BLOCK` of them: beyond the disk's end there are zeros."""
        ...


class Disk(Protocol):
    """A finished disk as it would be flattened, opened to be read. Nothing of it changes, or goes, meanwhile."""

    @property
    def content(self) -> ContentId:
        """What it is: equal ones have equal bytes."""
        ...

    @property
    def size(self) -> Bytes: ...
    def blocks(self) -> Iterator[Block]:
        """Every block, in order. Little of what tells where they lie is in memory at once."""
        ...
