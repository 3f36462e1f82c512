from __future__ import annotations

from pathlib import Path

import pytest

from ingot.disk.machine import Entry
from ingot.model.units import Seconds
from ingot.provision import seal
from ingot.provision.seal_machine import copy, verify_machine
from ingot.system.waits import Flag
from tests.local_fixtures import Site, cached_base, sh, site
from tests.provision.test_seal import KERNEL, disk, plant

__all__ = ["cached_base", "site"]

# What is looked at differently where it is a link, hidden, empty, or named by /etc/passwd alone.
LINKS = """
mkdir -p '/srv/[odd] home/.ssh' /srv/real/.ssh /var/lib/real
echo odd:x:1002:1002::/srv/[odd] home:/bin/sh >> /etc/passwd
echo key > '/srv/[odd] home/.ssh/authorized_keys'
echo key > /srv/real/.ssh/authorized_keys
ln -s /srv/real /home/linked
ln -sfn /var/lib/real /var/lib/dhcp
echo lease > /var/lib/real/lease
rm -rf /var/crash
ln -s /nowhere /var/crash
rm -f /etc/machine-id
ln -s /nowhere /etc/machine-id
ln -s /etc/hostname /var/log/linked
: > /var/log/empty
echo hidden > /var/log/.hidden
touch /boot/initramfs-6.1.0-9.img
"""


@pytest.mark.local
def test_a_running_machine_is_looked_at_like_a_mounted_disk(site: Site, tmp_path: Path) -> None:
    with site.machine() as machine:
        plant(machine)
        sh(machine, KERNEL + LINKS)
        told = verify_machine(machine.ssh, cancel=Flag(), timeout=Seconds(60.0))
        layer = site.freeze(machine, "used")
    with disk(site, layer, tmp_path / "used") as root:
        assert told == seal.verify(root)
    where = {finding.where for finding in told}
    assert {
        "/srv/[odd] home/.ssh/authorized_keys",
        "/boot/grub/grub.cfg",
        "/boot",
        "/etc/machine-id",
    } <= where
    assert {"/var/log/.hidden", "/var/log/journal/0123"} <= where
    assert where.isdisjoint({"/home/linked/.ssh/authorized_keys", "/var/lib/dhcp/lease", "/var/log/empty"})


def test_names_from_the_machine_lead_nowhere_else(tmp_path: Path) -> None:
    folder, outside = tmp_path / "copy", tmp_path / "outside"
    folder.mkdir()
    entries = [
        Entry(path=path, kind=kind, to=to, size=5, data=b"bytes")
        for path, kind, to in [
            ("/../../outside", "file", ""),
            ("/etc/link", "link", "../../outside"),
            ("/etc/link", "file", ""),
            ("/home/ada", "link", "folder"),
            ("/home/ada/file", "file", ""),
            ("/etc/machine-id", "file", ""),
        ]
    ]
    copy(entries, folder)
    assert not outside.exists()
    assert not list((folder / "folder").iterdir())
    assert (folder / "root/etc/machine-id").read_bytes() == b"bytes"
