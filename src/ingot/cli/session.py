"""One call of the program: its workspace, its screen, its questions. What every verb's command stands on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from ingot.cli.options import Options
from ingot.cli.render.line import Line
from ingot.cli.render.screen import Screen
from ingot.cli.trouble import print_document, screen_of, show
from ingot.errors import CancelledError, RefusedError, UsageError
from ingot.model.digest import plain

if TYPE_CHECKING:
    from ingot.api import Workspace
    from ingot.model.events import Emit
    from ingot.system.waits import Flag


class Session:
    """Made by each command from its options; opens the workspace when it is first asked for."""

    def __init__(self, options: Options) -> None:
        self.options = options

    @cached_property
    def workspace(self) -> Workspace:
        """The project that `-C` names, or the folder that we stand in, with the variables of the command line."""
        from ingot.api import Workspace

        return Workspace.open(
            Path(self.options.project or "."),
            variables=_variables(self.options.var),
            var_files=tuple(Path(file) for file in self.options.var_file),
            environment=os.environ,
        )

    @property
    def stderr(self) -> IO[str]:
        """Where everything goes that is not the answer."""
        return sys.stderr

    @cached_property
    def screen(self) -> Screen:
        """What stdout is."""
        return screen_of(sys.stdout)

    @contextmanager
    def listening(self, *, live: bool = True) -> Iterator[Emit]:
        """Where events go: to a live screen (where one is wanted) or plain lines on stderr, and to `--events`."""
        from ingot.cli.sinks import Lines, Redrawn, listening

        screen = screen_of(sys.stderr)
        reader = (
            Redrawn(sys.stderr, verbose=self.options.verbose, screen=screen)
            if screen.live and live
            else Lines(sys.stderr, verbose=self.options.verbose)
        )
        with listening(reader, events=self.options.events) as emit:
            yield emit

    @contextmanager
    def working(self, *, live: bool = True) -> Iterator[tuple[Emit, Flag]]:
        """For verbs that take time: events are shown, and signals become a wish to stop."""
        from ingot.system.signals import cancellable

        with cancellable() as flag, self.listening(live=live) as emit:
            yield emit, flag

    def answer(self, value: object, lines: Sequence[Line]) -> None:
        """The verb's result on stdout: as one JSON document, or as lines."""
        if self.options.json:
            print_document(plain(value))
        else:
            show(lines)

    def agree(self, question: str, *, shown: Sequence[Line] = ()) -> None:
        """Asks before something is removed. Raises RefusedError where nobody can answer, CancelledError on no."""
        if self.options.yes:
            return
        show(shown, stream=sys.stderr)
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise RefusedError(
                f"{question.rstrip('?')} needs your consent, and there is no terminal to ask on",
                hint="add `--yes` to agree, or `--dry-run` to only look",
            )
        if not click.confirm(question, err=True):
            raise CancelledError("nothing was changed", signal=2)


def _variables(words: Sequence[str]) -> dict[str, str]:
    """`name=value` words as a mapping. Raises UsageError for a word without `=`."""
    values: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise UsageError(f"--var {word!r} is not NAME=VALUE", hint="for example `--var partition=debug`")
        values[name] = value
    return values
