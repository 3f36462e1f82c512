"""Common options: before the verb, after it, and both."""

from __future__ import annotations

import click
import pytest

from ingot.cli.options import Options, Verb, common, merge


def parsed(*words: str) -> Options:
    """The options that a command line comes to, through real click commands."""
    seen: list[Options] = []
    verb = Verb("look", callback=click.pass_obj(seen.append), params=[])
    root = click.Group("ingot", commands={"look": verb}, params=common())
    root.main(list(words), standalone_mode=False)
    (options,) = seen
    return options


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("look",), Options()),
        (("--json", "look"), Options(json=True)),
        (("look", "--json"), Options(json=True)),
        (("-C", "a", "look"), Options(project="a")),
        (("look", "-C", "a"), Options(project="a")),
        (("-C", "a", "look", "-C", "b"), Options(project="b")),
        (("-v", "look", "-v"), Options(verbose=2)),
        (("look", "-vv"), Options(verbose=2)),
        (("--var", "a=1", "look", "--var", "b=2"), Options(var=("a=1", "b=2"))),
        (("--var-file", "x", "look", "--var-file", "y"), Options(var_file=("x", "y"))),
        (("--yes", "look", "--dry-run", "--events", "e"), Options(yes=True, dry_run=True, events="e")),
    ],
)
def test_options_stand_before_and_after_the_verb(words: tuple[str, ...], expected: Options) -> None:
    assert parsed(*words) == expected


def test_merging_nothing_is_the_default() -> None:
    assert merge({}, {}) == Options()


def test_own_options_come_before_the_common_ones_in_help() -> None:
    verb = Verb(
        "look", params=[click.Option(["--deep"], is_flag=True, help="Far.")], epilog="ingot look --deep"
    )
    told = verb.get_help(click.Context(verb, info_name="look"))
    assert told.index("--deep") < told.index("Options of every verb") < told.index("--project")
    assert told.rstrip().endswith("ingot look --deep")
