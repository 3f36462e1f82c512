"""A run: one execution of a verb, with an id, a folder, a journal, its events on disk, and a lock while it lives."""

from __future__ import annotations

import json
import os
import secrets as randomness
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import fields, replace
from itertools import count, takewhile
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ingot.engine.journal import Journal
from ingot.engine.resources import exit_code
from ingot.errors import RefusedError
from ingot.model.events import Emit, Event, RunFinished, RunStarted, as_json
from ingot.model.secret import Secret, scrubber
from ingot.ports import Clock
from ingot.system.locks import try_lock
from ingot.system.waits import WallClock

LOCK, EVENTS = "lock", "events.jsonl"


class Run:
    """Use as a context manager. `emit` may be called from any thread.

    Its id is one that nobody has, or `name`: a second run of that name is `<name>-r2`.

    Its folder is `<runs>/<id>/`: `lock` (held while it lives), `events.jsonl`, `journal.jsonl` (from the first
    temporary thing on), and whatever logs and keys backends and provisioners put there.
    """

    def __init__(
        self,
        runs: Path,
        *,
        verb: str,
        plans: Sequence[str] = (),
        sinks: Sequence[Emit] = (),
        secrets: Mapping[str, Secret] | None = None,
        clock: Clock | None = None,
        name: str = "",
    ) -> None:
        self.clock: Clock = clock or WallClock()
        self.id, self.directory = _claim(runs, self.clock, name)
        self.journal = Journal(self.directory, run=self.id, clock=self.clock)
        self.exit_code = 0
        """What RunFinished says when no exception leaves the block."""
        self._started = RunStarted(run=self.id, verb=verb, plans=tuple(plans))
        self._sinks = list(sinks)
        self.scrub = scrubber(secrets or {})
        """Replaces the values of secrets by `***` in a text."""
        self._clean = Scrubber(self.scrub)
        self._speaking = threading.Lock()
        self._open = ExitStack()
        self._began = 0.0

    def listen(self, sink: Emit) -> None:
        """Lets one more sink hear what comes."""
        self._sinks.append(sink)

    def emit(self, event: Event) -> None:
        """Stamps the event, blanks out secrets, and gives it to the run's file and every sink.

        A sink that cannot be written to (a closed pipe, a full disk) hears no more: what is told must never keep
        what is done, cleaning up above all, from going on.
        """
        event = self._clean(replace(event, at=self.clock.now().timestamp()))
        with self._speaking:
            for sink in tuple(self._sinks):
                try:
                    sink(event)
                except OSError:
                    self._sinks.remove(sink)

    def __enter__(self) -> Run:
        if not self._open.enter_context(try_lock(self.directory / LOCK)):
            raise RefusedError(f"run {self.id} is somebody else's", hint="start it again")
        (self.directory / LOCK).write_text(f"{os.getpid()}\n")  # for `ingot cancel`
        events = self._open.enter_context((self.directory / EVENTS).open("a", encoding="utf-8"))
        self._sinks.insert(0, _written(events))
        self._began = self.clock.monotonic()
        self.emit(self._started)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = self.clock.monotonic() - self._began
        try:
            code = exit_code(error) or self.exit_code
            self.emit(RunFinished(run=self.id, seconds=seconds, exit_code=code))
            self.journal.close()
        finally:
            self._sinks.clear()
            with suppress(OSError):  # what a full disk did not take before, it does not take now
                self._open.close()


def _written(file: IO[str]) -> Emit:
    """A sink that writes a line for each event, there for others to read at once."""

    def write(event: Event) -> None:
        file.write(json.dumps(as_json(event), ensure_ascii=False) + "\n")
        file.flush()

    return write


class Scrubber:
    """Replaces the values of secrets by `***` in every text of an event: the last net, behind `Secret`."""

    def __init__(self, scrub: Callable[[str], str]) -> None:
        self._scrub = scrub

    def __call__(self, event: Event) -> Event:
        changed: dict[str, Any] = {}
        for field in fields(event):
            value = getattr(event, field.name)
            scrubbed = self._clean(value)
            if scrubbed != value:
                changed[field.name] = scrubbed
        return replace(event, **changed)

    def _clean(self, value: object) -> object:
        if isinstance(value, str):
            return self._scrub(value)
        if isinstance(value, tuple):
            return tuple(self._clean(item) for item in value)
        return value


def first_run(name: str) -> str:
    """The run that began this one: `<run>` of its job `<run>-j1` and of that one's second attempt; itself otherwise."""
    return "-".join(name.split("-")[:3])


def attempts(runs: Path, name: str) -> tuple[Path, ...]:
    """The folders of the runs of this name, the first one first: `<name>`, `<name>-r2`, …"""
    return tuple(takewhile(Path.is_dir, (runs / one for one in _in_turn(name))))


def _claim(runs: Path, clock: Clock, wanted: str) -> tuple[str, Path]:
    """An id that nobody has, `20261121-103045-ab12` (UTC) or one of the wanted name, and its new folder."""
    runs.mkdir(parents=True, exist_ok=True)
    for name in _in_turn(wanted) if wanted else _at_random(clock):
        with suppress(FileExistsError):
            (runs / name).mkdir(mode=0o700)
            return name, runs / name
    raise AssertionError("there is always another name")


def _in_turn(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}-r{number}" for number in count(2))


def _at_random(clock: Clock) -> Iterator[str]:
    while True:
        yield f"{clock.now():%Y%m%d-%H%M%S}-{randomness.token_hex(2)}"
