"""Errors as people and programs read them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable

import pytest

from ingot import errors as tree
from ingot.api.outcomes import exit_code
from ingot.cli.render import errors
from ingot.cli.render.line import draw
from ingot.cli.trouble import as_data, as_ours
from ingot.errors import (
    CancelledError,
    DefinitionError,
    IngotError,
    LeakError,
    Problem,
    ProvisionError,
    RefusedError,
)
from ingot.ports import Finding

from .golden import DATA, compare

SOURCE = {("ingot.yaml", 3): "    - packges: [htop]\n", ("ingot.yaml", 7): "\tdisk: 8\n"}

CASES: dict[str, IngotError] = {
    "definition": DefinitionError(
        problems=(
            Problem(
                message="there is no step `packges`",
                hint="did you mean `packages`?",
                file="ingot.yaml",
                line=3,
                column=7,
                path="images.node.steps[0]",
            ),
            Problem(
                message="8 is not a size", file="ingot.yaml", line=7, column=8, path="targets.local.disk"
            ),
            Problem(message="the file is gone", file="other.yaml", line=1, column=1),
        )
    ),
    "one-problem": DefinitionError(
        problems=(Problem(message="`name` is missing", hint="begin with `name: acme`"),)
    ),
    "provision": ProvisionError(
        "task \"Install Slurm\" failed: No package matching 'slurm-wlmx' is available",
        hint="`apt-cache search` on the machine shows what its mirror has",
        layer="roles ingot.cluster.slurm",
        step="roles ingot.cluster.slurm",
        task="Install Slurm",
        file="roles/slurm/tasks/main.yml",
        line=3,
        tail=("Reading package lists...", "", "E: Unable to locate \x1b[31mpackage\x1b[0m slurm-wlmx"),
        log="/srv/ingot/runs/r1/slurm-node.log",
        kept="not kept; 2 finished layers are",
        resume="ingot build slurm-node",
    ),
    "leak": LeakError(
        "the finished disk holds 2 things that may not leave this machine",
        hint="remove them in the step that writes them",
        findings=(
            Finding(what="a private key", where="/root/.ssh/id_ed25519"),
            Finding(what="the secret `token`", where="block at 1.2 GiB"),
        ),
    ),
    "refused": RefusedError("layer 0123 is in use by run r1", hint="wait for it, or end it"),
    "several-lines": IngotError("first\nsecond"),
}


def read(file: str, number: int) -> str | None:
    return SOURCE.get((file, number))


@pytest.mark.parametrize("name", CASES)
def test_error_screens(name: str) -> None:
    said = draw(errors.lines(CASES[name], read=read), colour=False)
    compare(said, DATA / "errors" / f"{name}.txt")


@pytest.mark.parametrize("name", CASES)
def test_errors_are_plain_data_too(name: str) -> None:
    data = json.loads(json.dumps(as_data(CASES[name])))
    assert data["message"] == CASES[name].message
    assert data["code"] == CASES[name].exit_code
    assert data["kind"] == type(CASES[name]).__name__


def test_a_caret_stands_under_the_column() -> None:
    said = draw(errors.lines(CASES["definition"], read=read), colour=False).splitlines()
    source = next(line for line in said if "packges: [htop]" in line)
    caret = said[said.index(source) + 1]
    assert caret.index("^") == source.index("packges")


def test_every_class_of_the_tree_has_the_code_that_the_tree_says() -> None:
    classes = [
        value
        for _, value in inspect.getmembers(tree, inspect.isclass)
        if issubclass(value, IngotError) and value is not IngotError
    ]
    assert len(classes) > 10
    drawn = tree.__doc__ or ""
    for kind in classes:
        line = next(line for line in drawn.splitlines() if f" {kind.__name__} " in line)
        assert line.split(kind.__name__)[1].split()[0] == str(kind.exit_code)


@pytest.mark.parametrize(("number", "code"), [(2, 130), (15, 143), (1, 129)])
def test_an_interruption_counts_as_shells_count(number: int, code: int) -> None:
    assert exit_code(CancelledError("stopped", signal=number)) == code


def test_what_should_not_happen_is_no_error_of_ours() -> None:
    make: list[Callable[[], BaseException]] = [lambda: ValueError("x"), lambda: KeyError("y")]
    assert [as_ours(each()) for each in make] == [None, None]
