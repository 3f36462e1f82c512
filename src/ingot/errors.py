"""The error tree. Every class is one exit code; every error is one sentence and a hint.

IngotError                  1   a bug, or something without a better class
├── DefinitionError         2   .problems: all of a definition's mistakes, each with its place
├── UsageError              2   the command line asks for something that is not there
├── PlanError               2   the definition is sound, but this target cannot satisfy it
├── PartialError            3   several targets failed, each with its own error
├── BackendError            4   a backend refused: disk full, no root, mirror unreachable, checksum mismatch
│   ├── NotFoundError       4   the thing named is not there
│   └── TransientError      4   the only kind that is tried again
├── ProvisionError          5   a step failed on the machine
│   └── LeakError           5   the finished disk holds a secret, a private key or a token
├── CheckError              6   the image was built and failed its checks
├── DeadlineError           7   a wait ran out; what was made is kept and resumable
├── LeftoverError           8   something temporary could not be removed
├── RefusedError            9   in use or protected
└── CancelledError          130 interrupted, after cleanup (143 for SIGTERM)

Messages name the value, the place and the remedy. Errors survive pickle, for they cross process boundaries.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar


class IngotError(Exception):
    """A failure told as one sentence, with what to do about it in `hint`.

    Keyword arguments beyond `hint` become attributes (`error.log`, `error.task`); `facts` holds them all.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "", **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.facts = facts

    def __getattr__(self, name: str) -> Any:
        facts = self.__dict__.get("facts", {})
        if name in facts:
            return facts[name]
        raise AttributeError(name)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.hint, self.facts)


def _rebuild(cls: type[IngotError], message: str, hint: str, facts: dict[str, Any]) -> IngotError:
    return cls(message, hint=hint, **facts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One mistake in a definition: where (1-based line and column), at which path, what, and the remedy."""

    message: str
    hint: str = ""
    file: str = ""
    line: int = 0
    column: int = 0
    path: str = ""

    def at(self, *, file: str, line: int, column: int) -> Problem:
        """The same problem with its place filled in."""
        return replace(self, file=file, line=line, column=column)

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}: " if self.file else ""
        path = f"{self.path}: " if self.path else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}{path}{self.message}{hint}"


class DefinitionError(IngotError):
    """A definition that cannot be used, with every problem found in it."""

    exit_code = 2

    def __init__(
        self, message: str = "", *, problems: tuple[Problem, ...] = (), hint: str = "", **facts: Any
    ) -> None:
        text = message or "\n".join(str(problem) for problem in problems)
        super().__init__(text, hint=hint, problems=problems, **facts)


class UsageError(IngotError):
    exit_code = 2


class PlanError(IngotError):
    exit_code = 2


class PartialError(IngotError):
    exit_code = 3


class BackendError(IngotError):
    exit_code = 4


class NotFoundError(BackendError):
    pass


class TransientError(BackendError):
    pass


class ProvisionError(IngotError):
    """A step that failed; facts: `layer`, `step`, `task`, `file`, `line`, `log` where known."""

    exit_code = 5


class LeakError(ProvisionError):
    """The leak scan found something; `findings` names each place."""


class CheckError(IngotError):
    exit_code = 6


class DeadlineError(IngotError):
    exit_code = 7


class LeftoverError(IngotError):
    """What is still there, in `left`, and the command that removes it in the hint."""

    exit_code = 8


class RefusedError(IngotError):
    exit_code = 9


class CancelledError(IngotError):
    """Raised by `Cancel.check` once a stop was asked for; `signal` tells by what (2, 15, 1)."""

    exit_code = 130
