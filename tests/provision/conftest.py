"""What the provisioning tests share: a base, a fresh machine for each test, and a listener for events."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingot.model.units import Seconds
from ingot.ports import Machine
from ingot.system import ssh
from tests.provision.chroot import chroot_machine, make_base


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    given = os.environ.get("INGOT_TEST_ROOT")
    folder = Path(given) if given else tmp_path_factory.mktemp("base") / "root"
    if not folder.exists():
        make_base(folder)
    return folder


@pytest.fixture
def machine(base: Path) -> Iterator[Machine]:
    with tempfile.TemporaryDirectory(prefix="i-") as folder, chroot_machine(base, Path(folder)) as made:
        yield made


@pytest.fixture
def online_machine(base: Path) -> Iterator[Machine]:
    with (
        tempfile.TemporaryDirectory(prefix="i-") as folder,
        chroot_machine(base, Path(folder), network=True) as made,
    ):
        yield made


def read(machine: Machine, path: str) -> str:
    """A file of the machine."""
    return ssh.run(machine.ssh, ["cat", path], timeout=Seconds(30.0)).stdout


def read_folder(machine: Machine, path: str) -> str:
    """The names in a folder of the machine, one a line; "" where it is not there."""
    return ssh.run(
        machine.ssh, ["sh", "-c", 'ls -A "$0" 2>/dev/null || true', path], timeout=Seconds(30.0)
    ).stdout
