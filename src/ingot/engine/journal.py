"""The journal of a run: what it made that must be unmade, on disk before it is made.

A file of JSON lines, each durable before the deed that follows it:

    {"do": "open", "token": "ingot-20261121-103045-ab12-1", "kind": "local.machine", "place": {…}, "at": 1795256645.312}
    {"do": "made", "token": "…", "ref": "…"}       it exists and this is its name
    {"do": "keep", "token": "…", "until": 1795…}   it stays after its run, to be looked at, until then
    {"do": "sought", "token": "…", "at": 1795…}    after its run's end it was looked for and not seen, though it may come to be
    {"do": "shut", "token": "…"}                   it is gone

`place` is how its backend is opened again. A token that is opened and not shut may exist, made or not: `find` tells.
A last line without its end counts as unwritten. A journal in which everything is shut is renamed to
`journal.done.jsonl` when its run ends; a `journal.jsonl` whose run holds no lock is one to sweep.
"""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ingot.engine.trace import point
from ingot.errors import BackendError
from ingot.ports import Clock, Token
from ingot.system.files import sync_folder
from ingot.system.waits import WallClock

NAME, DONE = "journal.jsonl", "journal.done.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a temporary thing is made, and how its backend is opened again to unmake it. Plain data, no secrets."""

    backend: str
    location: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One thing that was opened and not shut; `ref` "" where it is not known whether it came to be."""

    token: Token
    kind: str
    place: Place
    ref: str = ""
    sought: float = 0.0
    """When a sweep first looked for it and did not see it, in seconds since the epoch; 0 where none did."""
    until: float = 0.0
    """Until when it is kept though its run is over; 0 for what is to be removed."""

    @property
    def name(self) -> str:
        """What people are told of it: its kind and its ref, or the token that it bears."""
        return f"{self.kind} {self.ref or self.token}"


def unfinished(lines: Iterable[str]) -> tuple[Record, ...]:
    """What a journal's lines leave open, newest first."""
    found: dict[str, Record] = {}
    for line in lines:
        entry = _entry(line)
        token = Token(str(entry.get("token", "")))
        match entry.get("do"):
            case "open":
                found[token] = Record(token=token, kind=str(entry["kind"]), place=_place(entry))
            case "made" if token in found:
                found[token] = replace(found[token], ref=str(entry["ref"]))
            case "sought" if token in found and not found[token].sought:
                found[token] = replace(found[token], sought=float(entry["at"]))
            case "keep" if token in found:
                found[token] = replace(found[token], until=float(entry["until"]))
            case "shut":
                found.pop(token, None)
    return tuple(reversed(found.values()))


class Journal:
    """Appends to one run's journal; the file comes into being with the first record. Safe for several threads."""

    def __init__(self, directory: Path, *, run: str, clock: Clock | None = None) -> None:
        self.path = directory / NAME
        self._run = run
        self._clock: Clock = clock or WallClock()
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._number = 0

    def open(self, kind: str, place: Place) -> Token:
        """Records that a thing is about to be made, and gives the token that it must bear.

        This and the others raise BackendError where the record cannot be made durable.
        """
        with self._lock:
            self._number += 1
            token = Token(f"ingot-{self._run}-{self._number}")
        where = {"backend": place.backend, "location": place.location, "options": dict(place.options)}
        at = round(self._clock.now().timestamp(), 3)
        self._write({"do": "open", "token": token, "kind": kind, "place": where, "at": at})
        return token

    def made(self, token: Token, ref: str) -> None:
        self._write({"do": "made", "token": token, "ref": ref})

    def keep(self, token: Token, until: float) -> None:
        self._write({"do": "keep", "token": token, "until": round(until, 3)})

    def sought(self, token: Token) -> None:
        self._write({"do": "sought", "token": token, "at": round(self._clock.now().timestamp(), 3)})

    def shut(self, token: Token) -> None:
        self._write({"do": "shut", "token": token})

    def read(self) -> tuple[Record, ...]:
        """What is open now."""
        if not self.path.exists():
            return ()
        return unfinished(self.path.read_text(errors="replace").splitlines(keepends=True))

    def close(self) -> None:
        """Ends writing; a journal that leaves nothing open is set aside."""
        with self._lock:
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None
        if self.path.exists() and not self.read():
            self.path.rename(self.path.with_name(DONE))

    def _write(self, entry: Mapping[str, Any]) -> None:
        line = json.dumps(entry, separators=(",", ":"), default=str) + "\n"
        point(f"before journal {entry['do']}")
        with self._lock:
            try:
                if self._fd is None:
                    self._fd = _appendable(self.path)
                _append(self._fd, line.encode())
            except OSError as error:
                raise BackendError(
                    f"the journal {self.path} cannot be written: {error.strerror}",
                    hint="make room on the disk of the state folder (`ingot gc`), or see who owns it",
                ) from error
        point(f"after journal {entry['do']}")


def _appendable(path: Path) -> int:
    """The file, open for appending, without the torn line that a crash may have left; durable in its folder."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    written = path.read_bytes()
    os.ftruncate(fd, written.rfind(b"\n") + 1)
    sync_folder(path.parent)
    return fd


def _append(fd: int, line: bytes) -> None:
    """The whole line, durable, or nothing of it: a disk may be full after half a line."""
    size = os.fstat(fd).st_size
    try:
        if os.write(fd, line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(fd)
    except OSError:
        os.ftruncate(fd, size)
        raise


def _entry(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line) if line.endswith("\n") else {}
    except ValueError:
        entry = {}
    return entry if isinstance(entry, dict) else {}


def _place(entry: Mapping[str, Any]) -> Place:
    place = entry.get("place", {})
    return Place(backend=place["backend"], location=place["location"], options=place["options"])
