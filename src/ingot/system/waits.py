"""The one place that waits, and the clock and cancel flag of a real run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from ingot.errors import CancelledError, DeadlineError, TransientError
from ingot.model.events import Emit, Waiting, ignore
from ingot.model.units import Seconds, format_seconds
from ingot.ports import Cancel, Clock

T = TypeVar("T")


class WallClock:
    """The real clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> Seconds:
        return Seconds(time.monotonic())

    def sleep(self, duration: Seconds) -> None:
        time.sleep(duration)


class Flag:
    """A cancel flag that signal handlers or other threads set."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._signal = 2

    def set(self, signal: int = 2) -> None:
        self._signal = signal
        self._event.set()

    def check(self) -> None:
        if self._event.is_set():
            raise CancelledError("stopped on request", hint="finished layers are kept", signal=self._signal)

    def wait(self, duration: Seconds) -> bool:
        return self._event.wait(duration)


def poll(
    probe: Callable[[], T | None],
    *,
    what: str,
    every: Seconds,
    deadline: Seconds,
    cancel: Cancel,
    clock: Clock | None = None,
    emit: Emit = ignore,
    subject: str = "",
) -> T:
    """The first answer of `probe` that is not None. A TransientError counts as "not yet" and is remembered.

    `deadline` is a number of seconds from now. Raises DeadlineError, naming the last transient cause.
    """
    clock = clock or WallClock()
    started = clock.monotonic()
    cause: Exception | None = None
    while True:
        cancel.check()
        try:
            answer = probe()
        except TransientError as error:
            answer, cause = None, error
        if answer is not None:
            return answer
        waited = Seconds(clock.monotonic() - started)
        if waited >= deadline:
            raise DeadlineError(
                f"{what} did not happen within {format_seconds(deadline)}"
                + (f"; the last answer was: {cause}" if cause else ""),
                waited_for=what,
                seconds=waited,
            ) from cause
        emit(Waiting(subject=subject, what=what, seconds=waited, deadline=deadline))
        if isinstance(clock, WallClock):
            cancel.wait(every)
        else:
            clock.sleep(every)
