"""The worker's processes: forks that act for it, tools that it starts, and waiting for either. Standard library only."""

# Without pathlib, whose imports would cost a good part of the start-up time.
# ruff: noqa: PTH123

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any


class WorkerError(Exception):
    """What could not be done, for the answer."""


def until(done: Callable[[], bool], seconds: float, problem: str) -> None:
    deadline = time.monotonic() + seconds
    pause = 0.0005
    while not done():
        if time.monotonic() > deadline:
            raise WorkerError(f"{problem} within {seconds:.0f} s")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)


def inside(root: str, act: Callable[[], Any]) -> Any:
    """What `act` gives back in a process whose root is the disk, where its links lead nowhere else."""

    def rooted() -> Any:
        os.chdir(root)
        os.chroot(".")
        return act()

    return apart(rooted)


def apart(act: Callable[[], Any]) -> Any:
    """What `act` gives back in a process of its own. Raises WorkerError with the reason where it cannot."""
    read, write = os.pipe()
    child = os.fork()
    if not child:

        def work() -> None:
            try:
                answer = {"value": act()}
            except OSError as error:
                answer = {"error": str(error)}
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            with os.fdopen(write, "w") as pipe:
                json.dump(answer, pipe)

        or_die(work)
    os.close(write)
    with os.fdopen(read) as pipe:
        answer = json.loads(pipe.read() or '{"error": "the helper process ended"}')
    os.waitpid(child, 0)
    if "error" in answer:
        raise WorkerError(answer["error"])
    return answer["value"]


def tail(path: str) -> str:
    return " ".join(read(path)[-400:].split())


def or_die(act: Callable[[], None]) -> None:
    try:
        act()
    finally:
        os._exit(0)


def spawn(argv: list[str], *, output: int = -1, given: int = -1) -> int:
    null = os.open(os.devnull, os.O_RDWR)
    try:
        streams = [(given if given >= 0 else null, 0), (output if output >= 0 else null, 1)]
        streams.append((streams[1][0], 2))
        actions = [(os.POSIX_SPAWN_DUP2, here, there) for here, there in streams]
        return os.posix_spawnp(argv[0], argv, os.environ, file_actions=actions)
    finally:
        os.close(null)


def read(path: str) -> str:
    with open(path) as file:
        return file.read()
