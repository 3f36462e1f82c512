"""Ansible content that was not written for Ingot builds unchanged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .conftest import Build

FOREIGN = Path(__file__).parents[1] / "data/foreign"
pytestmark = [pytest.mark.local, pytest.mark.network]


def test_roles_of_the_ansible_package(build: Build, tmp_path: Path) -> None:
    """The definition's last step looks at what the roles have made."""
    project = shutil.copytree(FOREIGN / "collections", tmp_path / "collections")
    _, layers = build(project, "monitored")
    roles = {task.role for tasks in layers.values() for task in tasks if task.outcome == "changed"}
    assert len(roles) >= 4, roles


@pytest.mark.parametrize(("workload_manager", "engine"), [("slurm", "auto"), ("pbs", "ansible")], ids=str)
def test_playbook_with_what_such_ones_use(
    build: Build, tmp_path: Path, workload_manager: str, engine: str
) -> None:
    project = shutil.copytree(FOREIGN / "determined-like", tmp_path / "determined-like")
    _, layers = build(project, f"environments-{workload_manager}", engine=engine)
    tasks = [task for each in layers.values() for task in each]
    outcomes = {task.task: task.outcome for task in tasks}
    assert outcomes["Install the launcher"] == "skipped"
    assert outcomes["Ask for a tool that is not there"] in ("failed", "ignored")
    assert outcomes["Say that there is no self-test"] == "changed"
    assert "Something that nobody asks for" not in outcomes
    assert "restart cron" in outcomes and "reload units" in outcomes
    assert "a licence that only the vault knows" not in str(tasks)
