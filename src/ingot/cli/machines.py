"""Verbs about the machines of runs: resume, ssh; and asking what becomes of one on which something failed."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

import click

from ingot.cli.options import Options, Verb
from ingot.cli.render import errors
from ingot.cli.session import Session
from ingot.cli.trouble import read_line, show
from ingot.errors import IngotError, UsageError

if TYPE_CHECKING:
    from ingot.engine.work import Answer, Decide

_ANSWERS: dict[str, Answer] = {"c": "cleanup", "k": "keep", "r": "retry"}


def asking(session: Session) -> Decide:
    """Asks on the terminal, about one failure at a time. Raises UsageError where there is nobody to ask."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            "`--on-error ask` needs a terminal to ask on", hint="use `--on-error keep`, and `ingot ssh` later"
        )
    one_at_a_time = threading.Lock()

    def ask(error: IngotError) -> Answer:
        with one_at_a_time:
            show(errors.lines(error, read=read_line), stream=session.stderr)
            question = "The machine: [c]lean up, [k]eep it for `ingot ssh`, or [r]etry the step?"
            choice = click.prompt(
                question, type=click.Choice(sorted(_ANSWERS)), default="c", show_choices=False, err=True
            )
            return _ANSWERS[choice]

    return ask


@click.command("resume", cls=Verb, epilog="ingot resume 20260101-120000-4f2a")
@click.argument("run")
@click.pass_obj
def resume_command(options: Options, run: str) -> int:
    """Build again what a failed or interrupted run was asked for, from its last finished layer.

    With the same images, variables and options. A machine that the run kept is removed first. RUN may be the beginning
    of the run's id.
    """
    from ingot.cli.built import finish

    session = Session(options)
    with session.working() as (emit, cancel):
        built = session.workspace.resume(run, emit=emit, cancel=cancel)
    return finish(session, built)


@click.command("ssh", cls=Verb, epilog="ingot ssh 20260101-120000-4f2a\ningot ssh 2026 -- journalctl -b")
@click.argument("run")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND…]")
@click.pass_obj
def ssh_command(options: Options, run: str, command: tuple[str, ...]) -> int:
    """Open a shell on the machine of a run that goes on, or that failed and kept its machine.

    A kept machine of this computer is started for it, on its disk as the failure left it, and kept again when you leave.
    RUN may be the beginning of the run's id.
    """
    session = Session(options)
    with session.working() as (emit, cancel):
        return session.workspace.ssh(run, command=command, emit=emit, cancel=cancel)
