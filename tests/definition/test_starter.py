from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ingot.definition.load import load
from ingot.definition.schema import json_schema
from ingot.definition.starter import starter
from ingot.errors import UsageError
from tests.definition.cases import FOLDER


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in starter("acme").items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_it_is_sound_as_it_is(project: Path) -> None:
    loaded = load(project)
    assert loaded.warnings == ()
    assert [step.kind for step in loaded.definition.images["node"].steps] == ["packages", "roles", "script"]


def test_editors_find_the_schema(project: Path) -> None:
    first = (project / "ingot.yaml").read_text().splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=")
    assert (project / first.partition("=")[2]).is_file()


def test_the_checks_are_python(project: Path) -> None:
    file = project / "checks" / "test_node.py"
    compile(file.read_text(), str(file), "exec")


@pytest.mark.parametrize("name", ["", "Acme", "a b", "-x", "x" * 64])
def test_an_unusable_name(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be called"):
        starter(name)


def test_sound_definitions_satisfy_the_schema(project: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    sound = [
        project / "ingot.yaml",
        *(FOLDER / case / "ingot.yaml" for case in ("whole", "matrix", "secrets")),
    ]
    for file in sound:
        assert [error.message for error in validator.iter_errors(yaml.safe_load(file.read_text()))] == [], (
            file
        )
    assert not validator.is_valid({"name": "x", "imagse": {}})


def test_every_key_is_described() -> None:
    schema = json_schema()
    silent = [
        f"{title}.{key}"
        for title, entry in {"": schema, **schema["$defs"]}.items()
        for key, given in entry.get("properties", {}).items()
        if not given.get("description")
    ]
    assert silent == []


def test_references_may_stand_for_numbers_and_words() -> None:
    properties = json_schema()["$defs"]["PackagesModel"]["properties"]
    reference = {"$ref": "#/$defs/Reference"}
    assert reference in properties["retries"]["anyOf"]


def test_the_schema_refers_to_what_it_has() -> None:
    schema = json_schema()

    def references(value: Any) -> set[str]:
        if isinstance(value, dict):
            own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
            return own.union(*(references(item) for item in value.values()))
        return set().union(*(references(item) for item in value)) if isinstance(value, list) else set()

    assert {name.removeprefix("#/$defs/") for name in references(schema)} <= set(schema["$defs"])
