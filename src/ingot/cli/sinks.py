"""Readers of events that touch the world: a live terminal, plain lines, a file of JSON lines."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ingot.cli.render import plain, steady
from ingot.cli.render.line import Line, draw
from ingot.cli.render.progress import Now, fold
from ingot.cli.render.screen import Screen
from ingot.errors import UsageError
from ingot.model.events import Emit, Event, LayerStarted, Progress, Waiting, as_json

if TYPE_CHECKING:
    from rich.live import Live


class Lines:
    """Plain lines, one after another."""

    def __init__(self, stream: IO[str], *, verbose: int) -> None:
        self._stream = stream
        self._verbose = verbose
        self._now = Now()

    def __call__(self, event: Event) -> None:
        said = plain.lines(self._now, event, verbose=self._verbose)
        self._now = fold(self._now, event)
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
        self._now = Now()
        self._live: Live | None = None

    def __call__(self, event: Event) -> None:
        said = steady.lines(self._now, event, verbose=self._verbose)
        self._now = fold(self._now, event)
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

        drawn = steady.current(self._now, time.time(), columns=self._screen.columns)
        return Text.from_ansi(draw(drawn, colour=self._screen.colour).rstrip("\n"), no_wrap=True)


class Quiet:
    """Only warnings, in plain words: for verbs that are over before anyone could wonder."""

    def __init__(self, stream: IO[str], *, screen: Screen) -> None:
        self._stream = stream
        self._screen = screen

    def __call__(self, event: Event) -> None:
        from ingot.model.events import Warned

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
