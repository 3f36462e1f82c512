"""Screens: a case is a file of events; each way to draw it has its golden file beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingot.cli.render import steady
from ingot.cli.render.line import Line, draw, text, width
from ingot.cli.render.screen import choose
from ingot.model.events import Event, LayerStarted, as_json
from ingot.telling import replay
from ingot.telling.progress import Now, fold

from .golden import DATA, compare

CASES = sorted((DATA / "screens").glob("*.jsonl"))
LEVELS = [0, 1, 2]


def events_of(case: Path) -> list[Event]:
    return list(replay.read(case.read_text().splitlines()))


def test_there_are_cases() -> None:
    assert [case.stem for case in CASES] == ["build", "failed", "reused"]


@pytest.mark.parametrize("verbose", LEVELS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_plain_lines(case: Path, verbose: int) -> None:
    said = "".join(f"{line}\n" for line in replay.draw(events_of(case), verbose=verbose))
    compare(said, case.with_suffix(f".plain{verbose or ''}.txt"))


@pytest.mark.parametrize("verbose", LEVELS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_lines_that_stay_on_a_live_screen(case: Path, verbose: int) -> None:
    now, said = Now(), ""
    for event in events_of(case):
        said += draw(steady.lines(now, event, verbose=verbose), colour=False)
        now = fold(now, event)
    compare(said, case.with_suffix(f".live{verbose or ''}.txt"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_what_moves_after_each_event(case: Path) -> None:
    now, frames = Now(), ""
    for event in events_of(case):
        now = fold(now, event)
        moving = steady.current(now, event.at + 0.3, columns=76)
        frames += f"-- {type(event).__name__}\n{draw(moving, colour=False)}"
    compare(frames, case.with_suffix(".moving.txt"))


def test_colour_is_around_text_and_never_around_blanks() -> None:
    line: Line = (("  ", "red"), ("bad", "red"), (" ", ""))
    assert draw([line], colour=True) == "  \x1b[31mbad\x1b[0m\n"
    assert draw([line], colour=False) == "  bad\n"


def test_foreign_output_cannot_move_the_cursor() -> None:
    said = [text for event in events_of(CASES[0]) for text in replay.draw([event], verbose=2)]
    assert any("slurmd" in line for line in said)
    assert not any(sign < " " for line in said for sign in line)


def test_moving_lines_fit_the_screen() -> None:
    now = fold(Now(), LayerStarted(subject="a/b", layer="x" * 200, index=0, at=1.0))
    drawn = steady.current(now, 2.0, columns=40)
    assert [width(line) for line in drawn] == [40]
    assert text(drawn[0]).endswith("…")


def test_events_survive_their_json_lines() -> None:
    import json

    recorded = [line for case in CASES for line in case.read_text().splitlines()]
    again = [as_json(event) for case in CASES for event in events_of(case)]
    assert len(again) == len(recorded)
    for line, data in zip(recorded, again, strict=True):
        assert json.loads(line).items() <= data.items()


def test_a_torn_line_and_an_unknown_kind_are_passed_over() -> None:
    lines = ['{"event": "Warned", "message": "m"}', '{"event": "FromTheFuture"}', '{"event": "Warn']
    assert [type(event).__name__ for event in replay.read(lines)] == ["Warned"]


@pytest.mark.parametrize(
    ("terminal", "environment", "live", "colour"),
    [
        (True, {"TERM": "xterm"}, True, True),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, True, False),
        (True, {"TERM": "xterm", "NO_COLOR": ""}, True, True),
        (True, {"TERM": "xterm", "CI": "true"}, False, True),
        (True, {"TERM": "xterm", "CI": "false"}, True, True),
        (True, {"TERM": "dumb"}, False, False),
        (False, {"TERM": "xterm"}, False, False),
    ],
)
def test_the_screen_is_chosen_by_where_we_write(
    terminal: bool, environment: dict[str, str], live: bool, colour: bool
) -> None:
    screen = choose(terminal=terminal, columns=80, environment=environment)
    assert (screen.live, screen.colour) == (live, colour)
    assert screen.columns == (80 if terminal else 0)
