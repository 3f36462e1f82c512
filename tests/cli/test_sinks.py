"""What the readers of events make of several images that are built side by side."""

from __future__ import annotations

import io

import pytest

from ingot.cli.render.line import draw, width
from ingot.cli.sinks import Lines, States, moving
from ingot.model.events import (
    BuildFinished,
    BuildStarted,
    Event,
    LayerStarted,
    Progress,
    RunFinished,
    TaskFinished,
)
from ingot.telling import replay

from .golden import DATA, compare

EVENTS: tuple[Event, ...] = (
    BuildStarted(subject="one/local", at=1.0, layers=("base", "munge"), reused=1),
    BuildStarted(subject="two/local", at=2.0, layers=("base", "chrony"), reused=1),
    LayerStarted(subject="one/local", at=3.0, layer="munge", index=1),
    LayerStarted(subject="two/local", at=4.0, layer="chrony", index=1),
    TaskFinished(subject="one/local/roles", at=5.0, task="Install munge", outcome="changed", seconds=1.0),
)


TABLE = DATA / "tables" / "matrix.jsonl"


def drawn(states: States, at: float) -> str:
    return draw(moving(states, at, columns=80, rows=24), colour=False)


@pytest.mark.parametrize("rows", [24, 10, 6, 1])
def test_a_table_of_many_builds_stays_within_the_screen(rows: int) -> None:
    states, frames = States(), ""
    for event in replay.read(TABLE.read_text().splitlines()):
        states.hear(event)
        lines = moving(states, event.at + 0.3, columns=76, rows=rows)
        assert len(lines) <= max(rows - 2, 3)
        assert all(width(line) <= 76 for line in lines)
        frames += f"-- {type(event).__name__} {event.subject}\n{draw(lines, colour=False)}"
    compare(frames, TABLE.with_suffix(f".{rows}.txt"))


def test_each_plan_has_a_state_of_its_own() -> None:
    states = States()
    for event in EVENTS:
        states.hear(event)
    both = drawn(states, 6.0)
    one, two = both.index("one/local"), both.index("two/local")
    assert one < both.index("munge") < both.index("Install munge") < two < both.index("chrony")
    states.hear(BuildFinished(subject="one/local", at=7.0, status="built", seconds=6.0))
    assert "one/local" not in drawn(states, 8.0) and "chrony" in drawn(states, 8.0)
    states.hear(RunFinished(run="r", at=9.0, seconds=8.0, exit_code=0))
    assert drawn(states, 9.0) == ""


def test_what_is_told_of_no_plan_belongs_to_the_only_one() -> None:
    states = States()
    states.hear(Progress(what="looking at what requirements.yml asks for", done=0, at=0.5))
    assert "requirements.yml" in drawn(states, 0.6)
    states.hear(EVENTS[0])
    assert "requirements.yml" not in drawn(states, 1.0)
    states.hear(EVENTS[2])
    states.hear(Progress(what="downloading", done=5, at=3.5))
    assert "munge" in drawn(states, 4.0) and "downloading" in drawn(states, 4.0)


def test_plain_lines_name_their_plan() -> None:
    stream = io.StringIO()
    reader = Lines(stream, verbose=1)
    for event in EVENTS:
        reader(event)
    assert stream.getvalue().splitlines()[2:] == [
        "==> one/local: [2.0s] layer 2/2 munge",
        "==> two/local: [3.0s] layer 2/2 chrony",
        "==> one/local: [4.0s] changed Install munge (1.0s)",
    ]
