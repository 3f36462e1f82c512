"""Events read back from their JSON lines, so that a run that is over draws the screen that it drew. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any

from ingot.model.events import Event
from ingot.telling import plain
from ingot.telling.progress import Now, fold

_KINDS: dict[str, type[Event]] = {kind.__name__: kind for kind in Event.__subclasses__()}


def read(lines: Iterable[str]) -> Iterator[Event]:
    """The events of JSON lines. A torn last line and kinds that this version does not know are passed over."""
    for line in lines:
        event = _event(line)
        if event is not None:
            yield event


def draw(recorded: Iterable[Event], *, verbose: int) -> Iterator[str]:
    """The plain lines of the events, one by one."""
    now = Now()
    for event in recorded:
        yield from plain.lines(now, event, verbose=verbose)
        now = fold(now, event)


def _event(line: str) -> Event | None:
    try:
        data = json.loads(line)
        kind = _KINDS[data.pop("event")]
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
    known = {field.name for field in fields(kind)}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in data.items()
        if name in known
    }
    try:
        return kind(**values)
    except TypeError:
        return None
