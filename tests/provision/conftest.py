"""What the provisioning tests share: a base, a fresh machine for each test, and a look at what is on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ingot.model.units import Seconds
from ingot.ports import Machine
from ingot.system import ssh
from tests.local_fixtures import Site, cached_base, open_site, sh

__all__ = ["cached_base"]


@pytest.fixture(scope="session")
def own_site(cached_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    return open_site(tmp_path_factory.mktemp("state"), cached_base)


@pytest.fixture
def machine(own_site: Site) -> Iterator[Machine]:
    """A machine that is told to have package lists, so that no test waits for lists that it does not need."""
    with own_site.machine() as made:
        sh(made, "touch /var/lib/apt/lists/none_Packages")
        yield made


@pytest.fixture
def online_machine(own_site: Site) -> Iterator[Machine]:
    """A machine as a build begins with it."""
    with own_site.machine() as made:
        yield made


def read(machine: Machine, path: str) -> str:
    """A file of the machine."""
    return ssh.run(machine.ssh, ["cat", path], timeout=Seconds(30.0)).stdout


def read_folder(machine: Machine, path: str) -> str:
    """The names in a folder of the machine, one a line; "" where it is not there."""
    return ssh.run(
        machine.ssh, ["sh", "-c", 'ls -A "$0" 2>/dev/null || true', path], timeout=Seconds(30.0)
    ).stdout


def worker_of(machine: Machine, site: Site) -> int:
    """The process on this computer that holds the machine."""
    return int((site.state / "local/work" / machine.ref / "holder").read_text().split()[0])
