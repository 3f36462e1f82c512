"""A chain of layers read by the blocks of the flattened disk, straight from the layers' files.

`qemu-img map` tells where in which file each run of the disk lies; no daemon, mount or flat copy is needed, and no root.
(Decision 0017 has what else was measured.)
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ingot.backends.local import chain
from ingot.errors import BackendError
from ingot.model.plan import ContentId
from ingot.model.units import Bytes, Seconds
from ingot.ports import Cancel
from ingot.ports.disks import BLOCK
from ingot.system import process

_WINDOW = 16 * 2**30
_PATIENCE = Seconds(600.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A run of a block's bytes: where in the block it begins, where in which file it lies."""

    at: int
    length: int
    file: int
    place: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ChainBlock:
    """Implements `ports.Block`. What no piece covers is zeros."""

    index: int
    same: bool
    pieces: tuple[Piece, ...]

    @property
    def empty(self) -> bool:
        return not self.pieces

    def read(self) -> bytes:
        """The bytes, from the files."""
        found = bytearray(BLOCK)
        view = memoryview(found)
        for piece in self.pieces:
            _read_into(view[piece.at : piece.at + piece.length], piece)
        return bytes(found)


def _read_into(view: memoryview, piece: Piece) -> None:
    done = 0
    while done < len(view):
        got = os.preadv(piece.file, [view[done:]], piece.place + done)
        if not got:
            raise BackendError(
                "a layer's file ends before its data", hint="build again: what is damaged is made anew"
            )
        done += got


class ChainDisk:
    """Implements `ports.Disk` over a chain, base first; its files stay open until it is closed.

    `shared` of them are the first layers of the earlier disk too, and `others` are what that one has above those:
    only what lies in neither's own layers is the same on both.
    """

    def __init__(
        self,
        files: Sequence[Path],
        content: ContentId,
        *,
        shared: int = 0,
        others: Sequence[Path] = (),
        cancel: Cancel,
    ) -> None:
        self.content = content
        self.size: Bytes = chain.read_header(files[-1]).size
        self._files = tuple(files)
        self._shared = shared
        self._others = tuple(others)
        self._cancel = cancel
        self._open: list[int] = []

    def __enter__(self) -> ChainDisk:
        try:
            for path in self._files:
                self._open.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        while self._open:
            os.close(self._open.pop())

    def blocks(self) -> Iterator[ChainBlock]:
        """Every block in order. Raises BackendError for a layer that is compressed inside."""
        for start in range(0, self.size, _WINDOW):
            yield from self._window(start, min(_WINDOW, self.size - start))

    def _window(self, start: int, length: int) -> Iterator[ChainBlock]:
        first, count = start // BLOCK, -(-length // BLOCK)
        changed = bytearray(count) if self._shared else bytearray(b"\1" * count)
        pieces: dict[int, list[Piece]] = {}
        for run in self._map(self._files, start, length):
            if self._shared and run["present"] and run["depth"] < len(self._files) - self._shared:
                _mark(changed, run, start)
            if run["data"]:
                for index, piece in self._split(run):
                    pieces.setdefault(index, []).append(piece)
        if self._shared and self._others:
            for run in self._map(self._others, start, length):
                if run["present"]:
                    _mark(changed, run, start)
        for number in range(count):
            found = pieces.pop(first + number, ())
            yield ChainBlock(index=first + number, same=not changed[number], pieces=tuple(found))

    def _map(self, files: Sequence[Path], start: int, length: int) -> list[dict[str, Any]]:
        words = [f"--start-offset={start}", f"--max-length={length}", chain.nested(files)]
        argv = ["qemu-img", "map", "-U", "--output=json", *words]
        done = process.run(argv, timeout=_PATIENCE, cancel=self._cancel)
        runs: list[dict[str, Any]] = json.loads(done.stdout)
        return runs

    def _split(self, run: dict[str, Any]) -> Iterator[tuple[int, Piece]]:
        file = len(self._files) - 1 - int(run["depth"])
        if "offset" not in run:
            raise BackendError(
                f"{self._files[file]} is compressed inside",
                hint="`qemu-img convert -O qcow2` writes it plain",
            )
        begin, end = int(run["start"]), int(run["start"]) + int(run["length"])
        while begin < end:
            at = begin % BLOCK
            length = min(BLOCK - at, end - begin)
            place = int(run["offset"]) + begin - int(run["start"])
            yield begin // BLOCK, Piece(at=at, length=length, file=self._open[file], place=place)
            begin += length


def _mark(changed: bytearray, run: dict[str, Any], start: int) -> None:
    begin = max(0, int(run["start"]) - start)
    end = min(len(changed) * BLOCK, int(run["start"]) + int(run["length"]) - start)
    for number in range(begin // BLOCK, -(-end // BLOCK)):
        changed[number] = 1
