"""Asking a run to stop through its folder: for runs that no signal reaches, because they go on elsewhere.

Whoever asks leaves `cancel` in the run's folder, a JSON object of why; the run looks for it while it works.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from ingot import errors
from ingot.errors import CancelledError, IngotError
from ingot.model.units import Seconds
from ingot.ports import Cancel, Clock
from ingot.system.files import write_atomically

FILE = "cancel"
_EVERY = Seconds(1.0)


def ask(directory: Path, why: IngotError) -> None:
    """Asks the run of this folder to end as if `why` had been raised in it."""
    kind, signal = type(why).__name__, why.facts.get("signal", 0)
    about = {"kind": kind, "message": why.message, "hint": why.hint, "signal": signal}
    write_atomically(directory / FILE, json.dumps(about))


def asked(directory: Path) -> IngotError | None:
    """Why the run of this folder was asked to stop; None where nobody asked."""
    try:
        about = json.loads((directory / FILE).read_text())
    except FileNotFoundError:
        return None
    kind = getattr(errors, str(about["kind"]), CancelledError)
    facts = {"signal": about["signal"]} if about["signal"] else {}
    error: IngotError = kind(str(about["message"]), hint=str(about["hint"]), **facts)
    return error


class Asked:
    """A cancel flag that also looks, once a second, for a reason to stop. For several threads."""

    def __init__(self, cancel: Cancel, *, clock: Clock, why: Callable[[], IngotError | None]) -> None:
        self._cancel = cancel
        self._clock = clock
        self._why = why
        self._looked = -_EVERY
        self._found: IngotError | None = None

    def check(self) -> None:
        self._cancel.check()
        if error := self._look():
            raise type(error)(error.message, hint=error.hint, **error.facts)

    def wait(self, duration: Seconds) -> bool:
        until = self._clock.monotonic() + duration
        while not self._look():
            left = until - self._clock.monotonic()
            if self._cancel.wait(Seconds(max(min(left, _EVERY), 0.0))):
                return True
            if left <= _EVERY:
                return self._look() is not None
        return True

    def _look(self) -> IngotError | None:
        now = self._clock.monotonic()
        if self._found is None and now - self._looked >= _EVERY:
            self._looked = now
            self._found = self._why()
        return self._found
