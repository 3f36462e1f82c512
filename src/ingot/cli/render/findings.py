"""What `doctor` found, as lines. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ingot.cli.render.line import Line, Span

if TYPE_CHECKING:  # only named here: making these classes takes longer than drawing them
    from ingot.model.diagnosis import Diagnosis, State
    from ingot.model.views import Examined

_SIGNS: Mapping[State, Span] = {
    "ok": ("  ✓ ", "green"),
    "warn": ("  ! ", "yellow"),
    "bad": ("  ✗ ", "red"),
    "skipped": ("  - ", "dim"),
}


def examined(values: Sequence[Examined]) -> tuple[Line, ...]:
    """A line for each finding, below it what to do; at the end what it comes to."""
    lines: list[Line] = []
    for value in values:
        place = " ".join(
            word for word in dict.fromkeys((value.backend, value.location)) if word != value.target
        )
        lines.append(((value.target, "bold"), (f"  {place}" if place else "", "dim")))
        wide = max((len(one.what) for one in value.findings), default=0)
        for one in value.findings:
            lines += _finding(one, wide)
        if value.policy is not None:
            line = f"`ingot doctor --on {value.target} --policy` prints what its credentials must allow"
            lines.append((("    ", ""), (line, "dim")))
        lines.append((("", ""),))
    return (*lines, _sum(values))


def _finding(one: Diagnosis, wide: int) -> list[Line]:
    calm = one.state in ("ok", "skipped")
    head: Line = (_SIGNS[one.state], (f"{one.what:<{wide}}  ", "dim" if calm else ""), (one.message, ""))
    if not one.hint:
        return [head]
    return [head, ((" " * (wide + 6), ""), ("hint: ", "cyan"), (one.hint, ""))]


def _sum(values: Sequence[Examined]) -> Line:
    states = [one.state for value in values for one in value.findings]
    bad, warned = states.count("bad"), states.count("warn")
    doubts = f"{warned} to think about" if warned else ""
    if bad:
        return (
            ("a build would fail", "red"),
            (f": {bad} of {len(states)} findings are bad", ""),
            (f"; {doubts}" if doubts else "", ""),
        )
    return (("nothing stands in the way", "green"), (f"; {doubts}" if doubts else "", ""))
