"""What a machine contains."""

from __future__ import annotations

import pytest

from ingot.model.image import Package
from ingot.ports import Machine
from ingot.provision import MachineInventory
from ingot.provision.inventory import parse_contents

DPKG = """PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
# a comment
VERSION_ID="12"
ID=debian
== kernel
6.1.0-40-amd64
== packages
zlib1g\t1:1.2.13.dfsg-1\tamd64
libc6\t2.36-9+deb12u10\tamd64
libc6\t2.36-9+deb12u10\ti386
"""


def test_what_dpkg_says_is_read() -> None:
    found = parse_contents(DPKG)
    assert found.packages == (
        Package(name="libc6", version="2.36-9+deb12u10", arch="amd64"),
        Package(name="libc6", version="2.36-9+deb12u10", arch="i386"),
        Package(name="zlib1g", version="1:1.2.13.dfsg-1", arch="amd64"),
    )
    assert found.os_release == {
        "PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)",
        "VERSION_ID": "12",
        "ID": "debian",
    }
    assert found.kernel == "6.1.0-40-amd64"


def test_what_rpm_says_is_read() -> None:
    found = parse_contents("ID='rocky'\n== kernel\n== packages\ngpg-pubkey\t1-2\t(none)\n")
    assert found.packages == (Package(name="gpg-pubkey", version="1-2"),)
    assert found.kernel == ""


@pytest.mark.local
def test_a_machine_is_read(machine: Machine) -> None:
    inventory = MachineInventory()
    names = {package.name for package in inventory.packages(machine)}
    assert {"openssh-server", "python3-apt"} <= names
    assert inventory.os_release(machine)["ID"] == "debian"
    assert inventory.kernel(machine) == ""
