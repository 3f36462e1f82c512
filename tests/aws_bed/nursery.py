"""Where the bed's processes are started."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor

from ingot.system import process


class Nursery:
    """Starts processes from one thread that lives as long as the bed: a child dies with the thread that started it."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="nursery")

    def start(self, argv: list[str], output: int, pass_fds: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
        """A started process that writes both its streams to `output`."""
        spawn = process.spawn
        return self._thread.submit(spawn, argv, stdout=output, stderr=output, pass_fds=pass_fds).result()
