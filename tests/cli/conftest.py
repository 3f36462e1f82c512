"""Fixtures of the command line's tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ingot.cli.main import run

from .world import world, write_project


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """What a call of the program came to."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document of stdout."""
        return json.loads(self.out)


Ingot = Callable[..., Said]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path / "project")


@pytest.fixture
def ingot(
    project: Path, state: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Ingot]:
    """Runs the program in the project, over the backend in memory."""
    monkeypatch.chdir(project)
    monkeypatch.delenv("CI", raising=False)

    def call(*words: str) -> Said:
        capsys.readouterr()
        code = run(words)
        said = capsys.readouterr()
        return Said(code=code, out=said.out, err=said.err)

    with world(state):
        yield call
