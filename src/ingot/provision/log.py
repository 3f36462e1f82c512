"""The log of one step: every line of its output, whole, in the run's folder, and as events. Secrets are masked."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

from ingot.model.events import Emit, Output
from ingot.model.secret import Secret, scrubber

TAIL = 40
_NOT_A_NAME = re.compile(r"[^A-Za-z0-9._-]+")


def log_path(directory: Path, subject: str) -> Path:
    """Where the log of what is done for `subject` lies: `slurm-node-local-packages-htop.log`."""
    return directory / f"{_NOT_A_NAME.sub('-', subject).strip('-.')[:120] or 'step'}.log"


class StepLog:
    """An open log. `tail` holds the last lines, for the error."""

    def __init__(
        self, path: Path, file: IO[str], *, subject: str, emit: Emit, secrets: Mapping[str, Secret]
    ) -> None:
        self.path = path
        self.subject = subject
        self.emit = emit
        self.tail: deque[str] = deque(maxlen=TAIL)
        self._file = file
        self.mask = scrubber(secrets)
        """Replaces every secret's value by `***` in a text."""

    def line(self, stream: str, text: str) -> None:
        """Takes a line of output; the shape that `process.run` calls."""
        text = self.mask(text)
        self._file.write(text.encode(errors="backslashreplace").decode() + "\n")
        self._file.flush()
        self.tail.append(text)
        kind: Literal["stdout", "stderr"] = "stderr" if stream == "stderr" else "stdout"
        self.emit(Output(subject=self.subject, text=text, stream=kind))


@contextmanager
def open_log(
    directory: Path, *, subject: str, emit: Emit, secrets: Mapping[str, Secret]
) -> Iterator[StepLog]:
    """The log for `subject`, appended to: a step that is tried again adds to it."""
    path = log_path(directory, subject)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        yield StepLog(path, file, subject=subject, emit=emit, secrets=secrets)
