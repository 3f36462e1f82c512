"""What Ansible told of itself, as events while it runs and as one error when it failed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingot.errors import ProvisionError
from ingot.model.events import TaskFinished, Warned
from ingot.provision.log import StepLog

_ERROR = re.compile(r"^(?:\[ERROR\]:|ERROR!)\s*(.*)")
_ORIGIN = re.compile(r"^Origin: (.+?):(\d+)(?::\d+)?$")


@dataclass(kw_only=True, slots=True)
class Listener:
    """Hears Ansible's output line by line: records become events, the rest is output. Collects what an error needs."""

    mark: str
    root: Path
    log: StepLog
    plays: int = 0
    unmatched: int = 0
    failure: Mapping[str, Any] | None = None
    engine: str = ""
    read: set[Path] = field(default_factory=set)
    error: str = ""
    origin: tuple[str, int] = ("", 0)

    def hear(self, stream: str, text: str) -> None:
        """The shape that `process.run` calls."""
        before, mark, record = text.partition(self.mark)
        if mark:
            if before:
                self.log.line(stream, before)
            self._take(json.loads(record))
            return
        self.log.line(stream, text)
        if stream == "stderr":
            self._take_error(text)

    def _take(self, record: Mapping[str, Any]) -> None:
        match record["kind"]:
            case "task":
                self._take_task(record)
            case "read":
                self.read.add(Path(record["path"]))
            case "play":
                self.plays += 1
            case "no-hosts":
                self.unmatched += 1
            case "engine":
                self.engine = record["engine"]
            case "no-mitogen":
                self.log.emit(
                    Warned(
                        subject=self.log.subject,
                        message=f"mitogen did not start, so plain Ansible does the work: {record['reason']}",
                        hint="it takes about six times as long per task; `engine: ansible` chooses it without this warning",
                    )
                )

    def _take_task(self, record: Mapping[str, Any]) -> None:
        if record["outcome"] in ("failed", "unreachable"):
            self.failure = record
        self.log.emit(
            TaskFinished(
                subject=self.log.subject,
                task=self.log.mask(record["task"]),
                outcome=record["outcome"],
                seconds=record["seconds"],
                role=record["role"],
                file=self.place(record["file"]),
                line=record["line"],
                message=self.log.mask(record["message"]),
            )
        )

    def _take_error(self, text: str) -> None:
        if found := _ERROR.match(text):
            self.error = self.error or found[1]
        elif (found := _ORIGIN.match(text)) and self.error and not self.origin[0]:
            self.origin = (self.place(found[1]), int(found[2]))

    def place(self, file: str) -> str:
        """A file's path, relative to the project where it lies in it."""
        path = Path(file)
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else file

    def explain(self, what: str, *, code: int) -> ProvisionError:
        """The error that a play's failure is; `what` names the step."""
        if self.failure:
            task, role = self.log.mask(self.failure["task"]), self.failure["role"]
            message = self.log.mask(self.failure["message"])
            lost = "the machine was lost: " if self.failure["outcome"] == "unreachable" else ""
            name = f"{role} : {task}" if role else task
            tail = tuple(self.log.mask(line) for line in self.failure["tail"]) or tuple(self.log.tail)
            return ProvisionError(
                f"the task {name!r} failed: {lost}{message}",
                hint=f"its whole output is in {self.log.path}",
                task=task,
                role=role,
                file=self.place(self.failure["file"]),
                line=self.failure["line"],
                tail=tail,
                code=code,
            )
        said = self.log.mask(self.error) or f"ansible-playbook exited with {code}"
        file, line = self.origin
        return ProvisionError(
            f"{what} cannot run: {said}",
            hint=f"its whole output is in {self.log.path}",
            file=file,
            line=line,
            code=code,
        )


def uncounted(read: set[Path], *, counted: Iterable[str], roots: Iterable[Path]) -> tuple[Path, ...]:
    """Of the files read, those that are neither counted themselves nor in a folder that is.

    `counted` are paths as a plan has them: absolute, `~/…`, or relative to any of the `roots`.
    """
    places = {
        Path(os.path.normpath(root / os.path.expanduser(path)))  # noqa: PTH111 - before it is joined
        for path in counted
        for root in roots
    }
    return tuple(
        sorted(file for file in read if file not in places and not places.intersection(file.parents))
    )
