"""The leak scan: what a finished disk must not hold, in its files and in the raw bytes of its blocks.

Files are read because one may be stored in pieces; blocks are read because what was deleted is still there.
Both are one stream of bytes to search, so a match across the border of two chunks is found.

What is told of a find is its kind and its place, never the secret. A file that a package brought and nobody
changed may look like a leak (keys of test suites and examples): it is exempt from the patterns, and so is the same
key material in a raw block. Nothing is exempt from the needles, the secrets that the run itself knows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingot.disk.leak_patterns import (
    AHEAD,
    BEHIND,
    Literal,
    fingerprint,
    material,
    needle_literals,
    pattern_literals,
    short_needles,
)
from ingot.disk.packaged import Disk, Packaged
from ingot.disk.search import Sight, Sought, Text, finder, finds, longest, sights, windows
from ingot.model.units import format_bytes
from ingot.ports import Cancel, Finding, Needle

Read = Callable[[int, int], bytes]
"""Reads a disk: (offset, length)."""

_DOCKER = "password for a registry", re.compile(rb'"auth"\s*:\s*"[A-Za-z0-9+/=]{8,}"')
_NETRC = "password in a netrc file", re.compile(rb"\bpassword\s+\S+")
_NAMED: dict[str, tuple[str, re.Pattern[bytes]]] = {
    "/.netrc": _NETRC,
    "/_netrc": _NETRC,
    "/.git-credentials": ("password for Git", re.compile(rb"://[^:/\s]+:[^@\s]+@")),
    "/.pgpass": ("password for PostgreSQL", re.compile(rb"(?m)^[^#\s](?:[^:\n]*:){4}\S+")),
    "/.my.cnf": ("password for MySQL", re.compile(rb"(?m)^\s*password\s*=\s*\S+")),
    "/.vault_pass": ("password for Ansible Vault", re.compile(rb"\S")),
    "/.dockerconfigjson": _DOCKER,
    "/.docker/config.json": _DOCKER,
}
"""Ends of paths, and what in the first MiB of such a file is a leak."""


def scan_tree(
    root: Path,
    needles: Sequence[Needle],
    *,
    since: int | None = None,
    known: set[bytes] | None = None,
    cancel: Cancel | None = None,
) -> Iterator[Finding]:
    """Leaks in the files below `root` on its own file system: in content, names and links' targets.

    `since` (nanoseconds since the epoch) leaves out files whose inode was last changed before then. The kernel
    sets that time (ctime) on each write, rename and change of mode, and no one can set it back without setting
    the clock, which the machines of a build cannot. It is sound only for needles that the earlier scan had too.
    Fingerprints of what was found, and of what is exempt, are added to `known`, for `scan_blocks`.
    """
    judge = Judge(needles, set() if known is None else known)
    packaged = Packaged(Disk(root))
    top = os.fsencode(root)
    check = cancel.check if cancel else None
    for sight in sights([top], judge.sought(since), cut=len(top.rstrip(b"/")), check=check):
        claim = judge.claim(sight)
        if claim and not (claim.exempt_if_packaged and claim.path in packaged):
            yield claim.finding


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A finding, unless what it is about is a package's own file and that is an excuse."""

    finding: Finding
    path: str
    exempt_if_packaged: bool


class Judge:
    """Says what to look for in files, and what of the sights there is a leak: each kind once a file."""

    def __init__(self, needles: Sequence[Needle], known: set[bytes]) -> None:
        self._secrets = needle_literals(needles)
        self.literals = (*self._secrets, *pattern_literals())
        self._short = short_needles(needles)
        self._named = tuple(_NAMED.values())
        self._known = known
        self._told: set[tuple[str, str, bool]] = set()

    def sought(self, since: int | None) -> Sought:
        """What to look for, in the files whose inode changed since then."""
        whole = tuple(self._short)
        return Sought(texts(self.literals), BEHIND, AHEAD, whole, tuple(_NAMED), since)

    def claim(self, sight: Sight) -> Claim | None:
        """What is to be said of it; None where it is no leak, or was said already."""
        path = os.fsdecode(sight.path)
        if sight.kind == "text":
            return self._secret(path, sight)
        if sight.kind == "whole":
            return self._claim(tuple(self._short.values())[sight.number], path)
        if sight.kind == "unread":
            return self._claim("a file that could not be read", path)
        what, pattern = self._named[sight.number]
        return self._claim(what, path, exempt=True) if pattern.search(sight.data) else None

    def _secret(self, path: str, sight: Sight) -> Claim | None:
        literal = self.literals[sight.number]
        secret = material(literal, sight.data, sight.at)
        if secret is None:
            return None
        self._known.add(fingerprint(secret))
        return self._claim(literal.what, path, exempt=literal.follows is not None)

    def _claim(self, what: str, path: str, *, exempt: bool = False) -> Claim | None:
        if (what, path, exempt) in self._told:
            return None
        self._told.add((what, path, exempt))
        return Claim(
            finding=Finding(what=what, where=self.masked(path)), path=path, exempt_if_packaged=exempt
        )

    def masked(self, text: str) -> str:
        """The text without a secret that is part of it."""
        for literal in self._secrets:
            text = text.replace(os.fsdecode(literal.text), "***")
        return text


def scan_blocks(
    chunks: Iterable[tuple[int, bytes]],
    needles: Sequence[Needle],
    *,
    known: set[bytes] | None = None,
    shown: Read | None = None,
    before: Read | None = None,
    hidden: list[int] | None = None,
    cancel: Cancel | None = None,
) -> Iterator[Finding]:
    """Leaks in raw bytes. A chunk is (offset on the disk, bytes), of any size, in the order of offsets.

    A match across two chunks is found where the second begins at the end of the first. Each secret is told once,
    with the first place; none whose fingerprint is in `known`, to which those told are added.

    Where the chunks are those of a layer with others above it, `shown` reads the disk as it is now: what is not
    seen there any more is not told, and its offset is added to `hidden`. `before` reads the disk as it was when it was
    found clean: what was there already is not told. (A write into a cluster copies its neighbours too.)
    """
    known = set() if known is None else known
    for literal, at, secret in _search(chunks, (*needle_literals(needles), *pattern_literals()), cancel):
        mark = fingerprint(secret)
        if mark in known:
            continue
        length = len(literal.text) + len(secret) + AHEAD
        if shown and secret not in shown(at, length):
            if hidden is not None:
                hidden.append(at)
            continue
        if before and literal.follows and secret in before(at, length):
            continue
        known.add(mark)
        yield Finding(what=literal.what, where=place(at))


def scan_needles(
    chunks: Iterable[tuple[int, bytes]], needles: Sequence[Needle], *, cancel: Cancel | None = None
) -> Iterator[Finding]:
    """The needles alone in raw bytes, as in `scan_blocks`: for what is taken to hold nothing else of the kind."""
    for literal, at, _ in _search(chunks, needle_literals(needles), cancel):
        yield Finding(what=literal.what, where=place(at))


def place(offset: int) -> str:
    """How a place among a disk's raw bytes is told."""
    return f"block at byte {offset} ({format_bytes(offset)})"


def texts(literals: Sequence[Literal]) -> tuple[Text, ...]:
    """The literals as what to search for."""
    return tuple(Text(literal.text, literal.anyof, literal.follows is None) for literal in literals)


def _search(
    chunks: Iterable[tuple[int, bytes]], literals: Sequence[Literal], cancel: Cancel | None
) -> Iterator[tuple[Literal, int, bytes]]:
    """(literal, its offset, the secret's material) for each find."""
    sought = texts(literals)
    finders = [finder(text) for text in sought]
    check = cancel.check if cancel else None
    for data, offset, start, stop in windows(chunks, BEHIND, AHEAD + longest(sought), check):
        for literal, find in zip(literals, finders, strict=True):
            for at in finds(find, data, start, stop):
                secret = material(literal, data, at)
                if secret is not None:
                    yield literal, offset + at, secret
