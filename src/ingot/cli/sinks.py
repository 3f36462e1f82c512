"""Readers of events that touch the world: a live terminal, plain lines, a file of JSON lines."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ingot.cli.render import steady
from ingot.cli.render.line import Line, draw
from ingot.cli.render.screen import Screen
from ingot.cli.render.steady import Counts
from ingot.errors import UsageError
from ingot.model.events import (
    BuildFinished,
    BuildStarted,
    Emit,
    Event,
    LayerStarted,
    Progress,
    RunFinished,
    RunStarted,
    Waiting,
    Warned,
    as_json,
)
from ingot.telling import plain
from ingot.telling.progress import Now, fold, plan_of

if TYPE_CHECKING:
    from rich.live import Live


class States:
    """What each plan of a run is doing now; there are several where images are built side by side."""

    def __init__(self) -> None:
        self._all: dict[str, Now] = {}
        self._started = 0.0
        self._plans: tuple[str, ...] = ()
        self._ended: dict[str, bool] = {}
        self.side_by_side = False
        """Whether several plans were building at the same time in this run."""

    def before(self, event: Event) -> Now:
        """The state that the event changes."""
        self._started = self._started or event.at
        return self._all.get(self._key(event), Now(started=self._started))

    def hear(self, event: Event) -> None:
        """Changes it. What was of no plan (planning, say) is over when a plan speaks."""
        key = self._key(event)
        now = fold(self.before(event), event)
        if key:
            self._all.pop("", None)
        match event:
            case RunStarted():
                self._plans = event.plans
            case BuildFinished():
                self._ended[key] = event.status == "failed"
            case RunFinished():
                self._all.clear()
                self.side_by_side = False
        self._all[key] = now
        self.side_by_side = self.side_by_side or self.several

    @property
    def busy(self) -> tuple[Now, ...]:
        """Those in which something runs, in the order in which they began."""
        return tuple(now for now in self._all.values() if now.layer or now.doing)

    @property
    def running(self) -> tuple[Now, ...]:
        """Those that have begun and not ended, each with its name; one that is checked after it was built, too."""
        going = ((key, now) for key, now in self._all.items() if now.plan or now.layer or now.doing)
        return tuple(replace(now, plan=now.plan or key) for key, now in going)

    @property
    def counts(self) -> Counts:
        """How many plans build, wait, and came to their end."""
        building = sum(bool(now.plan) for now in self._all.values())
        failed = sum(self._ended.values())
        waiting = max(len(self._plans) - len(self._ended) - building, 0)
        return Counts(running=building, waiting=waiting, done=len(self._ended) - failed, failed=failed)

    @property
    def several(self) -> bool:
        """Whether more than one plan is being built."""
        return sum(bool(now.plan) for now in self._all.values()) > 1

    def _key(self, event: Event) -> str:
        plan = plan_of(event.subject)
        # What is told of no plan while one alone is built belongs to that one.
        alone = [key for key, now in self._all.items() if now.plan]
        return alone[0] if not plan and len(alone) == 1 else plan


class Lines:
    """Plain lines, one after another."""

    def __init__(self, stream: IO[str], *, verbose: int) -> None:
        self._stream = stream
        self._verbose = verbose
        self._states = States()

    def __call__(self, event: Event) -> None:
        said = plain.lines(self._states.before(event), event, verbose=self._verbose)
        self._states.hear(event)
        if said:
            _write(self._stream, "".join(f"{text}\n" for text in said))

    def close(self) -> None:
        """Nothing stays behind."""


class Redrawn:
    """A live terminal: lines that stay, and below them what runs now.

    rich is imported when something first takes time: a build with nothing to do ends before.
    """

    def __init__(self, stream: IO[str], *, verbose: int, screen: Screen) -> None:
        self._stream = stream
        self._verbose = verbose
        self._screen = screen
        self._states = States()
        self._live: Live | None = None

    def __call__(self, event: Event) -> None:
        said = steady.lines(self._states.before(event), event, verbose=self._verbose)
        if self._states.several and not isinstance(event, (BuildStarted, BuildFinished, Warned)):
            said = tuple(((f"{plan_of(event.subject)} ", "dim"), *line) for line in said)
        self._states.hear(event)
        if self._live is None and isinstance(event, (LayerStarted, Waiting, Progress)):
            self._live = self._start()
        if said:
            self._print(said)

    def close(self) -> None:
        """Takes the moving part off the screen."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _print(self, said: tuple[Line, ...]) -> None:
        drawn = draw(said, colour=self._screen.colour)
        if self._live is None:
            _write(self._stream, drawn)
        else:
            from rich.text import Text

            self._live.console.print(Text.from_ansi(drawn.rstrip("\n")), soft_wrap=True, highlight=False)

    def _start(self) -> Live:
        from rich.console import Console
        from rich.live import Live

        console = Console(
            file=self._stream, force_terminal=True, no_color=not self._screen.colour, highlight=False
        )
        live = Live(console=console, get_renderable=self._moving, transient=True, refresh_per_second=8)
        live.start()
        return live

    def _moving(self) -> Any:
        from rich.text import Text

        states, at = self._states, time.time()
        rows = self._live.console.size.height if self._live else 0
        drawn = moving(states, at, columns=self._screen.columns, rows=rows)
        return Text.from_ansi(draw(drawn, colour=self._screen.colour).rstrip("\n"), no_wrap=True)


def moving(states: States, at: float, *, columns: int, rows: int) -> tuple[Line, ...]:
    """What runs now: the one plan, or a table of all that build side by side, no higher than the screen."""
    if states.side_by_side:
        return steady.table(states.running, states.counts, at, columns=columns, rows=rows)
    return tuple(line for now in states.busy for line in steady.current(now, at, columns=columns))


class Quiet:
    """Only warnings, in plain words: for verbs that are over before anyone could wonder."""

    def __init__(self, stream: IO[str], *, screen: Screen) -> None:
        self._stream = stream
        self._screen = screen

    def __call__(self, event: Event) -> None:
        if isinstance(event, Warned):
            _write(self._stream, draw(steady.warning(event), colour=self._screen.colour))

    def close(self) -> None:
        """Nothing stays behind."""


@contextmanager
def file_of_events(path: str) -> Iterator[Emit]:
    """Appends each event to the file as one line of JSON. Raises UsageError where it cannot be written."""
    try:
        stream = Path(path).open("a", buffering=1)  # noqa: SIM115 - closed below, where its errors are not ours
    except OSError as error:
        raise UsageError(
            f"the events file {path!r} cannot be written: {error.strerror}",
            hint="name a file in a folder that exists",
        ) from error
    with stream:
        yield lambda event: _write(stream, json.dumps(as_json(event)) + "\n")


@contextmanager
def listening(
    reader: Lines | Redrawn | Quiet, *, events: str, clock: Callable[[], float] = time.time
) -> Iterator[Emit]:
    """What to give the core as `emit`: the reader and the file of events both hear each event, with its time."""
    with ExitStack() as stack:
        sinks: list[Emit] = [reader]
        stack.callback(reader.close)
        if events:
            sinks.append(stack.enter_context(file_of_events(events)))

        def emit(event: Event) -> None:
            stamped = event if event.at else replace(event, at=clock())
            for sink in sinks:
                sink(stamped)

        yield emit


def _write(stream: IO[str], text: str) -> None:
    """Writes and flushes; a reader who has gone away does not end a build."""
    try:
        stream.write(text)
        stream.flush()
    except (BrokenPipeError, ValueError):
        return
