"""`docs/reference/cli.md` is what `--help` says; `INGOT_GOLDEN=write` writes it anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from ingot.cli.main import root
from ingot.cli.options import Verb
from ingot.cli.verbs import VERBS

from .golden import compare

PAGE = Path(__file__).parent.parent.parent / "docs" / "reference" / "cli.md"
HEAD = """# The command line

What `ingot --help` and `ingot VERB --help` say, on one page. The exit codes are those of
`src/ingot/errors.py`:

| code | meaning |
|---|---|
| 0 | done |
| 1 | a bug in Ingot |
| 2 | the definition, the plan or the command line asks for what cannot be |
| 3 | several images failed (one alone exits with its own code) |
| 4 | a backend refused: disk full, no root, mirror unreachable, checksum mismatch |
| 5 | a step failed on the machine, or the leak scan found something |
| 6 | the image was built and failed its checks |
| 7 | a wait ran out; what was made is kept |
| 8 | something temporary could not be removed |
| 9 | in use or protected, or a question that nobody could answer |
| 10 | `plan --detailed-exitcode`: there is something to build |
| 130, 143, 129 | interrupted by Ctrl-C, SIGTERM or SIGHUP, after cleanup |

With `--json`, stdout is exactly one JSON document, after an error too: `{"error": {"kind", "message", "hint",
"code", …}}`. Everything else goes to stderr.

`INGOT_STATE` names the folder of layers, images, runs and the catalog. `INGOT_VAR_<name>` sets a variable of a
definition. `NO_COLOR` takes colours away, and `CI` or `TERM=dumb` the moving lines.
"""


def page() -> str:
    """The whole page, from the commands themselves."""
    parts = [HEAD, "## ingot\n\n```text\n" + helped(()) + "```\n"]
    for entry in VERBS:
        parts.append(f"## ingot {entry.name}\n\n```text\n{helped((entry.name,))}```\n")
    return "\n".join(parts)


def helped(words: tuple[str, ...]) -> str:
    """The help of a command, 96 columns wide; of a verb, without the options that every verb has."""
    program = root()
    settings: dict[str, Any] = {"terminal_width": 96, "help_option_names": ["-h", "--help"]}
    top = click.Context(program, info_name="ingot", **settings)
    if not words:
        return program.get_help(top) + "\n"
    command = program.get_command(top, words[0])
    assert isinstance(command, Verb)
    with click.Context(command, info_name=words[0], parent=top, **settings) as context:
        told = command.get_help(context) + "\n"
    before, rest = told.split("Options of every verb:\n", 1)
    examples = rest[rest.index("Examples:") :] if "Examples:" in rest else ""
    return before.rstrip("\n") + "\n" + (f"\n{examples}" if examples else "")


def commands() -> Iterator[tuple[str, click.Command]]:
    program = root()
    context = click.Context(program)
    for entry in VERBS:
        command = program.get_command(context, entry.name)
        assert command is not None
        yield entry.name, command


def test_the_page_is_what_help_says() -> None:
    compare(page(), PAGE)


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_every_verb_has_its_one_line_and_examples(name: str, command: click.Command) -> None:
    assert isinstance(command, Verb)
    assert command.name == name
    assert command.help
    assert command.examples.startswith(("ingot ", "eval "))
    assert all(param.help for param in command.params if isinstance(param, click.Option))


def test_every_verb_of_the_contract_is_there() -> None:
    verbs = [
        "init",
        "validate",
        "schema",
        "lock",
        "plan",
        "build",
        "check",
        "shell",
        "export",
        "ls",
        "inspect",
        "history",
        "logs",
        "gc",
        "sweep",
    ]
    assert set(verbs) <= {entry.name for entry in VERBS}
