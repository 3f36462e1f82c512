"""The verb that shows what a build would do: plan."""

from __future__ import annotations

import click

from ingot.cli.complete import images
from ingot.cli.options import Options, Verb
from ingot.cli.render import answers
from ingot.cli.session import Session

SOMETHING_TO_BUILD = 10


@click.command(
    "plan",
    cls=Verb,
    epilog="ingot plan\ningot plan 'node-*' --target local\ningot plan --detailed-exitcode || ingot build",
)
@click.argument("names", nargs=-1, metavar="[NAME…]", shell_complete=images)
@click.option("--target", "targets", multiple=True, metavar="TARGET", help="Only for this target.")
@click.option("--locked", is_flag=True, help="Refuse where `ingot.lock` lacks a pin.")
@click.option("--detailed-exitcode", is_flag=True, help="Exit with 10 where there is something to build.")
@click.pass_obj
def plan_command(
    options: Options, names: tuple[str, ...], targets: tuple[str, ...], locked: bool, detailed_exitcode: bool
) -> int:
    """Show each layer of each image as reused or to build, and for those to build what changed.

    Nothing is made or changed; missing pins are looked up, not written.
    """
    session = Session(options)
    with session.listening() as emit:
        planned = session.workspace.plan(names, targets=targets, locked=locked, emit=emit)
    session.answer({"plans": planned}, answers.planned(planned, verbose=options.verbose))
    todo = any(each.to_build for each in planned)
    return SOMETHING_TO_BUILD if detailed_exitcode and todo else 0
