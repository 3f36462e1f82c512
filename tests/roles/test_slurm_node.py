"""The roles of the collection on real machines: applied twice, booted, checked, and broken."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ingot.api import Workspace
from tests.booting import boot_to_login

from .conftest import Build

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests/data/roles"
EXAMPLE = ROOT / "examples/slurm-node"
ROLES = {"munge", "slurm", "openmpi", "node_exporter", "chrony"}


@pytest.mark.local
@pytest.mark.network
@pytest.mark.parametrize("image", ["twice-debian-12", "twice-debian-13"])
def test_roles_change_nothing_the_second_time_and_leave_nothing_behind(
    build: Build, tmp_path: Path, image: str
) -> None:
    """The definition's last step looks for services that run and for MUNGE's key."""
    project = shutil.copytree(DATA / "twice", tmp_path / "twice")
    _, layers = build(project, image)
    first, second = (
        [(task.role, task.task) for task in layers[layer] if task.outcome == "changed"]
        for layer in ("first", "second")
    )
    assert {role.removeprefix("ingot.cluster.") for role, _ in first} >= ROLES
    assert second == []
    assert len(layers["second"]) > len(ROLES)


@pytest.fixture(scope="module")
def checked(build: Build, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """Outcome and message of every check of the example after a real boot: its own, then those that break things."""
    project = tmp_path_factory.mktemp("project") / "slurm-node"
    shutil.copytree(EXAMPLE, project)
    shutil.copy(DATA / "broken_checks.py", project / "checks/test_zz_broken.py")
    outcome, _ = build(project, "slurm-node", check=True)
    assert outcome.checks
    return {result.name: (result.outcome, result.message) for result in outcome.checks.results}


@pytest.mark.local
@pytest.mark.boot
@pytest.mark.network
class TestBooted:
    def test_node_passes_every_check(self, checked: dict[str, tuple[str, str]]) -> None:
        own = {name: result for name, result in checked.items() if "test_zz_broken" not in name}
        assert not {name: result for name, result in own.items() if result[0] != "passed"}
        for part in (
            "node_is_idle",
            "two_tasks_run",
            "over_two_ranks",
            "node_exporter_answers",
            "chrony_runs",
        ):
            assert [name for name in own if part in name], part

    def test_every_check_fails_when_its_service_is_broken(self, checked: dict[str, tuple[str, str]]) -> None:
        broken = {name: result for name, result in checked.items() if "test_zz_broken" in name}
        assert len(broken) >= 9
        assert not {name: result for name, result in broken.items() if result[0] != "passed"}


@pytest.mark.local
@pytest.mark.boot
@pytest.mark.network
@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_exported_disk_boots_without_ingot(firmware: str, shared_state: Path, tmp_path: Path) -> None:
    project = shutil.copytree(EXAMPLE, tmp_path / "slurm-node")
    workspace = Workspace.open(project, state=shared_state)
    (outcome,) = workspace.build(["slurm-node"]).outcomes
    assert outcome.status in ("built", "reused"), outcome.error
    disk = workspace.export("slurm-node", output=tmp_path / "node.qcow2").path
    text = boot_to_login(disk, firmware=firmware, folder=tmp_path)
    assert not [line for line in text.splitlines() if "Failed to start" in line or "[FAILED]" in line]
    assert "Press any key" not in text
