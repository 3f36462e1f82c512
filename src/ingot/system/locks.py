"""File locks: one holder, or many leases. The kernel frees them when the process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ingot.model.units import Seconds
from ingot.ports import Cancel


@contextmanager
def lock(
    path: Path, *, cancel: Cancel | None = None, on_wait: Callable[[], None] | None = None
) -> Iterator[None]:
    """Holds `path` alone; waits for another holder (calling `on_wait` once), listening to `cancel`."""
    with _opened(path) as fd:
        waited = False
        while not _try(fd, fcntl.LOCK_EX):
            if on_wait and not waited:
                on_wait()
            waited = True
            if cancel:
                cancel.wait(Seconds(0.1))
                cancel.check()
            else:
                fcntl.flock(fd, fcntl.LOCK_EX)
                break
        yield


@contextmanager
def lease(path: Path) -> Iterator[None]:
    """Shares `path` with other leases; while one lives, `try_lock` gets nothing."""
    with _opened(path) as fd:
        fcntl.flock(fd, fcntl.LOCK_SH)
        yield


@contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """True while `path` is held alone; False at once where somebody else holds or leases it."""
    with _opened(path) as fd:
        yield _try(fd, fcntl.LOCK_EX)


def holder(path: Path) -> int | None:
    """The process that wrote its number into the lock's file and has the file open; None where there is none."""
    try:
        number = int(path.read_text())
        opened = list(Path(f"/proc/{number}/fd").iterdir())
    except (OSError, ValueError):
        return None
    return number if any(_leads_to(link, path) for link in opened) else None


def _leads_to(link: Path, path: Path) -> bool:
    try:
        return link.samefile(path)
    except OSError:  # closed meanwhile
        return False


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def _try(fd: int, how: int) -> bool:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
