"""The ends of files on a mounted disk, read with the disk as root: its links lead nowhere else.

Run by `disk_look` in the disk's namespaces, standard library only: `tails ROOT SIZE PATH…` prints JSON.
"""

# Without pathlib, whose imports would cost a good part of the start-up time.
# ruff: noqa: T201

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence


def main(words: Sequence[str]) -> int:
    """Prints the last bytes of each file that is there, as Latin-1, by path."""
    root, size, *paths = words
    os.chdir(root)
    os.chroot(".")
    found = {path: text for path in paths if (text := tail(path, int(size))) is not None}
    print(json.dumps(found))
    return 0


def tail(path: str, size: int) -> str | None:
    """The end of a file; None for what is no plain file."""
    try:
        # A pipe that somebody put there would be waited for.
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        about = os.fstat(file)
        if not stat.S_ISREG(about.st_mode):
            return None
        os.lseek(file, max(0, about.st_size - size), os.SEEK_SET)
        return os.read(file, size).decode("latin-1")
    finally:
        os.close(file)
