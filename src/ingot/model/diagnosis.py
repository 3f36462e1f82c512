"""What was found where nothing had been made yet: one line each, before anything is spent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "bad", "skipped"]
"""`bad`: a build would fail. `warn`: it may, or does less than was meant. `skipped`: it was not looked at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """One finding: what was looked at, how it is, and what to do about it."""

    what: str
    """One or two words, such as `region`."""
    state: State
    message: str
    hint: str = ""
