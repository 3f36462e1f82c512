"""Verbs that only look: ls, inspect, history, logs, ps."""

from __future__ import annotations

import sys

import click

from ingot.cli.complete import images
from ingot.cli.options import Options, Verb
from ingot.cli.render import answers
from ingot.cli.session import Session
from ingot.cli.trouble import print_document, show
from ingot.telling import replay

_ALL = click.option("--all", "everything", is_flag=True, help="Every version, not only the newest.")


@click.command(
    "ls", cls=Verb, epilog="ingot ls\ningot ls 'node-*' --all\ningot ls --json | jq -r '.images[].ref'"
)
@click.argument("names", nargs=-1, metavar="[NAME…]", shell_complete=images)
@_ALL
@click.pass_obj
def ls_command(options: Options, names: tuple[str, ...], everything: bool) -> None:
    """List what was built: the newest version of each image, whether its checks passed, where it lies."""
    session = Session(options)
    found = session.workspace.list(names, everything=everything)
    session.answer({"images": found}, answers.listed(found, columns=session.screen.columns))


@click.command(
    "inspect", cls=Verb, epilog="ingot inspect node\ningot inspect node --json | jq '.packages | length'"
)
@click.argument("image", shell_complete=images)
@click.option("--target", default="", metavar="TARGET", help="Of this target, where there are several.")
@click.pass_obj
def inspect_command(options: Options, image: str, target: str) -> None:
    """Show what an image contains and how it was made: its manifest.

    `-v` lists the packages too; `--json` has everything. IMAGE may be NAME or NAME@VERSION.
    """
    session = Session(options)
    seen = session.workspace.inspect(image, target=target)
    session.answer(seen, answers.inspected(seen, verbose=options.verbose))


@click.command("history", cls=Verb, epilog="ingot history node\ningot history node@3 --json")
@click.argument("image", shell_complete=images)
@click.option("--target", default="", metavar="TARGET", help="Of this target, where there are several.")
@click.pass_obj
def history_command(options: Options, image: str, target: str) -> None:
    """Show an image's layers, the base first: size, time, reused or built."""
    session = Session(options)
    seen = session.workspace.inspect(image, target=target)
    session.answer(
        {"image": seen.listed, "layers": seen.layers},
        answers.history(seen, columns=session.screen.columns),
    )


@click.command("logs", cls=Verb, epilog="ingot logs\ningot logs -v\ningot logs 20260101T120000-4f2a -vv")
@click.argument("run", default="", metavar="[RUN]")
@click.option("--list", "listed", is_flag=True, help="List the runs instead.")
@click.pass_obj
def logs_command(options: Options, run: str, listed: bool) -> None:
    """Show what happened in a run, the last one unless named. `-v` shows its tasks, `-vv` all output."""
    session = Session(options)
    if listed:
        runs = session.workspace.runs()
        session.answer({"runs": runs}, answers.runs(runs, columns=session.screen.columns))
        return
    found = session.workspace.run(run)
    events = found.events.read_text().splitlines() if found.events.exists() else []
    if options.json:
        import json

        print_document(
            {"run": found.id, "folder": str(found.folder), "events": [json.loads(e) for e in events]}
        )
        return
    show(answers.run(found))
    for line in replay.draw(replay.read(events), verbose=options.verbose):
        sys.stdout.write(line + "\n")


@click.command("ps", cls=Verb, epilog="ingot ps\ningot ps --json | jq -r '.runs[].id'")
@click.pass_obj
def ps_command(options: Options) -> None:
    """List the runs that go on, and interrupted ones that left something, each with what it holds now."""
    session = Session(options)
    found = session.workspace.living()
    session.answer({"runs": found}, answers.living(found, columns=session.screen.columns))
