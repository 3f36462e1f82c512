"""A line of text with styles, as a value: drawn with ANSI codes on a terminal, as it is elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

Style = Literal["", "bold", "dim", "green", "red", "yellow", "cyan"]
Span = tuple[str, Style]
Line = tuple[Span, ...]

_CODES: dict[Style, str] = {
    "bold": "1", "dim": "2", "green": "32", "red": "31", "yellow": "33", "cyan": "36",
}  # fmt: skip


def text(line: Line) -> str:
    """The bare text, without what stands empty at its end."""
    return "".join(part for part, _ in line).rstrip()


def ansi(line: Line) -> str:
    """The text with ANSI codes for its styles."""
    return "".join(
        f"\x1b[{_CODES[style]}m{part}\x1b[0m" if style and part.strip() else part for part, style in line
    ).rstrip()


def draw(lines: Iterable[Line], *, colour: bool) -> str:
    """The lines as one text, each ended by a newline."""
    return "".join((ansi(line) if colour else text(line)) + "\n" for line in lines)


def width(line: Line) -> int:
    """How many columns the line takes."""
    return sum(len(part) for part, _ in line)


def cut(line: Line, columns: int) -> Line:
    """The line, shortened with `…` where it is wider than `columns`."""
    if width(line) <= columns:
        return line
    kept: list[Span] = []
    left = max(columns - 1, 0)
    for part, style in line:
        kept.append((part[:left], style))
        left -= len(part[:left])
    return (*kept, ("…", "dim"))
