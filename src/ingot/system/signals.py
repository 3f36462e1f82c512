"""Signals as a wish to stop: the work ends at its next look at the flag, and cleans up behind itself."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ingot.system.waits import Flag

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def cancellable() -> Iterator[Flag]:
    """A flag that Ctrl-C, SIGTERM and SIGHUP set. A second one only tells that cleanup goes on."""
    flag = Flag()
    asked = 0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked += 1
        flag.set(number)
        _say(
            "\nstopping: ending what runs and cleaning up\n"
            if asked == 1
            else "\nstill cleaning up; it ends by itself (a `kill -9` is safe too: the next build sweeps)\n"
        )

    before = {number: signal.signal(number, stop) for number in STOPPING}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(text: str) -> None:
    """Written past Python's buffers, which a handler may have interrupted; a closed stderr is nobody to tell."""
    try:
        os.write(2, text.encode())
    except OSError:
        return
