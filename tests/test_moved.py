"""A lock whose archive has moved on: a warning, or with `--locked` a refusal."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ingot.api.moved import tell_moved
from ingot.definition.fetch import fetch
from ingot.definition.load import load
from ingot.definition.lock import pins_of, resolve
from ingot.errors import RefusedError
from ingot.model.definition import Definition
from ingot.model.events import Event, Warned
from ingot.model.lock import Lock
from ingot.model.plan import Base, Plan, base_key
from ingot.model.units import Bytes
from tests.definition.test_lock import in_cloud

PROJECT = """\
name: moved
targets:
  local: {{backend: local}}
bases:
  debian:
    local: {{debootstrap: bookworm, mirror: "{mirror}", security: ""}}
images:
  node: {{base: debian, targets: [local]}}
"""


def publish(mirror: Path, content: str) -> None:
    """An archive whose package index has this content."""
    folder = mirror / "dists/bookworm"
    folder.mkdir(parents=True, exist_ok=True)
    checksum = hashlib.sha256(content.encode()).hexdigest()
    (folder / "InRelease").write_text(
        f"Origin: Test\nDate: Sat, 17 May 2025 10:00:00 UTC\nSHA256:\n {checksum} 1 main/binary-amd64/Packages\n"
    )


@pytest.fixture
def definition(tmp_path: Path) -> Definition:
    publish(tmp_path / "mirror", "then")
    (tmp_path / "ingot.yaml").write_text(PROJECT.format(mirror=(tmp_path / "mirror").as_uri()))
    return load(tmp_path).definition


@pytest.fixture
def plan(definition: Definition) -> Plan:
    """A plan with the pins of the archive as it is when the test begins."""
    source = definition.bases["debian"].sources["local"]
    pins = pins_of(
        resolve(definition, Lock(), update=False, fetch=fetch, find=in_cloud),
        "debian",
        source,
        definition.targets["local"],
    )
    disk = Bytes(2**30)
    base = Base(
        name="debian",
        source=source,
        arch="x86_64",
        disk=disk,
        pins=pins,
        key=base_key(source, arch="x86_64", disk=disk, pins=pins),
    )
    return Plan(
        project="moved",
        image="node",
        target="local",
        backend="local",
        location="here",
        arch="x86_64",
        disk=disk,
        base=base,
        layers=(),
    )


def test_an_archive_that_stands_still_is_no_news(definition: Definition, plan: Plan) -> None:
    heard: list[Event] = []
    tell_moved(definition, plan, locked=True, emit=heard.append)
    assert plan.base.pins
    assert not heard


def test_one_that_moved_is_told(definition: Definition, plan: Plan, tmp_path: Path) -> None:
    publish(tmp_path / "mirror", "now")
    heard: list[Event] = []
    tell_moved(definition, plan, locked=False, emit=heard.append)
    (warning,) = heard
    assert isinstance(warning, Warned)
    assert "bookworm" in warning.message
    assert "ingot lock --update" in warning.hint


def test_locked_refuses_it(definition: Definition, plan: Plan, tmp_path: Path) -> None:
    publish(tmp_path / "mirror", "now")
    with pytest.raises(RefusedError, match="--locked"):
        tell_moved(definition, plan, locked=True, emit=lambda event: None)


def test_one_that_cannot_be_asked_is_left_alone(definition: Definition, plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "mirror/dists/bookworm/InRelease").unlink()
    heard: list[Event] = []
    tell_moved(definition, plan, locked=True, emit=heard.append)
    assert not heard
