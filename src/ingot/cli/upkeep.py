"""Verbs that tidy up: gc, sweep, cancel; and completion, which is about the shell alone."""

from __future__ import annotations

import click

from ingot.cli.options import Options, Verb, quantity
from ingot.cli.render import answers
from ingot.cli.session import Session
from ingot.errors import LeftoverError, UsageError
from ingot.model.units import Seconds, parse_bytes, parse_seconds


@click.command(
    "gc", cls=Verb, epilog="ingot gc --dry-run\ningot gc --max-size 20GiB --yes\ningot gc --older-than 30d"
)
@click.option(
    "--max-size", metavar="SIZE", default="", help="Until the layers take at most so much: `20GiB`."
)
@click.option("--older-than", metavar="AGE", default="", help="Layers unused for so long: `30d`.")
@click.option(
    "--target", metavar="TARGET", default="", help="Where a target keeps its layers: a cloud's snapshots."
)
@click.pass_obj
def gc_command(options: Options, max_size: str, older_than: str, target: str) -> None:
    """Remove layers that nothing needs, the longest unused first.

    Layers of the newest version of an image, and layers in use at this moment, always stay.
    """
    size = quantity("--max-size", max_size, parse_bytes)
    age = quantity("--older-than", older_than, parse_seconds)
    session = Session(options)
    columns = session.screen.columns
    found = session.workspace.gc(target=target, max_size=size, older_than=age, dry_run=True)
    nothing = not found.drops and not found.runs
    if not options.dry_run and not nothing:
        session.agree("Remove these layers?", shown=answers.garbage(found, done=False, columns=columns))
        with session.working() as (emit, _):
            found = session.workspace.gc(target=target, max_size=size, older_than=age, emit=emit)
    session.answer(found, answers.garbage(found, done=not options.dry_run, columns=columns))


@click.command(
    "sweep", cls=Verb, epilog="ingot sweep\ningot sweep --dry-run\ningot sweep --strays --older-than 6h"
)
@click.argument("runs", nargs=-1, metavar="[RUN…]")
@click.option(
    "--strays", is_flag=True, help="By their marks alone, also where no record of their run is left."
)
@click.option("--older-than", metavar="AGE", default="1h", help="Strays at least so old.  [default: 1h]")
@click.pass_obj
def sweep_command(options: Options, runs: tuple[str, ...], strays: bool, older_than: str) -> int:
    """Remove what interrupted runs left behind: mounts, machines, half-written layers.

    Every build does this by itself. A run that still goes on is never touched. With `--strays`, Ingot asks the
    targets' backends for what bears its marks, lists it, and asks before it removes anything.
    """
    session = Session(options)
    if strays:
        if runs:
            raise UsageError("--strays looks for what no run is known of", hint="leave out the run's name")
        return _sweep_strays(session, quantity("--older-than", older_than, parse_seconds) or Seconds(0.0))
    with session.working() as (emit, _):
        swept = session.workspace.sweep(runs, dry_run=options.dry_run, emit=emit)
    session.answer(swept, answers.swept(swept.removed, swept.left, dry_run=options.dry_run))
    return LeftoverError.exit_code if swept.left and not options.dry_run else 0


def _sweep_strays(session: Session, age: Seconds) -> int:
    dry = session.options.dry_run
    found = session.workspace.sweep_strays(older_than=age, dry_run=True)
    if found.left and not dry:
        shown = answers.swept((), found.left, dry_run=True)
        session.agree("Remove these things?", shown=shown)
        with session.working() as (emit, _):
            found = session.workspace.sweep_strays(older_than=age, emit=emit)
    session.answer(found, answers.swept(found.removed, found.left, dry_run=dry))
    return LeftoverError.exit_code if found.left and not dry else 0


@click.command("cancel", cls=Verb, epilog="ingot ps\ningot cancel 20260101T120000-4f2a")
@click.argument("run")
@click.pass_obj
def cancel_command(options: Options, run: str) -> None:
    """End a run that another terminal or job started. It cleans up as after Ctrl-C; finished layers stay.

    RUN may be the beginning of the run's id.
    """
    session = Session(options)
    with session.working() as (emit, cancel):
        ended = session.workspace.cancel(run, emit=emit, cancel=cancel)
    session.answer(ended, answers.run(ended))


@click.command(
    "completion",
    cls=Verb,
    epilog='eval "$(ingot completion bash)"          # in ~/.bashrc\ningot completion fish > ~/.config/fish/completions/ingot.fish',
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> None:
    """Print the script that lets a shell complete verbs, options and image names."""
    from click.shell_completion import get_completion_class

    from ingot.cli.main import root

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(root(), {}, "ingot", "_INGOT_COMPLETE").source())
