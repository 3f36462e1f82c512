"""Packages, from a real archive, and what is said when the package manager refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingot.errors import ProvisionError
from ingot.model.events import Event, Output
from ingot.model.step import PackagesStep, Step
from ingot.model.units import Seconds
from ingot.ports import Machine
from ingot.provision import MachineInventory, Provisioners
from ingot.provision.packages import MANAGERS, arguments
from ingot.system import ssh
from ingot.system.waits import Flag
from tests.local_fixtures import sh

APT, DNF, _ = MANAGERS


def apply(step: Step, machine: Machine, folder: Path) -> list[str]:
    """The lines that were heard."""
    events: list[Event] = []
    Provisioners(root=folder, directory=folder).apply(
        step, machine, subject="image/local/packages", emit=events.append, cancel=Flag()
    )
    return [event.text for event in events if isinstance(event, Output)]


def installed(machine: Machine) -> dict[str, str]:
    return {package.name: package.version for package in MachineInventory().packages(machine)}


def test_a_version_is_written_as_each_manager_does() -> None:
    step = PackagesStep(install=("munge=0.5", "jq"), remove=("nano",), epoch="week 3")
    assert arguments(step, APT) == ["week 3", "false", "munge=0.5", "jq", "-nano"]
    assert arguments(step, DNF) == ["week 3", "false", "munge-0.5", "jq", "-nano"]


@pytest.mark.local
@pytest.mark.network
def test_packages_are_installed_and_removed_and_the_lists_are_fetched_once(
    online_machine: Machine, tmp_path: Path
) -> None:
    first = apply(PackagesStep(install=("tree", "hello")), online_machine, tmp_path)
    assert any("Packages" in line for line in first)
    there = installed(online_machine)
    assert {"tree", "hello"} <= there.keys()

    second = apply(
        PackagesStep(install=(f"cowsay={candidate(online_machine, 'cowsay')}",), remove=("tree", "nonesuch")),
        online_machine,
        tmp_path,
    )
    assert not any("Packages" in line or "InRelease" in line for line in second)
    there = installed(online_machine)
    assert "cowsay" in there and "tree" not in there

    # Another epoch, or another source, fetches them anew.
    assert fetched(apply(PackagesStep(install=("hello",), epoch="2"), online_machine, tmp_path))
    assert not fetched(apply(PackagesStep(install=("hello",), epoch="2"), online_machine, tmp_path))
    ssh.run(
        online_machine.ssh,
        ["touch", "-d", "2001-01-01", "/etc/apt/sources.list.d/x.list"],
        timeout=Seconds(9.0),
    )
    assert fetched(apply(PackagesStep(install=("hello",), epoch="2"), online_machine, tmp_path))


def candidate(machine: Machine, name: str) -> str:
    listed = ssh.run(machine.ssh, ["apt-cache", "madison", name], timeout=Seconds(30.0)).stdout
    return listed.split("|")[1].strip()


def fetched(lines: list[str]) -> bool:
    return any("InRelease" in line for line in lines)


@pytest.mark.local
@pytest.mark.network
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mungee", "package mungee is not in the archive (did you mean munge?)"),
        ("hello=9", "package hello has no version 9 in the archive; it has 2.10-3"),
    ],
)
def test_what_is_not_there_is_named(name: str, message: str, online_machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(ProvisionError) as caught:
        apply(PackagesStep(install=(name,)), online_machine, tmp_path)
    assert caught.value.message == message
    assert caught.value.facts["step"] == f"packages {name}"
    assert Path(caught.value.facts["log"]).read_text()


@pytest.mark.local
def test_a_mirror_that_is_not_reached_is_named(machine: Machine, tmp_path: Path) -> None:
    sh(machine, "echo 'deb http://127.0.0.1:9/debian bookworm main' > /etc/apt/sources.list")
    with pytest.raises(ProvisionError) as caught:
        apply(PackagesStep(install=("hello",)), machine, tmp_path)
    assert caught.value.message == "the package mirror 127.0.0.1:9 cannot be reached from the machine"
    assert "proxy" in caught.value.hint


@pytest.mark.local
def test_nothing_to_install_needs_no_lists(machine: Machine, tmp_path: Path) -> None:
    apply(PackagesStep(remove=("ca-certificates",)), machine, tmp_path)
    assert "ca-certificates" not in installed(machine)


@pytest.mark.local
def test_a_package_that_refuses_is_named(machine: Machine, tmp_path: Path) -> None:
    # sudo does not let itself be removed where root has no password.
    with pytest.raises(ProvisionError, match=r"apt-get could not remove the packages: .*sudo"):
        apply(PackagesStep(remove=("sudo",)), machine, tmp_path)
