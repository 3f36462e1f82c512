"""A log for each of several builds: the plain lines that tell of it alone, in the run's folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ingot.model.events import Event
from ingot.telling.plain import lines
from ingot.telling.progress import Now, fold, plan_of


def log_of(directory: Path, subject: str) -> Path:
    """The log of `image/target` in a run's folder."""
    return directory / f"{subject.replace('/', '-')}.log"


class Logs:
    """A sink of events: what is about one of the plans goes into its log, all output too."""

    def __init__(self, directory: Path, subjects: Iterable[str]) -> None:
        self._paths = {subject: log_of(directory, subject) for subject in subjects}
        self._now: dict[str, Now] = {}

    def __call__(self, event: Event) -> None:
        subject = plan_of(event.subject)
        path = self._paths.get(subject)
        if path is None:
            return
        now = self._now.get(subject, Now(started=event.at))
        said = lines(now, event, verbose=2)
        self._now[subject] = fold(now, event)
        if said:
            with path.open("a", encoding="utf-8", errors="replace") as log:
                log.writelines(f"{text}\n" for text in said)
