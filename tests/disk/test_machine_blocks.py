"""The leak scan of a virtual machine with a disk of its own: raw blocks, and a file system mounted below the root."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingot.disk.machine import scan_machine
from ingot.model.secret import Secret
from ingot.model.units import Seconds
from ingot.ports import Needle
from ingot.system.waits import Flag
from tests.backends.local import bases
from tests.local_fixtures import open_site, sh

pytestmark = [pytest.mark.local, pytest.mark.network, pytest.mark.boot, pytest.mark.slow]

NEEDLES = [
    Needle(name=name, value=Secret(f"{name}-q8Zt0kP3vWx9")) for name in ("deleted", "kept", "efi", "nowhere")
]
LEAVE = """
for name in deleted kept; do printf '%s-q8Zt0kP3%s' $name vWx9 >/srv/$name; done
printf 'efi-q8Zt0kP3%s' vWx9 >/boot/efi/left
sync
rm /srv/deleted
sync
"""


def test_deleted_secrets_are_found_in_the_blocks_of_the_machines_own_disk(tmp_path: Path) -> None:
    site = open_site(tmp_path / "state", bases.debian("bookworm"))
    with site.machine("ingot-blocks-1", kind="vm") as machine:
        sh(machine, LEAVE)
        scanned = scan_machine(machine.ssh, NEEDLES, cancel=Flag(), timeout=Seconds(900.0))
    found = {
        (finding.what, finding.where.partition(" at ")[0])
        for finding in scanned.found
        if finding.what != "private key"
    }
    assert found == {("deleted", "block"), ("kept", "/srv/kept"), ("efi", "/boot/efi/left")}
    assert len(scanned.disks) == 1 and scanned.unread == ()
