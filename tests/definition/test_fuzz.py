"""Hostile definitions: mutated text and mutated trees of sound ones give a definition or problems, nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingot.definition.load import load
from ingot.errors import DefinitionError
from ingot.model.digest import digest
from tests.definition.cases import FOLDER

SEEDS = (
    "whole",
    "steps",
    "matrix",
    "variables",
    "secrets",
    "include",
    "clouds",
    "role-variables",
    "bad-steps",
)
_FRAGMENTS = (
    "${", "${x}", "$${", "{{ x }}", "*a", "&a ", "<<: *a", "- ", ": ", "\n", "\t", "'", '"', "[", "]", "{", "}", "|\n",
    "0644", "1.24", "~", "no", "2024-01-01", "1e400", "9" * 30, "\x00", "\ue000", "\ud800", "\ufeff", "---\n", "!!python/object",
    "../..", "/", "include: ['*']", "from: node", "when: a.b", "when: ((((", "matrix: {a: [b]}", "İ", "é", "-", "<list>",
)  # fmt: skip
_VALUES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=True),
    st.sampled_from(
        (
            "${partition}",
            "${cores}",
            "node",
            "a b",
            "",
            "1.10",
            "\x00",
            "../x",
            "8 GiB",
            "9y",
            "=",
            "x=",
            "{{",
        )
    ),
    st.text(max_size=12),
    st.lists(st.text(max_size=4), max_size=3),
    st.dictionaries(st.text(max_size=6), st.integers(), max_size=3),
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder with the files of all seeds."""
    folder = tmp_path_factory.mktemp("fuzz")
    for seed in SEEDS:
        shutil.copytree(FOLDER / seed, folder, dirs_exist_ok=True)
    return folder


def _try(project: Path, data: bytes, variables: dict[str, str]) -> None:
    (project / "ingot.yaml").write_bytes(data)
    try:
        loaded = load(project, variables=variables, environment={"ACME_TOKEN": "x", "ACME_REGION": "y"})
    except DefinitionError as error:
        told = error.problems
    else:
        digest(loaded.definition)  # what was taken has a canonical form: a plan's keys are made of it
        return
    assert told
    for problem in told:
        assert problem.message and problem.hint and (problem.line or problem.path), problem


_SETTINGS = settings(
    max_examples=1000,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@_SETTINGS
@given(
    seed=st.sampled_from(SEEDS),
    edits=st.lists(
        st.tuples(
            st.integers(0, 2000),
            st.integers(0, 12),
            st.one_of(st.sampled_from(_FRAGMENTS), st.text(max_size=3)),
        ),
        min_size=1,
        max_size=4,
    ),
    variables=st.dictionaries(
        st.sampled_from(("cores", "partition", "packages", "token")), st.text(max_size=5)
    ),
)
def test_mutated_text(
    project: Path, seed: str, edits: list[tuple[int, int, str]], variables: dict[str, str]
) -> None:
    text = (FOLDER / seed / "ingot.yaml").read_text()
    for where, length, fragment in edits:
        at = where % (len(text) + 1)
        text = text[:at] + fragment + text[at + length :]
    _try(project, text.encode(errors="surrogatepass"), variables)


@_SETTINGS
@given(seed=st.sampled_from(SEEDS), data=st.data())
def test_mutated_tree(project: Path, seed: str, data: st.DataObject) -> None:
    tree = yaml.safe_load((FOLDER / seed / "ingot.yaml").read_text())
    for _ in range(data.draw(st.integers(1, 3))):
        tree = _mutate(tree, data)
    _try(project, yaml.safe_dump(tree, allow_unicode=True).encode(errors="surrogatepass"), {})


def _mutate(tree: Any, data: st.DataObject) -> Any:
    """Changes, removes, renames, repeats or swaps one part of the tree."""
    spots = list(_spots(tree))
    if not spots:
        return data.draw(_VALUES)
    around, key = data.draw(st.sampled_from(spots))
    kind = data.draw(st.sampled_from(("value", "remove", "rename", "swap", "wrap")))
    if kind == "value":
        around[key] = data.draw(_VALUES)
    elif kind == "remove":
        del around[key]
    elif kind == "rename" and isinstance(around, dict):
        around[
            data.draw(st.one_of(st.text(max_size=8), st.sampled_from(("from", "when", "layer", "vars"))))
        ] = around.pop(key)
    elif kind == "swap":
        other, there = data.draw(st.sampled_from(spots))
        around[key] = yaml.safe_load(yaml.safe_dump(other[there]))
    else:
        around[key] = data.draw(st.sampled_from(({"a": None}, [None], [[]], {"": {}}, {"src": "x"})))
    return tree


def _spots(tree: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(tree, (dict, list)):
        for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
            yield tree, key
            yield from _spots(tree[key])
