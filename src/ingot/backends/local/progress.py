"""How a boot goes on, as its console tells: what decides when waiting for it has no more point."""

from __future__ import annotations

import time
from pathlib import Path

from ingot.errors import DeadlineError
from ingot.forensics import console
from ingot.model.units import Seconds, format_seconds

PATIENCE = Seconds(120.0)
"""For so long a boot may say nothing new. In software emulation on a busy computer 50 s were seen."""

_MUCH = 2**18


class Watch:
    """Follows one console from now on.

    A boot that still says something new is given time up to `limit`; one that has started all that it starts is given
    up before `timeout`, once nothing new has come for long.
    """

    def __init__(
        self,
        path: Path,
        *,
        timeout: Seconds,
        limit: Seconds | None = None,
        patience: Seconds | None = None,
    ) -> None:
        self.path = path
        self.timeout = timeout
        self.limit = Seconds(max(limit or 3 * timeout, timeout))
        self.patience = Seconds(min(PATIENCE, timeout / 5) if patience is None else patience)
        self._started = self._moved = time.monotonic()
        self._size = -1
        self._news = 0
        self._told: set[str] = set()
        self._over = False
        self._amount = 0

    @property
    def seconds(self) -> Seconds:
        """For how long it is watched."""
        return Seconds(time.monotonic() - self._started)

    @property
    def idle(self) -> Seconds:
        """For how long it has said nothing new."""
        return Seconds(time.monotonic() - self._moved)

    def read(self) -> bytes:
        """All that was said until now."""
        return self.path.read_bytes() if self.path.exists() else b""

    def look(self) -> None:
        """Takes note of what is new. Raises DeadlineError when it was waited for long enough."""
        self._note()
        still = self.idle >= self.patience and (self._over or self.seconds >= self.timeout)
        if still or self.seconds >= self.limit:
            raise DeadlineError(
                f"the machine did not come up within {format_seconds(self.seconds)}",
                waited_for="the machine",
                seconds=self.seconds,
            )

    def moved(self, what: str = "") -> None:
        """Takes note of what else shows that the boot goes on; of the same thing once, of "" every time."""
        if not what or what not in self._told:
            self._moved = time.monotonic()
        self._told.add(what)

    def has_read(self, amount: int) -> None:
        """Takes note of what the machine has read from its disk: a boot loader says nothing while it does."""
        if abs(amount - self._amount) >= _MUCH:
            self._amount = amount
            self.moved()

    def _note(self) -> None:
        size = self.path.stat().st_size if self.path.exists() else 0
        if size == self._size:
            return
        self._size = size
        # A machine that starts once more says the same things again, and that is news.
        whole = console.plain(self.read())
        text = console.last_boot(whole)
        self._over = console.is_over(text)
        # A boot loader draws its menu, which on a busy builder takes a minute, and that is no line yet.
        news = console.count_news(text) if console.count_boots(whole) else size
        if news != self._news:
            self._news, self._moved = news, time.monotonic()
