from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from ingot.lifecycle import testinfra
from ingot.lifecycle.testinfra_plugin import short_name
from ingot.model.image import CheckResult
from ingot.model.units import Seconds
from ingot.ports import SshAccess
from ingot.system.waits import Flag

CHECKS = """
import pytest

def test_equal(host):
    assert host.backend.hostname == "node-1"

@pytest.mark.parametrize("port", [22, 6817])
def test_port(host, port):
    assert port == 22, "no one listens"

@pytest.mark.skip(reason="not on this node")
def test_skipped(host):
    raise AssertionError

@pytest.fixture
def broken():
    raise RuntimeError("no fixture today")

def test_setup(broken):
    pass
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """A machine that is never connected to: these tests look at how pytest is run."""

    ref: str = "node-1"
    ssh: SshAccess
    kind: Literal["chroot", "booted", "vm", "instance"] = "vm"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "project/checks").mkdir(parents=True)
    return tmp_path / "project"


def run(project: Path, *paths: str, timeout: float = 60.0) -> dict[str, CheckResult]:
    config = project.parent / "config"
    config.write_text("Host node-1\n  HostName 127.0.0.1\n")
    found = testinfra.run(
        [project / path for path in paths],
        Named(ssh=SshAccess(config=config, host="node-1")),
        root=project,
        directory=project.parent / "run",
        timeout=Seconds(timeout),
        cancel=Flag(),
    )
    return {result.name: result for result in found}


def test_each_test_is_a_result_with_what_pytest_says(project: Path) -> None:
    (project / "checks/test_node.py").write_text(CHECKS)
    before = sorted(project.rglob("*"))
    results = run(project, "checks")
    assert {name.partition("::")[2]: result.outcome for name, result in results.items()} == {
        "test_equal": "passed",
        "test_port[22]": "passed",
        "test_port[6817]": "failed",
        "test_skipped": "skipped",
        "test_setup": "failed",
    }
    assert "no one listens" in results["checks/test_node.py::test_port[6817]"].message
    assert "6817 == 22" in results["checks/test_node.py::test_port[6817]"].message
    assert "no fixture today" in results["checks/test_node.py::test_setup"].message
    assert results["checks/test_node.py::test_skipped"].message == "not on this node"
    assert sorted(project.rglob("*")) == before, "checks leave nothing in the project"


def test_a_path_without_tests_and_a_missing_one_fail(project: Path) -> None:
    (project / "checks/test_node.py").write_text("def test_fine():\n    pass\n")
    (project / "empty").mkdir()
    results = run(project, "checks", "empty", "gone")
    assert results["checks/test_node.py::test_fine"].outcome == "passed"
    assert "no test was found" in results["empty"].message
    assert "no such file" in results["gone"].message
    assert results["empty"].outcome == results["gone"].outcome == "failed"


def test_checks_may_lie_outside_of_the_project(project: Path) -> None:
    (project.parent / "shared").mkdir()
    (project.parent / "shared/test_node.py").write_text("def test_fine():\n    pass\n")
    assert [result.outcome for result in run(project, "../shared").values()] == ["passed"]


def test_a_file_that_cannot_be_read_as_python_fails(project: Path) -> None:
    (project / "checks/test_node.py").write_text("def test_(:\n")
    results = run(project, "checks")
    assert [result.outcome for result in results.values()] == ["failed", "failed"]
    assert any("SyntaxError" in result.message for result in results.values())


def test_what_hangs_is_ended_and_told(project: Path) -> None:
    (project / "checks/test_node.py").write_text(
        "import time\n\ndef test_first():\n    pass\n\ndef test_hangs():\n    time.sleep(600)\n"
    )
    results = run(project, "checks", timeout=6.0)
    assert results["checks/test_node.py::test_first"].outcome == "passed"
    assert "was ended after 6.0s" in results["pytest"].message


def test_settings_of_a_folder_above_the_project_do_not_apply(project: Path) -> None:
    (project.parent / "pytest.ini").write_text("[pytest]\npython_files = never_*.py\n")
    (project / "checks/test_node.py").write_text("def test_fine():\n    pass\n")
    assert run(project, "checks")["checks/test_node.py::test_fine"].outcome == "passed"


def test_settings_of_the_project_apply(project: Path) -> None:
    (project / "pytest.ini").write_text("[pytest]\npython_files = look_*.py\n")
    (project / "checks/look_node.py").write_text("def test_fine():\n    pass\n")
    assert run(project, "checks")["checks/look_node.py::test_fine"].outcome == "passed"


@pytest.mark.parametrize(
    ("nodeid", "expected"),
    [
        ("a.py::test", "a.py::test"),
        ("a.py::test[ssh://node-1]", "a.py::test"),
        ("a.py::test[ssh://node-1-x-y]", "a.py::test[x-y]"),
        ("a.py::test[x-ssh://node-1]", "a.py::test[x]"),
        ("a.py::test[x]", "a.py::test[x]"),
    ],
)
def test_names_are_without_the_host(nodeid: str, expected: str) -> None:
    assert short_name(nodeid, "ssh://node-1") == expected
