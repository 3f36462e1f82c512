"""What kind of screen the program writes to, decided from the environment alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Screen:
    """`live` screens may be redrawn; `columns` is a terminal's width, 0 where nothing needs to be cut."""

    live: bool = False
    colour: bool = False
    columns: int = 0


def choose(*, terminal: bool, columns: int, environment: Mapping[str, str]) -> Screen:
    """Live and coloured on a terminal, plain lines elsewhere. Honours NO_COLOR, CI and TERM=dumb."""
    dumb = environment.get("TERM", "") == "dumb"
    robot = environment.get("CI", "").lower() not in ("", "0", "false")
    bare = bool(environment.get("NO_COLOR"))
    return Screen(
        live=terminal and not dumb and not robot,
        colour=terminal and not dumb and not bare,
        columns=max(columns, 40) if terminal else 0,
    )
