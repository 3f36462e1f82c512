"""Verbs of the definition: init, validate, schema, lock."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

import click

from ingot.cli.options import Options, Verb
from ingot.cli.render import answers
from ingot.cli.session import Session


@click.command(
    "init",
    cls=Verb,
    epilog="ingot init demo\ningot init            # in the folder that you stand in\n"
    "ingot init dask --from-cloud-init user-data.yaml",
)
@click.argument("folder", default="", metavar="[FOLDER]")
@click.option("--name", default="", help="The project's name; the folder's unless given.")
@click.option(
    "--from-cloud-init",
    "user_data",
    type=click.File(),
    metavar="FILE",
    help="Make it of user-data that starts a container, such as dask-cloudprovider's; `-` is stdin.",
)
@click.pass_obj
def init_command(options: Options, folder: str, name: str, user_data: TextIO | None) -> None:
    """Begin a project that builds as it is: a definition with comments, a role, a check.

    Files that are there already are never overwritten.
    """
    from ingot.api import begin

    where = Path(options.project or ".") / folder
    begun = begin(
        where, name=name, cloud_init=user_data.read() if user_data else None, dry_run=options.dry_run
    )
    Session(options).answer(begun, answers.begun(begun, dry_run=options.dry_run))


@click.command("validate", cls=Verb, epilog="ingot validate\ningot validate --var partition=long --json")
@click.pass_obj
def validate_command(options: Options) -> None:
    """Find every mistake in a definition at once, each with its file, line and column.

    Roles, playbooks, scripts and checks that it names must be there; nothing is made or changed.
    """
    session = Session(options)
    valid = session.workspace.validate()
    session.answer(valid, answers.valid(valid))


@click.command("schema", cls=Verb, epilog="ingot schema > ingot.schema.json")
@click.pass_obj
def schema_command(options: Options) -> None:
    """Print the JSON Schema of `ingot.yaml`, so that editors complete and check it.

    An editor finds it through the first line of a definition:
    `# yaml-language-server: $schema=ingot.schema.json`.
    """
    from ingot.api import schema
    from ingot.cli.trouble import print_document

    print_document(schema())


@click.command("lock", cls=Verb, epilog="ingot lock\ningot lock --update")
@click.option("--update", is_flag=True, help="Look again for what is pinned already.")
@click.pass_obj
def lock_command(options: Options, update: bool) -> None:
    """Pin what the outside world would move: archives, image checksums, collections.

    The first build pins what is missing by itself. Commit `ingot.lock`: the same pins give the same keys.
    """
    session = Session(options)
    with session.working() as (emit, cancel):
        locked = session.workspace.lock(update=update, dry_run=options.dry_run, emit=emit, cancel=cancel)
    session.answer(locked, answers.locked(locked, dry_run=options.dry_run))
