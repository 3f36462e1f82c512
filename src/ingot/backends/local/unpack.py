"""Packages unpacked ahead of time on all processors, into the tar files that dpkg will ask for."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue

from ingot.system import process
from ingot.system.process import ToolError

_LARGE = 16 * 2**20


@contextmanager
def unpacking(packages: Sequence[Path], folder: Path) -> Iterator[None]:
    """While inside, each package's content becomes `<name>.tar` in `folder`, those first in line first.

    `<name>.tar.coming` stands there until then; where unpacking fails it goes away too, and who waits for it takes
    the package itself.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # A package that takes one processor seconds begins at once, so that it is ready when its turn comes.
    large = [path for path in packages if path.stat().st_size > _LARGE]
    waiting: SimpleQueue[Path] = SimpleQueue()
    for path in [*large, *(path for path in packages if path not in large)]:
        (folder / f"{path.name}.tar.coming").touch()
        waiting.put(path)
    stop = threading.Event()
    threads = [
        threading.Thread(target=_work, args=(waiting, folder, stop), daemon=True)
        for _ in range(max(2, os.cpu_count() or 1))
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _work(waiting: SimpleQueue[Path], folder: Path, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            package = waiting.get_nowait()
        except Empty:
            return
        _unpack(package, folder)


def _unpack(package: Path, folder: Path) -> None:
    coming = folder / f"{package.name}.tar.coming"
    try:
        with coming.open("wb") as file:
            child = process.spawn(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=file)
            code = child.wait()
    except (OSError, ToolError):
        code = 1
    if code == 0:
        coming.rename(coming.with_suffix(""))
    else:
        coming.unlink(missing_ok=True)
