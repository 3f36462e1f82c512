"""What the layer store writes down: one record a layer, and a mark of when its bytes were last read whole."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingot.model.digest import Digest, plain
from ingot.model.image import LayerRef
from ingot.model.plan import ContentId, LayerKey
from ingot.model.units import Bytes, Seconds

SCHEMA = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """A complete layer: what it was made from, what it is, and how its file looked when it was made."""

    key: LayerKey
    content: ContentId
    parent: ContentId | None
    file: Digest
    bytes: Bytes
    """The file's length."""
    mtime_ns: int
    disk: Bytes
    """The disk's virtual size."""
    created: str
    sealed: bool
    scanned: bool
    labels: Mapping[str, str] = field(default_factory=dict)
    schema: int = SCHEMA

    def ref(self, path: Path) -> LayerRef:
        """The layer as the core knows it; its file is at `path`."""
        return LayerRef(
            key=self.key,
            content=self.content,
            parent=self.parent,
            ref=str(path),
            size=self.bytes,
            created=self.created,
            sealed=self.sealed,
            labels=dict(self.labels),
        )


def write_record(record: Record) -> str:
    """The record as text."""
    return json.dumps(plain(record), indent=1, sort_keys=True) + "\n"


def read_record(path: Path) -> Record | None:
    """The record of a file; None where there is none, or none that can be understood."""
    value = _read(path)
    if value is None or value.get("schema") != SCHEMA:
        return None
    try:
        return Record(**value)
    except TypeError:
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """That a file had the right bytes when it looked like this. The kernel sets ctime on any change, nobody else."""

    inode: int
    bytes: int
    mtime_ns: int
    ctime_ns: int
    at: float
    """Seconds since the epoch."""

    def fits(self, found: os.stat_result) -> bool:
        """Whether the file still looks as it did."""
        now = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        return now == (self.inode, self.bytes, self.mtime_ns, self.ctime_ns)

    def fresh(self, now: float, *, within: Seconds) -> bool:
        """Whether the bytes were read recently; a clock that was set back does not make a mark last longer."""
        return 0 <= now - self.at <= within


def make_mark(found: os.stat_result, now: float) -> Mark:
    """The mark of a file whose bytes are known to be right."""
    return Mark(
        inode=found.st_ino,
        bytes=found.st_size,
        mtime_ns=found.st_mtime_ns,
        ctime_ns=found.st_ctime_ns,
        at=now,
    )


def read_mark(path: Path) -> Mark | None:
    """The mark of a file; None where there is none, or none that can be understood."""
    try:
        return Mark(**(_read(path) or {}))
    except TypeError:
        return None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
