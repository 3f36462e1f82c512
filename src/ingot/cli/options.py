"""The options that every verb has, before or after it, and what they come to together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import click

from ingot.errors import DefinitionError, UsageError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """The common options of one call."""

    project: str = ""
    json: bool = False
    yes: bool = False
    dry_run: bool = False
    verbose: int = 0
    events: str = ""
    var: tuple[str, ...] = ()
    var_file: tuple[str, ...] = ()


def common() -> list[click.Parameter]:
    """The common options, made anew for each command that gets them."""
    path = click.Path(file_okay=False)
    return [
        click.Option(["-C", "--project"], metavar="DIR", type=path, help="The project's folder."),
        click.Option(["--var"], metavar="NAME=VALUE", multiple=True, help="Set a variable."),
        click.Option(["--var-file"], metavar="FILE", multiple=True, help="Set variables from a file."),
        click.Option(["--json"], is_flag=True, help="One JSON document on stdout."),
        click.Option(["--events"], metavar="FILE", help="Append events to FILE as JSON lines."),
        click.Option(["-v", "--verbose"], count=True, help="Show tasks; -vv shows all output."),
        click.Option(["--dry-run"], is_flag=True, help="Show what would be done; change nothing."),
        click.Option(["--yes"], is_flag=True, help="Do not ask before deleting."),
    ]


COMMON = tuple(field.name for field in fields(Options))


def merge(outer: Mapping[str, Any], inner: Mapping[str, Any]) -> Options:
    """The options before the verb and those after it as one: lists join, flags add, the later text counts."""
    merged: dict[str, Any] = {}
    for field in fields(Options):
        before, after = outer.get(field.name), inner.get(field.name)
        if field.name in ("var", "var_file"):
            merged[field.name] = (*(before or ()), *(after or ()))
        elif field.name == "verbose":
            merged[field.name] = int(before or 0) + int(after or 0)
        else:
            merged[field.name] = after or before or field.default
    return Options(**merged)


def quantity(option: str, text: str, parse: Callable[[str], T]) -> T | None:
    """What an option's text comes to; None without any. Raises UsageError naming the option."""
    try:
        return parse(text) if text else None
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error


class Verb(click.Command):
    """A command with the common options added; its callback gets the merged `Options` as the context's object."""

    def __init__(self, *args: Any, epilog: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = epilog or ""
        self.own = tuple(param.name for param in self.params)
        self.params = [*self.params, *common()]

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the verb with the options from both sides of its name."""
        inner = {name: ctx.params.pop(name) for name in COMMON if name in ctx.params}
        ctx.obj = options = merge(ctx.parent.params if ctx.parent else {}, inner)
        try:
            return super().invoke(ctx)
        except DefinitionError as error:
            raise _located(error, options.project) from error

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verb's own options first, the common ones under a heading of their own."""
        own: list[tuple[str, str]] = []
        shared: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record and record[1]:
                (own if param.name in self.own or param.name == "help" else shared).append(record)
        if own:
            with formatter.section("Options"):
                formatter.write_dl(own)
        with formatter.section("Options of every verb"):
            formatter.write_dl(shared)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The examples, as they are typed."""
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples.strip().splitlines():
                    formatter.write(f"{'':>{formatter.current_indent}}{line.strip()}\n")


def _located(error: DefinitionError, project: str) -> DefinitionError:
    """The same problems with files as they are found from here, not from the project's folder."""
    if not project or not error.facts.get("problems"):
        return error
    here = tuple(
        replace(problem, file=str(Path(project, problem.file)) if problem.file else "")
        for problem in error.problems
    )
    facts = {name: value for name, value in error.facts.items() if name != "problems"}
    return DefinitionError(problems=here, hint=error.hint, **facts)
