"""One state folder for all builds of a session, so that they share their base and what else they have in common."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ingot.api import Workspace
from ingot.model.events import Event, LayerStarted, TaskFinished
from ingot.model.image import Outcome

Tasks = dict[str, list[TaskFinished]]
"""What Ansible's tasks came to, by layer."""
Build = Callable[..., tuple[Outcome, Tasks]]


@pytest.fixture(scope="session")
def build(shared_state: Path) -> Build:
    """Builds one image of a project; returns its outcome and its tasks."""
    if os.geteuid() != 0:
        pytest.skip("chroot machines need root")

    def run(project: Path, image: str, *, check: bool = False, **variables: str) -> tuple[Outcome, Tasks]:
        layers: Tasks = {}

        def hear(event: Event) -> None:
            if isinstance(event, LayerStarted):
                layers[event.layer] = []
            if isinstance(event, TaskFinished):
                list(layers.values())[-1].append(event)

        workspace = Workspace.open(project, variables=variables, state=shared_state)
        (outcome,) = workspace.build([image], check=check, emit=hear).outcomes
        assert outcome.status == "built", outcome.error
        return outcome, layers

    return run
