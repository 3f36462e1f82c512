"""The stack of a build's temporary things: journaled before they are made, unmade newest first, whatever happens."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from ingot.engine.journal import Journal, Place
from ingot.engine.trace import point
from ingot.errors import BackendError, IngotError, LeftoverError
from ingot.model.events import Emit, ResourceClosed, ResourceKept, ResourceOpened
from ingot.ports import Resource, Token

SWEEP_HINT = "the next build tries again; `ingot sweep` does so now"


@dataclass(slots=True)
class _Open:
    resource: Resource
    token: Token
    ref: str = ""


class Resources:
    """Implements `ports.Holder`. Leaving the `with` block closes all that is open, going on past failures.

    What cannot be closed is told as LeftoverError; after an error in the block both are raised, as a group whose
    first member is the block's error (`first_error` finds it).
    """

    def __init__(self, journal: Journal, *, place: Place, emit: Emit, subject: str = "") -> None:
        self._journal = journal
        self._place = place
        self._emit = emit
        self._subject = subject
        self._stack: list[_Open] = []
        self._kept: list[_Open] = []

    def open(self, resource: Resource) -> str:
        """Makes one and returns its ref."""
        token = self._journal.open(resource.kind, self._place)
        entry = _Open(resource, token)
        self._stack.append(entry)
        point(f"before create {resource.kind}")
        entry.ref = resource.create(token)
        point(f"after create {resource.kind}")
        self._journal.made(token, entry.ref)
        self._emit(ResourceOpened(subject=self._subject, kind=resource.kind, ref=entry.ref))
        return entry.ref

    def close(self, ref: str) -> None:
        """Unmakes one now, one that was kept too; one already closed is fine."""
        for entries in (self._stack, self._kept):
            for entry in [entry for entry in entries if entry.ref == ref]:
                self._close(entry)
                entries.remove(entry)

    def keep(self, ref: str, until: float) -> None:
        """Leaves one as it is, for others to look at, until then (seconds since the epoch)."""
        for entry in [entry for entry in self._stack if entry.ref == ref]:
            self._journal.keep(entry.token, until)
            self._stack.remove(entry)
            self._kept.append(entry)
            self._emit(
                ResourceKept(subject=self._subject, kind=entry.resource.kind, ref=entry.ref, until=until)
            )

    def __enter__(self) -> Resources:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        left, failures = [], []
        while self._stack:
            entry = self._stack.pop()
            try:
                self._close(entry)
            except Exception as failure:
                left.append(f"{entry.resource.kind} {entry.ref or entry.token}")
                failures.append(failure)
        if failures:
            raise_leftovers(error, left=left, failures=failures)

    def _close(self, entry: _Open) -> None:
        ref = entry.ref or entry.resource.find(entry.token)
        if not ref and entry.resource.settles:
            return  # it may still come to be listed: its record stays, for a later sweep
        if ref:
            point(f"before delete {entry.resource.kind}")
            entry.resource.delete(ref)
            point(f"after delete {entry.resource.kind}")
        with contextlib.suppress(BackendError):  # a full disk: the next sweep finds it gone, which is as good
            self._journal.shut(entry.token)
        if ref:
            self._emit(ResourceClosed(subject=self._subject, kind=entry.resource.kind, ref=ref))


def raise_leftovers(
    error: BaseException | None, *, left: Sequence[str], failures: Sequence[Exception]
) -> None:
    """Raises what could not be removed, after `error` if there was one. The failures are its causes."""
    because = "; ".join(dict.fromkeys(str(failure) for failure in failures))
    leftover = LeftoverError(
        f"could not remove {', '.join(left)}: {because}", hint=SWEEP_HINT, left=tuple(left)
    )
    leftover.__cause__ = failures[0] if len(failures) == 1 else ExceptionGroup("cleanup failed", failures)
    if error is None:
        raise leftover
    raise BaseExceptionGroup("the build failed, and so did its cleanup", [error, leftover]) from None


def first_error(error: BaseException) -> BaseException:
    """The error that came first: the first member of a group, however nested."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def exit_code(error: BaseException | None) -> int:
    """The exit code that an error ends the program with: 0 for none, 128 + the signal for an interruption."""
    if error is None:
        return 0
    first = first_error(error)
    signal = getattr(first, "signal", None) if isinstance(first, IngotError) else None
    if isinstance(signal, int):
        return 128 + signal
    return first.exit_code if isinstance(first, IngotError) else 1
