"""What every part of the core leans on: time, the wish to stop, files to plan from, temporary things."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NewType, Protocol

from ingot.model.units import Seconds

Token = NewType("Token", str)
"""`ingot-<run>-<number>`: what a temporary thing bears in its own name or tag from its first moment on."""


class Clock(Protocol):
    """Time as the core sees it, so that tests need not wait."""

    def now(self) -> datetime: ...  # aware, UTC
    def monotonic(self) -> Seconds: ...
    def sleep(self, duration: Seconds) -> None: ...


class Cancel(Protocol):
    """The wish to stop. `check` raises CancelledError once it was expressed; `wait` sleeps at most so long."""

    def check(self) -> None: ...
    def wait(self, duration: Seconds) -> bool: ...  # True once cancelled


class Tree(Protocol):
    """The files that planning may read: the project's, and those of the folders that Ansible would search.

    Paths are POSIX text. A relative one (`..` allowed) is the project's, or else that of the first further root
    that has it; absolute ones and `~/…` are what they say.
    """

    def read(self, path: str) -> bytes | None:
        """The bytes of a file (links followed); None where there is no such file."""
        ...

    def files(self, folder: str, *, deep: bool = True) -> Sequence[str]:
        """The files in a folder, and unless `deep` is off all those below it, as sorted paths that begin with
        `folder`; linked folders are followed, `.git` is left out. Empty where there is none."""
        ...

    def mode(self, path: str) -> int:
        """The permission bits of a file or folder (links followed); 0 where there is none."""
        ...

    def listing(self, folder: str) -> Sequence[tuple[str, str, int]]:
        """Everything below a folder as copying it sees it: (path below the folder, kind, permission bits), sorted.

        `kind` is `file`, `folder`, or for a link, which is not followed, `-> ` and what it says. `.git` is left out.
        """
        ...


class Resource(Protocol):
    """One kind of temporary thing that a backend can make and unmake.

    `create` puts the token where `find` can see it, in the same act that makes the thing: a crash right after it
    leaves something that `find` finds. `delete` of a thing already gone succeeds, and when it returns the thing
    is gone with all it held (processes, mounts, loop devices).
    """

    @property
    def kind(self) -> str: ...  # "local.machine", "aws.security-group"
    @property
    def settles(self) -> Seconds:
        """How old a thing may be that `find` does not see yet; 0 where it sees all."""
        ...

    def create(self, token: Token) -> str: ...  # its ref
    def find(self, token: Token) -> str | None: ...
    def delete(self, ref: str) -> None: ...


class Holder(Protocol):
    """The engine's stack of open resources (`engine.resources`): a journal record precedes each create."""

    def open(self, resource: Resource) -> str: ...  # the ref
    def close(self, ref: str) -> None: ...  # one that is kept too
    def keep(self, ref: str, until: float) -> None: ...  # after the run, until then; seconds since the epoch
