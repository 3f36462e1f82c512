"""The real file system as planning sees it (`ports.Tree`)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

_NOT_OURS = ".git"


class FileTree:
    """The project's folder, and behind it further roots for what the project itself does not have.

    A further root is a folder that holds `ansible_collections/`: Ingot's own, and the installed ones.
    """

    def __init__(self, project: Path, *roots: Path) -> None:
        self._roots = (project, *roots)

    def read(self, path: str) -> bytes | None:
        place = self._find(path)
        try:
            return place.read_bytes() if place else None
        except (IsADirectoryError, FileNotFoundError):
            return None

    def files(self, folder: str, *, deep: bool = True) -> Sequence[str]:
        place = self._find(folder)
        if place is None or not place.is_dir():
            return ()
        prefix = "" if folder in ("", ".") else folder.rstrip("/") + "/"
        return sorted(prefix + name for name in _walk(place, "", above=frozenset(), deep=deep))

    def mode(self, path: str) -> int:
        place = self._find(path)
        return stat.S_IMODE(place.stat().st_mode) if place else 0

    def listing(self, folder: str) -> Sequence[tuple[str, str, int]]:
        place = self._find(folder)
        return sorted(_list(place, "")) if place and place.is_dir() else ()

    def _find(self, path: str) -> Path | None:
        return next((place for place in self._candidates(path) if place.exists()), None)

    def _candidates(self, path: str) -> Iterator[Path]:
        if path.startswith("~"):
            yield Path(path).expanduser()
        elif path.startswith("/"):
            yield Path(path)
        else:
            yield from (root / path for root in self._roots)


def _walk(folder: Path, prefix: str, *, above: frozenset[tuple[int, int]], deep: bool) -> Iterator[str]:
    """Paths of all that is not a folder, dangling links too; `above` breaks circles of linked folders."""
    seen = folder.stat()
    here = (seen.st_dev, seen.st_ino)
    if here in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name == _NOT_OURS:
                continue
            if not entry.is_dir():
                yield prefix + entry.name
            elif deep:
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", above=above | {here}, deep=deep)


def _list(folder: Path, prefix: str) -> Iterator[tuple[str, str, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name == _NOT_OURS:
                continue
            name, bits = prefix + entry.name, stat.S_IMODE(entry.stat(follow_symlinks=False).st_mode)
            if entry.is_symlink():
                yield name, f"-> {Path(entry.path).readlink()}", 0
            elif entry.is_dir():
                yield name, "folder", bits
                yield from _list(Path(entry.path), f"{name}/")
            else:
                yield name, "file", bits
