"""What of a disk is known to be in a snapshot: a checksum for each block, on disk as soon as the block is there.

One file: a page that says of which snapshot and disk, then a slot for each block, 40 bytes:

    state (1 sent, 2 there unsent)  3 bytes of zeros  SHA-256  CRC-32 of all that and of whose slot it is

A slot is written at its place in one call once the block was acknowledged, so a SIGKILL at any moment loses at most what
was in flight. A slot whose CRC is wrong (never written, torn by a power loss, another file's) counts as not there: its block
is sent again, which is always right. When the snapshot is complete, the same file tells the next version's upload which
blocks differ.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ingot.errors import BackendError
from ingot.model.digest import Digest, plain
from ingot.model.plan import ContentId
from ingot.system.files import sync_folder, write_atomically

SCHEMA = 1
SENT, THERE = 1, 2
_HEAD = 4096
_SLOT = struct.Struct(">B3x32sI")
_CHUNK = 4096
"""Slots read at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """Whose blocks a ledger tells of."""

    snapshot: str
    content: ContentId
    blocks: int
    """How many blocks the volume has; the disk may end before."""
    asked: Digest
    """The digest of what was asked of StartSnapshot: another wish is another snapshot."""
    parent: str
    """The snapshot that it is a delta on; "" for none."""
    encrypted: bool
    """Whether the reply to StartSnapshot named a key or encryption."""
    key: str
    """The key that was asked for; "" for the account's default one, or none."""
    gaps: bool
    """Whether blocks of zeros may have been left out of it, or of what it is a delta on."""
    started: float
    """Seconds since the epoch."""
    schema: int = SCHEMA

    @property
    def seed(self) -> int:
        """What makes a slot of one snapshot and disk worthless in another's ledger."""
        return zlib.crc32(f"{self.snapshot} {self.content}".encode())


class Ledger:
    """An open ledger. Several threads may note and ask; of the same block only one."""

    def __init__(self, path: Path, about: About) -> None:
        self.about = about
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._seed = about.seed
        self._states = bytearray(about.blocks)
        for index, state, _ in self.slots():
            self._states[index] = state

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def sent(self, index: int) -> bool:
        """Whether the block was sent to this snapshot, and acknowledged."""
        return self._states[index] == SENT

    def known(self, index: int) -> bool:
        """Whether it is known what the snapshot has there, sent or not."""
        return self._states[index] != 0

    def checksum(self, index: int) -> bytes | None:
        """The SHA-256 of what the snapshot has there; None where that is not known."""
        if not self._states[index]:
            return None
        found = self._parse(index, os.pread(self._fd, _SLOT.size, self._place(index)))
        return found[1] if found else None

    def note(self, index: int, checksum: bytes, *, state: int = SENT) -> None:
        """Writes down what the snapshot has there. Raises BackendError where that cannot be written."""
        slot = _SLOT.pack(state, checksum, _crc(index, state, checksum, self._seed))
        try:
            os.pwrite(self._fd, slot, self._place(index))
        except OSError as error:
            raise BackendError(
                f"what was sent could not be written down: {error.strerror}", hint="free some disk space"
            ) from error
        self._states[index] = state

    def sync(self) -> None:
        """Makes what was noted survive a power loss too."""
        os.fdatasync(self._fd)

    def seal(self) -> tuple[int, bytes]:
        """How many blocks were sent, and the SHA-256 of their checksums in order of the blocks.

        Raises BackendError where a checksum was lost meanwhile.
        """
        all_of_them, count = hashlib.sha256(), 0
        for _, state, checksum in self.slots():
            if state == SENT:
                all_of_them.update(checksum)
                count += 1
        if count != self._states.count(SENT):
            raise BackendError(
                "the list of what was sent to the snapshot was damaged meanwhile",
                hint="upload again: what the list lacks is sent again",
            )
        return count, all_of_them.digest()

    def slots(self) -> Iterator[tuple[int, int, bytes]]:
        """(block, state, SHA-256) of all that is known, in order."""
        for first in range(0, self.about.blocks, _CHUNK):
            data = os.pread(self._fd, _CHUNK * _SLOT.size, self._place(first))
            for number in range(min(_CHUNK, self.about.blocks - first, len(data) // _SLOT.size)):
                slot = data[number * _SLOT.size : (number + 1) * _SLOT.size]
                if slot[0] and (found := self._parse(first + number, slot)):
                    yield first + number, *found

    def _parse(self, index: int, slot: bytes) -> tuple[int, bytes] | None:
        if len(slot) < _SLOT.size:
            return None
        state, checksum, crc = _SLOT.unpack(slot)
        good = state in (SENT, THERE) and crc == _crc(index, state, checksum, self._seed)
        return (state, checksum) if good else None

    def _place(self, index: int) -> int:
        return _HEAD + index * _SLOT.size


def _crc(index: int, state: int, checksum: bytes, seed: int) -> int:
    return zlib.crc32(struct.pack(">QB", index, state) + checksum, seed)


def create_ledger(path: Path, about: About, *, earlier: Ledger | None = None) -> Ledger:
    """A new ledger, which replaces the one there. All that `earlier`, its parent's, knows is there, unsent."""
    fresh = path.with_name(f"{path.name}.new")
    write_atomically(fresh, json.dumps(plain(about), sort_keys=True).encode().ljust(_HEAD), mode=0o600)
    ledger = Ledger(fresh, about)
    for index, _, checksum in earlier.slots() if earlier else ():
        ledger.note(index, checksum, state=THERE)
    ledger.sync()
    fresh.rename(path)
    sync_folder(path.parent)
    return ledger


def open_ledger(path: Path) -> Ledger | None:
    """The ledger of a file; None where there is none, or none that can be understood."""
    try:
        with path.open("rb") as file:
            about = About(**json.loads(file.read(_HEAD)))
        return Ledger(path, about) if _sound(about) else None
    except (OSError, ValueError, TypeError):
        return None


def _sound(about: About) -> bool:
    texts = (about.snapshot, about.content, about.asked, about.parent, about.key)
    return (
        about.schema == SCHEMA
        and all(isinstance(text, str) for text in texts)
        and isinstance(about.blocks, int)
        and 0 < about.blocks <= 2**27
    )
