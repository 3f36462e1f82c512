"""Downloaded files, kept by URL.

Below the cache's folder, by the SHA-256 of the URL: `<digest>.body` with the bytes, and `<digest>.json` with what
the origin said of them, which is written last and names the size: a file without it, or of another size, is not
there. What a process that was killed left unfinished bears that process's id and is cleared away by `prune`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ingot.model.units import Bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """A whole file of the cache, with the headers that tell whether the origin's has changed since."""

    path: Path
    size: Bytes
    headers: Mapping[str, str]


class DownloadCache:
    """The files below one folder. Safe for several processes and threads at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def find(self, url: str) -> Kept | None:
        """The whole file of this URL, or None. Finding it counts as use."""
        body, record = self._paths(url)
        try:
            said = json.loads(record.read_bytes())
            size = body.stat().st_size
        except (OSError, ValueError):
            return None
        if said.get("url") != url or said.get("size") != size:
            return None
        with contextlib.suppress(OSError):
            os.utime(body)
        return Kept(path=body, size=Bytes(size), headers=said["headers"])

    def unfinished(self, url: str) -> Path:
        """A name for a file on its way, that no other process or thread uses."""
        return self.folder / f"{_digest(url)}.{os.getpid()}.{threading.get_ident()}.part"

    def keep(self, url: str, part: Path, headers: Mapping[str, str]) -> None:
        """Makes a finished file the URL's. The caller made it durable: a record may get lost, its bytes may not."""
        body, record = self._paths(url)
        said = part.with_suffix(".said")
        said.write_text(json.dumps({"url": url, "size": part.stat().st_size, "headers": dict(headers)}))
        record.unlink(missing_ok=True)
        part.rename(body)
        said.rename(record)

    def forget(self, url: str) -> None:
        """Drops the file of this URL, for example because its content turned out to be wrong."""
        for path in reversed(self._paths(url)):
            path.unlink(missing_ok=True)

    def prune(self, maximum: Bytes) -> Bytes:
        """Drops what was used least lately until at most `maximum` bytes are kept; returns the bytes dropped."""
        dropped = sum(
            _drop(path)
            for kind in ("part", "said")
            for path in self.folder.glob(f"*.{kind}")
            if not _lives(path)
        )
        found = sorted(self._bodies())
        excess = sum(size for _, size, _ in found) - maximum
        for _, size, body in found:
            if excess <= 0:
                break
            body.with_suffix(".json").unlink(missing_ok=True)
            body.unlink(missing_ok=True)
            excess -= size
            dropped += size
        return Bytes(dropped)

    def _bodies(self) -> Iterator[tuple[float, int, Path]]:
        for body in self.folder.glob("*.body"):
            with contextlib.suppress(FileNotFoundError):
                found = body.stat()
                yield found.st_mtime, found.st_size, body

    def _paths(self, url: str) -> tuple[Path, Path]:
        return self.folder / f"{_digest(url)}.body", self.folder / f"{_digest(url)}.json"


def _digest(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()


def _lives(part: Path) -> bool:
    return Path(f"/proc/{part.name.split('.')[1]}").exists()


def _drop(path: Path) -> int:
    try:
        size = path.stat().st_size
        path.unlink()
    except FileNotFoundError:
        return 0
    return size
