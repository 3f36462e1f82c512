"""Verbs that make and use images: build, check, shell, export."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from ingot.cli.complete import images
from ingot.cli.options import Options, Verb, quantity
from ingot.cli.render import answers
from ingot.cli.session import Session
from ingot.cli.trouble import as_data, print_document, show
from ingot.errors import UsageError
from ingot.model.digest import plain
from ingot.model.units import parse_seconds

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from ingot.api.outcomes import Built
    from ingot.engine.work import Decide
    from ingot.model.definition import CheckMachine
    from ingot.model.events import Emit

_TARGET = click.option("--target", "targets", multiple=True, metavar="TARGET", help="Only for this target.")


@click.command(
    "build",
    cls=Verb,
    epilog="ingot build\ningot build 'node-*' --check\ningot build node --json | jq '.outcomes[0].ref'",
)
@click.argument("names", nargs=-1, metavar="[NAME…]", shell_complete=images)
@_TARGET
@click.option("--no-cache", is_flag=True, help="Build every layer anew, the base too.")
@click.option("--check", is_flag=True, help="Boot each image afterwards and run its checks.")
@click.option("--locked", is_flag=True, help="Refuse where `ingot.lock` lacks a pin or no longer holds.")
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    metavar="N",
    help="Build so many images at once.  [default: 1]",
)
@click.option(
    "--executor",
    "address",
    default="",
    metavar="ADDRESS",
    help="Build on a dask cluster, each image where it has room: dask://HOST:PORT",
)
@click.option("--from-step", default="", metavar="STEP", help="Apply this step and all after it anew.")
@click.option("--deadline", default="", metavar="TIME", help="End after so long, such as `2h`; exit code 7.")
@click.option(
    "--on-error",
    type=click.Choice(("cleanup", "keep", "ask")),
    default="cleanup",
    help="Of a machine whose step failed: remove it, keep it for `ingot ssh`, or ask.  [default: cleanup]",
)
@click.option("--keep-for", default="", metavar="TIME", help="How long a machine is kept.  [default: 12h]")
@click.option("--simulate", is_flag=True, help="Build in a pretend cloud: nothing is made or recorded.")
@click.option(
    "--simulate-with",
    "habits",
    metavar="HABITS",
    help="The same in one that behaves so: boot=20s,lag=2s,machines=3,throttle=5,fail=freeze:2",
)
@click.pass_obj
def build_command(
    options: Options,
    names: tuple[str, ...],
    targets: tuple[str, ...],
    no_cache: bool,
    check: bool,
    locked: bool,
    jobs: int,
    address: str,
    from_step: str,
    deadline: str,
    on_error: Literal["cleanup", "keep", "ask"],
    keep_for: str,
    simulate: bool,
    habits: str | None,
) -> int:
    """Build images, reusing every layer that is there already.

    Without names, all images of the definition. Each ends with a seal and a scan for leaked secrets, is recorded in
    the catalog, and is written into `packer-manifest.json`. An interrupted or failed build keeps its finished
    layers: the next one goes on from there.
    """
    session = Session(options)
    if options.dry_run:
        return _dry(session, names, targets, locked=locked, no_cache=no_cache)
    if address and jobs > 1:
        raise UsageError(
            "-j counts threads of this process, and --executor builds elsewhere", hint="leave one out"
        )
    if address and on_error == "ask":
        raise UsageError(
            "--executor builds elsewhere, where nobody can be asked", hint="use `--on-error keep`"
        )
    ask = _asking(session) if on_error == "ask" else None
    with session.working(live=ask is None) as (emit, cancel), _executor(address, emit) as executor:
        built = session.workspace.build(
            names,
            targets=targets,
            no_cache=no_cache,
            check=check,
            locked=locked,
            jobs=jobs,
            executor=executor,
            from_step=from_step,
            deadline=quantity("--deadline", deadline, parse_seconds),
            simulate="" if simulate and habits is None else habits,
            on_error=on_error,
            keep_for=quantity("--keep-for", keep_for, parse_seconds),
            ask=ask,
            emit=emit,
            cancel=cancel,
        )
    return finish(session, built)


def _asking(session: Session) -> Decide:
    from ingot.cli.machines import asking

    return asking(session)


@contextmanager
def _executor(address: str, emit: Emit) -> Iterator[Executor | None]:
    """What builds, where that is not this process."""
    if not address:
        yield None
        return
    from ingot.api.executors import open_executor

    with open_executor(address, emit=emit) as executor:
        yield executor


def finish(session: Session, built: Built) -> int:
    """Shows the outcomes of a build or of checks, and the error that they amount to; returns its exit code."""
    from ingot.api.outcomes import error_of, exit_code

    error = error_of(built.outcomes)
    if session.options.json:
        document = plain({"run": built.run, "outcomes": built.outcomes, "saved_seconds": built.saved})
        if built.simulated:
            document["simulated"] = True
        print_document(document if error is None else {**document, "error": as_data(error)})
    else:
        show(answers.outcomes(built))
    if error is None:
        return 0
    show(answers.failures(built.outcomes), stream=session.stderr)
    return exit_code(error)


def _dry(
    session: Session, names: tuple[str, ...], targets: tuple[str, ...], *, locked: bool, no_cache: bool
) -> int:
    with session.listening() as emit:
        planned = session.workspace.plan(names, targets=targets, locked=locked, no_cache=no_cache, emit=emit)
    lines = answers.planned(planned, verbose=session.options.verbose)
    session.answer({"dry_run": True, "plans": planned}, lines)
    return 0


@click.command("check", cls=Verb, epilog="ingot check\ningot check node --json")
@click.argument("names", nargs=-1, metavar="[NAME…]", shell_complete=images)
@_TARGET
@click.option(
    "--machine",
    type=click.Choice(("vm", "booted")),
    help="What to boot on: the whole image, or its system alone, in seconds; else as the image says, or vm.",
)
@click.pass_obj
def check_command(
    options: Options, names: tuple[str, ...], targets: tuple[str, ...], machine: CheckMachine | None
) -> int:
    """Boot built images and run their checks over SSH.

    Built-in checks (it boots, no failed units, cloud-init is done) and your own pytest-testinfra files, on a copy of the
    disk that is thrown away. The result is recorded for the image's digest.
    """
    session = Session(options)
    if options.dry_run:
        chosen = session.workspace.list(names, targets=targets)
        session.answer({"dry_run": True, "images": chosen}, answers.listed(chosen))
        return 0
    with session.working() as (emit, cancel):
        built = session.workspace.check(names, targets=targets, machine=machine, emit=emit, cancel=cancel)
    return finish(session, built)


@click.command("shell", cls=Verb, epilog="ingot shell node\ningot shell node -- sinfo --version")
@click.argument("image", shell_complete=images)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND…]")
@click.option("--target", default="", metavar="TARGET", help="Of this target, where there are several.")
@click.pass_obj
def shell_command(options: Options, image: str, command: tuple[str, ...], target: str) -> int:
    """Open a shell in a built image, on a copy that is thrown away when you leave.

    The image itself never changes. It is a chroot without running services; `ingot check` boots it for real.
    """
    session = Session(options)
    if options.dry_run:
        chosen = session.workspace.inspect(image, target=target).listed
        session.answer({"dry_run": True, "image": chosen}, answers.listed((chosen,)))
        return 0
    with session.working() as (emit, cancel):
        return session.workspace.shell(image, target=target, command=command, emit=emit, cancel=cancel)


@click.command(
    "export",
    cls=Verb,
    epilog="ingot export node --format qcow2 -o node.qcow2\n"
    "ingot export node --format vhd   # for Azure\n"
    "ingot export worker --format dask",
)
@click.argument("image", shell_complete=images)
@click.option(
    "--format",
    "form",
    default="",
    metavar="FORMAT",
    help="qcow2 (default), raw, vhd (Azure), vmdk, gce (tar.gz); or text: dask.",
)
@click.option("-o", "--output", default="", metavar="PATH", help="The file to write.")
@click.option("--target", default="", metavar="TARGET", help="Of this target, where there are several.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@click.pass_obj
def export_command(options: Options, image: str, form: str, output: str, target: str, force: bool) -> None:
    """Write a built image as one flat disk, with nothing left of what its layers deleted.

    `dask` writes no disk: it prints how dask-cloudprovider's EC2Cluster uses the AMI, the call and the part of
    `cloudprovider.yaml`; `-o` writes the one or the other, by the file's ending.
    """
    from ingot.lifecycle.consumers import KNOWN

    session = Session(options)
    if form in KNOWN:
        usage = session.workspace.usage(
            image,
            form=form,
            output=Path(output) if output else None,
            target=target,
            force=force,
            dry_run=options.dry_run,
        )
        session.answer(usage, answers.usage(usage, dry_run=options.dry_run))
        return
    with session.working() as (emit, cancel):
        exported = session.workspace.export(
            image,
            target=target,
            form=form,
            output=Path(output) if output else None,
            force=force,
            dry_run=options.dry_run,
            emit=emit,
            cancel=cancel,
        )
    session.answer(exported, answers.exported(exported, dry_run=options.dry_run))
