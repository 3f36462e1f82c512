"""The program: finds the verb, runs it, and turns whatever happens into one exit code.

Only this module exits. A verb parses, calls one method of `api.Workspace`, and shows what comes back.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from ingot.cli.options import common
from ingot.cli.verbs import VERBS, find

_ABOUT = "Ingot builds machine images for compute clusters: one definition, cached layer by layer, tested by booting."
_PATH = (
    ("ingot init demo", "a project that builds as it is"),
    ("cd demo && ingot build", "builds its image; later, what changed"),
    ("ingot check", "boots it and runs its checks"),
    ("ingot export node -o node.qcow2", "a disk to start anywhere"),
)


class Root(click.Group):
    """`ingot` itself: knows its verbs by name, imports the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [entry.name for entry in VERBS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = find(cmd_name)
        if entry is None:
            return None
        module = import_module(f"ingot.cli.{entry.module}")
        command = getattr(module, f"{entry.name}_command")
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click has it, with a guess at what was meant."""
        if find(args[0]) is None and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], self.list_commands(ctx), n=1)
            meant = f"did you mean `ingot {near[0]}`?" if near else "`ingot --help` lists the verbs"
            raise click.UsageError(f"there is no verb {args[0]!r}; {meant}", ctx)
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The overview: what it is, the usual path, the verbs by section."""
        formatter.write(f"{_ABOUT}\n\n")
        formatter.write_usage("ingot", "[OPTIONS] VERB [NAME…]")
        with formatter.section("The usual path"):
            formatter.write_dl([(command, told) for command, told in _PATH], col_max=36)
        for section in dict.fromkeys(entry.section for entry in VERBS):
            with formatter.section(section):
                formatter.write_dl([(v.name, v.help) for v in VERBS if v.section == section], col_max=36)
        with formatter.section("Options, before or after the verb"):
            records = (param.get_help_record(ctx) for param in self.get_params(ctx))
            formatter.write_dl([record for record in records if record], col_max=36)
        formatter.write(
            "\n`ingot VERB --help` tells more, with examples. Names may be patterns: `'node-*'`.\n"
        )


def root() -> Root:
    """The program as a click command."""
    return Root(
        name="ingot",
        params=[*common(), _version()],
        invoke_without_command=True,
        no_args_is_help=False,
        callback=_overview,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )


def main() -> None:
    """The entry point: runs the program with the words of the command line and exits with its code."""
    if "_INGOT_COMPLETE" in os.environ:
        from click.shell_completion import shell_complete

        sys.exit(shell_complete(root(), {}, "ingot", "_INGOT_COMPLETE", os.environ["_INGOT_COMPLETE"]))
    _hurry()
    code = run(sys.argv[1:])
    # All is closed by now. Python's end would look through every object for garbage, twice, which takes 0.1 s.
    gc.freeze()
    sys.exit(code)


def _hurry() -> None:
    """Two things that a start would wait for in vain, together some 15 % of a build with nothing to do.

    Imports make many objects and no garbage, so the collector looks less often; and pydantic would search all
    installed packages for plugins, of which we use none.
    """
    gc.set_threshold(100_000, 20, 100)
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


def run(argv: Sequence[str]) -> int:
    """Runs the program to its end and returns its exit code; nothing but an exit code comes out."""
    try:
        code = _run(argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        return _gone()
    except KeyboardInterrupt:
        return 130


def _run(argv: Sequence[str]) -> int:
    program = root()
    try:
        with program.make_context("ingot", list(argv)) as context:
            result = program.invoke(context)
            return result if isinstance(result, int) else 0
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except BrokenPipeError:
        raise
    except (Exception, KeyboardInterrupt) as error:
        from ingot.cli.trouble import tell

        return tell(error, argv)


def _gone() -> int:
    """Whoever read our output has gone: end as quietly as a program that SIGPIPE ends."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    return 141


@click.pass_context
def _overview(ctx: click.Context, /, **_: object) -> None:
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def _version() -> click.Option:
    def show(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            from ingot import __version__

            click.echo(f"ingot {__version__}")
            ctx.exit()

    return click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=show,
        help="Print the version.",
    )
