"""The verb that looks ahead: doctor."""

from __future__ import annotations

import click

from ingot.cli.complete import images
from ingot.cli.options import Options, Verb
from ingot.cli.render import findings
from ingot.cli.session import Session
from ingot.cli.trouble import print_document
from ingot.errors import BackendError
from ingot.model.digest import plain


@click.command(
    "doctor",
    cls=Verb,
    epilog="ingot doctor\ningot doctor 'node-*' --on aws\ningot doctor --on aws --policy > policy.json",
)
@click.argument("names", nargs=-1, metavar="[NAME…]", shell_complete=images)
@click.option("--on", "targets", multiple=True, metavar="TARGET", help="Only for this target.")
@click.option("--policy", is_flag=True, help="Print the least that a cloud must allow, and look at nothing.")
@click.pass_obj
def doctor_command(options: Options, names: tuple[str, ...], targets: tuple[str, ...], policy: bool) -> int:
    """Tell what builds would lack, before anything is spent: rights, programs, room; in a cloud credentials, region,
    network, quotas, names and keys.

    Nothing is made. In a folder without a definition it looks at this computer alone. Exits with 4 where a build would
    fail.
    """
    session = Session(options)
    if policy:
        print_document(plain(session.workspace.policy(names, targets=targets)))
        return 0
    examined = session.workspace.examine(names, targets=targets)
    session.answer({"targets": examined}, findings.examined(examined))
    return 0 if all(one.well for one in examined) else BackendError.exit_code
