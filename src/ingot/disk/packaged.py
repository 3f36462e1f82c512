"""Which files of a root a distribution's package brought, and nobody changed since."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Protocol

from ingot.disk.search import md5

_MERGED = ("bin", "sbin", "lib", "lib64")
"""Folders of / that are links into /usr, where a package's own list may still name the old place."""


class Records(Protocol):
    """What is known of a root's packages and of its files' bytes."""

    @property
    def has_dpkg(self) -> bool: ...
    @property
    def checksums(self) -> bytes:
        """Lines of dpkg's lists: MD5, two spaces, relative path."""
        ...

    @property
    def conffiles(self) -> bytes:
        """Lines of dpkg's status, among them those of configuration files: a space, path, a space, MD5."""
        ...

    def digest(self, path: str) -> str | None:
        """The MD5 of the regular file at the absolute path; None where there is none."""
        ...


class Packaged:
    """`path in Packaged(records)`: whether the file at `path` (absolute, inside the root) is a package's, unchanged.

    Debian's packages record checksums. RPM's are in a database that only rpm reads, so on a root without dpkg
    everything below /usr other than /usr/local counts as a package's. Nothing is read before the first question.
    """

    def __init__(self, records: Records) -> None:
        self._records = records

    def __contains__(self, path: object) -> bool:
        assert isinstance(path, str)
        if not self._records.has_dpkg:
            return path.startswith("/usr/") and not path.startswith("/usr/local/")
        # Checksums tell changed files from unchanged ones; nobody is defended against who forges MD5 on a disk of theirs.
        source = brought_as(path)
        digest = (self._records.digest(source) or "").encode()
        return bool(digest) and any(
            digest + b"  " + name + b"\n" in self._records.checksums
            or b" /" + name + b" " + digest in self._records.conffiles
            for name in names(source)
        )


class Disk:
    """The records of a root that is mounted here."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def has_dpkg(self) -> bool:
        return bool(self.checksums)

    @cached_property
    def checksums(self) -> bytes:
        info = self._root / "var/lib/dpkg/info"
        return b"".join(path.read_bytes() for path in sorted(info.glob("*.md5sums")))

    @cached_property
    def conffiles(self) -> bytes:
        status = self._root / "var/lib/dpkg/status"
        return status.read_bytes() if status.exists() else b""

    def digest(self, path: str) -> str | None:
        return md5(os.fsencode(self._root / path.lstrip("/")))


def names(path: str) -> tuple[bytes, ...]:
    """The path as packages may list it: relative, and by its place before /usr was merged."""
    name = path.lstrip("/")
    first, _, rest = name.removeprefix("usr/").partition("/")
    old = [f"{first}/{rest}"] if name.startswith("usr/") and first in _MERGED else []
    return tuple(os.fsencode(each) for each in (name, *old))


def brought_as(path: str) -> str:
    """The path of what a package brought for it: of the Python source, where it is that one's compiled form.

    Packages compile on installation.
    """
    folder, _, name = path.rpartition("/__pycache__/")
    module, _, tag = name.partition(".cpython-")
    return f"{folder}/{module}.py" if folder and tag.endswith(".pyc") else path
