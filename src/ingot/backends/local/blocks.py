"""The raw bytes of what a qcow2 file itself holds, read past QEMU: `qemu-img map` tells where they lie."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ingot.backends.local import chain
from ingot.errors import BackendError
from ingot.model.units import Seconds
from ingot.ports import Cancel
from ingot.system import process

_CHUNK = 4 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Extent:
    """A run of bytes of the disk that a file holds. `place` is where in the file; None where it is compressed."""

    start: int
    length: int
    place: int | None


def read_extents(path: Path, *, cancel: Cancel | None = None) -> tuple[Extent, ...]:
    """What a file of a chain itself holds, in the order of the disk; what reads as zeros is left out."""
    done = process.run(
        ["qemu-img", "map", "-U", "--output=json", chain.nested([path])],
        timeout=Seconds(600.0),
        cancel=cancel,
    )
    return tuple(
        Extent(start=item["start"], length=item["length"], place=item.get("offset"))
        for item in json.loads(done.stdout)
        if item["data"]
    )


def read_own(path: Path, *, cancel: Cancel | None = None) -> Iterator[tuple[int, bytes]]:
    """The same of a file alone, without its disk. Raises BackendError where it is compressed."""
    for extent in read_extents(path, cancel=cancel):
        if extent.place is None:
            raise BackendError(
                f"{path} is compressed inside", hint="`qemu-img convert -O qcow2` writes it plain"
            )
    yield from read_blocks(path, path, cancel=cancel)


def read_blocks(path: Path, raw: Path, *, cancel: Cancel | None = None) -> Iterator[tuple[int, bytes]]:
    """(offset on the disk, bytes) of all that a file holds. Compressed bytes are read from `raw`, the exported disk."""
    with path.open("rb") as file, raw.open("rb") as disk:
        for extent in read_extents(path, cancel=cancel):
            source, place = (disk, extent.start) if extent.place is None else (file, extent.place)
            for done in range(0, extent.length, _CHUNK):
                source.seek(place + done)
                yield extent.start + done, source.read(min(_CHUNK, extent.length - done))
