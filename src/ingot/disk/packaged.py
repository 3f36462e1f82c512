"""Which files of a root a distribution's package brought, and nobody changed since."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path

_MERGED = ("bin", "sbin", "lib", "lib64")
"""Folders of / that are links into /usr, where a package's own list may still name the old place."""


class Packaged:
    """`path in Packaged(root)`: whether the file at `path` (absolute, inside `root`) is a package's, unchanged.

    Debian's packages record checksums. RPM's are in a database that only rpm reads, so on a root without dpkg
    everything below /usr other than /usr/local counts as a package's. Nothing is read before the first question.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def __contains__(self, path: object) -> bool:
        assert isinstance(path, str)
        if not self._checksums:
            return path.startswith("/usr/") and not path.startswith("/usr/local/")
        source = _compiled_from(path)
        if source:
            return source in self
        file = self._root / path.lstrip("/")
        if file.is_symlink() or not file.is_file():
            return False
        # Checksums tell changed files from unchanged ones; nobody is defended against who forges MD5 on a disk of theirs.
        digest = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest().encode()
        return any(
            digest + b"  " + name in self._checksums or b" /" + name[:-1] + b" " + digest in self._conffiles
            for name in _names(path)
        )

    @cached_property
    def _checksums(self) -> bytes:
        info = self._root / "var/lib/dpkg/info"
        return b"".join(path.read_bytes() for path in sorted(info.glob("*.md5sums")))

    @cached_property
    def _conffiles(self) -> bytes:
        status = self._root / "var/lib/dpkg/status"
        return status.read_bytes() if status.exists() else b""


def _names(path: str) -> tuple[bytes, ...]:
    """The path as packages may list it: relative, with a line end, and by its place before /usr was merged."""
    name = path.lstrip("/")
    first, _, rest = name.removeprefix("usr/").partition("/")
    old = [f"{first}/{rest}"] if name.startswith("usr/") and first in _MERGED else []
    return tuple(f"{each}\n".encode(errors="surrogateescape") for each in (name, *old))


def _compiled_from(path: str) -> str:
    """The Python source of which `path` is the compiled form: packages compile on installation. Or ""."""
    folder, _, name = path.rpartition("/__pycache__/")
    module, _, tag = name.partition(".cpython-")
    return f"{folder}/{module}.py" if folder and tag.endswith(".pyc") else ""
