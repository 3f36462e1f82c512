"""One state folder for all builds of a session, so that they share their base and what else they have in common."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ingot.api import Workspace
from ingot.model.events import Event, TaskFinished
from ingot.model.image import Outcome

Build = Callable[..., tuple[Outcome, list[TaskFinished]]]


@pytest.fixture(scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("roles-state")


@pytest.fixture(scope="session")
def build(state: Path) -> Build:
    """Builds one image of a project; returns its outcome and what Ansible's tasks came to."""
    if os.geteuid() != 0:
        pytest.skip("chroot machines need root")

    def run(
        project: Path, image: str, *, check: bool = False, **variables: str
    ) -> tuple[Outcome, list[TaskFinished]]:
        tasks: list[TaskFinished] = []

        def hear(event: Event) -> None:
            if isinstance(event, TaskFinished):
                tasks.append(event)

        workspace = Workspace.open(project, variables=variables, state=state)
        (outcome,) = workspace.build([image], check=check, emit=hear).outcomes
        assert outcome.status == "built", outcome.error
        return outcome, tasks

    return run
