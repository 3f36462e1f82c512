from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ingot.backends.local.holder import mounted
from ingot.errors import ProvisionError
from ingot.model.events import Event, Output, ignore
from ingot.model.image import LayerRef
from ingot.model.step import SealStep
from ingot.model.units import Seconds
from ingot.ports import Finding, Machine
from ingot.provision import seal
from ingot.provision.seal_machine import verify_machine
from ingot.system.waits import Flag
from tests.local_fixtures import Site, cached_base, sh, site

__all__ = ["cached_base", "site"]

# What building leaves: each line is a file with something in it.
LEFT = [
    "/etc/machine-id",
    "/var/lib/dbus/machine-id",
    "/etc/ssh/ssh_host_rsa_key",
    "/root/.ssh/authorized_keys",
    "/root/.ssh/authorized_keys2",
    "/home/ada/.ssh/authorized_keys",
    "/var/lib/daemon/.ssh/authorized_keys",
    "/srv/app/.ssh/authorized_keys",
    "/etc/skel/.ssh/authorized_keys",
    "/root/.bash_history",
    "/root/.python_history",
    "/root/.mysql_history",
    "/root/.lesshst",
    "/root/.wget-hsts",
    "/root/.ansible/tmp/module",
    "/root/.cache/pip/wheel",
    "/home/ada/.zsh_history",
    "/home/ada/.cache/thing",
    "/var/log/dpkg.log",
    "/var/log/syslog.1",
    "/var/log/apt/term.log",
    "/var/log/apt/history.log.1.gz",
    "/var/log/daemon/own.log",
    "/var/log/journal/0123/system.journal",
    "/var/log/installer/status",
    "/var/lib/dhcp/dhclient.eth0.leases",
    "/var/lib/NetworkManager/internal-1.lease",
    "/var/lib/systemd/random-seed",
    "/var/lib/systemd/credential.secret",
    "/var/lib/cloud/instances/i-1/user-data.txt",
    "/var/lib/cloud/data/instance-id",
    "/var/lib/apt/lists/deb.debian.org_Packages",
    "/var/cache/apt/archives/tree_1.deb",
    "/var/cache/apt/pkgcache.bin",
    "/var/lib/dpkg/status-old",
    "/var/crash/core.1",
    "/var/mail/root",
    "/etc/udev/rules.d/70-persistent-net.rules",
    "/var/tmp/left/over",
]
# What somebody put there on purpose.
KEPT = [
    "/root/.ssh/known_hosts",
    "/root/.bashrc",
    "/home/ada/.ssh/config",
    "/home/ada/work",
    "/var/lib/cloud/scripts/per-boot/mount.sh",
    "/var/lib/daemon/state",
]


@contextmanager
def disk(site: Site, layer: LayerRef, folder: Path) -> Iterator[Path]:
    """The root of a layer's disk, not booted."""
    records = site.backend.store.verify(layer.content)
    with mounted(site.backend.store.files(records), folder, writable=False) as held:
        yield held.outside(held.root)


def plant(machine: Machine) -> None:
    lines = [f'mkdir -p "$(dirname {path})"; echo planted > {path}' for path in (*LEFT, *KEPT)]
    passwd = [
        "echo ada:x:1000:1000::/home/ada:/bin/bash >> /etc/passwd",
        "echo app:x:1001:1001::/srv/app:/bin/sh >> /etc/passwd",
    ]
    script = ["rm -f /etc/machine-id /var/lib/dbus/machine-id", *passwd, *lines]
    more = ["chown 33:4 /var/log/daemon /var/log/daemon/own.log", "chmod 0640 /var/log/daemon/own.log"]
    sh(machine, "\n".join([*script, *more, "echo node-17 > /etc/hostname"]))


@pytest.mark.local
def test_a_disk_is_sealed_and_says_so_unbooted(site: Site, tmp_path: Path) -> None:
    with site.machine() as machine:
        plant(machine)
        told_there = verify_machine(machine.ssh, cancel=Flag(), timeout=Seconds(60.0))
        used = site.freeze(machine, "used")
        site.attach(machine)
        seal.apply(SealStep(), machine, subject="test", emit=ignore, cancel=Flag())
        assert verify_machine(machine.ssh, cancel=Flag(), timeout=Seconds(60.0)) == ()
        found = site.backend.hosts.scan(machine, [], cancel=Flag())
        sealed = site.freeze(machine, "sealed", sealed=True)
    assert found == ()
    with disk(site, used, tmp_path / "used") as root:
        assert told_there == seal.verify(root)
        told = {finding.where for finding in told_there}
        missed = {path for path in LEFT if not any(path.startswith(where) for where in told)}
        # Not looked for again: caches and mail are emptied, but nobody is harmed by them.
        assert missed <= {path for path in LEFT if re.search(r"\.cache|\.ansible|mail|-old|Network", path)}
    with disk(site, sealed, tmp_path / "sealed") as root:
        assert seal.verify(root) == ()
        for path in LEFT:
            file = root / path.lstrip("/")
            assert not file.is_file() or file.is_symlink() or file.stat().st_size == 0, path
        for path in KEPT:
            assert (root / path.lstrip("/")).read_text() == "planted\n", path
        assert (root / "etc/machine-id").read_bytes() == b""
        assert (root / "var/lib/dbus/machine-id").readlink() == Path("/etc/machine-id")
        assert (root / "etc/hostname").read_text() == "localhost\n"
        log = (root / "var/log/daemon/own.log").stat()
        assert (log.st_uid, log.st_gid, log.st_mode & 0o777) == (33, 4, 0o640)
        assert (root / "etc/systemd/system/multi-user.target.wants/ingot-ssh-keys.service").is_symlink()


@pytest.mark.local
def test_sealing_twice_changes_nothing_more(site: Site) -> None:
    with site.machine() as machine:
        seal.apply(SealStep(), machine, subject="test", emit=ignore, cancel=Flag())
        listing = "find / -xdev -path /run -prune -o -printf '%p %y %m %s %l\\n' | sort"
        first = sh(machine, listing).stdout
        seal.apply(SealStep(), machine, subject="test", emit=ignore, cancel=Flag())
        assert sh(machine, listing).stdout == first
        assert "/etc/machine-id f 444 0" in first


@pytest.mark.local
def test_the_host_keys_that_a_machine_makes_on_its_first_boot(site: Site) -> None:
    with site.machine() as machine:
        seal.apply(SealStep(), machine, subject="test", emit=ignore, cancel=Flag())
        unit = sh(machine, "cat /etc/systemd/system/ingot-ssh-keys.service").stdout
        (command,) = re.findall(r"^ExecStart=(.+)$", unit, re.MULTILINE)
        script = f"rm -f /etc/ssh/ssh_host_*; {command} >/dev/null; cat /etc/ssh/*.pub"
        first, second = (sh(machine, script).stdout.splitlines() for _ in "ab")
        assert any(line.startswith("ssh-ed25519 ") for line in first)
        assert set(first).isdisjoint(second)
        assert sh(machine, "systemd-analyze verify --man=no ingot-ssh-keys.service 2>&1").stdout == ""


KERNEL = """
mkdir -p /lib/modules/6.1.0-9 /lib/modules/6.1.0-10 /boot/grub /usr/local/bin
touch /boot/vmlinuz-6.1.0-9 /boot/vmlinuz-6.1.0-10
echo old > /boot/initrd.img-6.1.0-9
printf 'UUID=abcd / ext4 defaults 0 1\\n' > /etc/fstab
printf 'menuentry x {\\n linux /boot/vmlinuz-6.1.0-9 root=/dev/loop0p3 ro\\n initrd /boot/initrd.img-6.1.0-9\\n}\\n' > /boot/grub/grub.cfg
cat > /usr/local/bin/update-initramfs <<'TOOL'
#!/bin/sh
echo "$@" >> /root/calls
echo made > "/boot/initrd.img-6.1.0-10"
TOOL
chmod 755 /usr/local/bin/update-initramfs
"""


@pytest.mark.local
def test_the_newest_kernel_gets_an_initramfs_and_an_entry_only_when_it_needs_them(site: Site) -> None:
    def calls(machine: Machine) -> str:
        seal.apply(SealStep(), machine, subject="test", emit=ignore, cancel=Flag())
        return sh(machine, "cat /root/calls").stdout

    with site.machine() as machine:
        sh(machine, KERNEL)
        assert calls(machine) == "-c -k 6.1.0-10\n"
        config = sh(machine, "cat /boot/grub/grub.cfg").stdout
        assert "vmlinuz-6.1.0-10 root=UUID=abcd ro" in config and "initrd.img-6.1.0-10" in config
        assert calls(machine) == "-c -k 6.1.0-10\n", "nothing is stale now"
        # A package's file is older than the initramfs by its own time, and newer by when it came here.
        sh(machine, "sleep 0.05; touch -d 2001-01-01 /lib/modules/6.1.0-10/driver.ko")
        assert calls(machine) == "-c -k 6.1.0-10\n-u -k 6.1.0-10\n"


@pytest.mark.local
def test_a_failure_is_told_with_the_scripts_own_words(site: Site, tmp_path: Path) -> None:
    heard: list[Event] = []
    with site.machine() as machine:
        sh(machine, KERNEL + "printf '#!/bin/sh\\nexit 3\\n' > /usr/local/bin/update-initramfs")
        with pytest.raises(ProvisionError, match="update-initramfs could not make the initramfs") as error:
            seal.apply(
                SealStep(), machine, subject="test", emit=heard.append, cancel=Flag(), log=tmp_path / "log"
            )
    assert error.value.log == str(tmp_path / "log")
    assert any(isinstance(event, Output) for event in heard)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "etc/ssh").mkdir(parents=True)
    (tmp_path / "etc/machine-id").write_text("0123\n")
    (tmp_path / "etc/ssh/ssh_host_rsa_key").write_text("key")
    (tmp_path / "etc/resolv.conf").write_text("nameserver 192.0.2.1\n")
    (tmp_path / "lib/modules/6.1.0-9").mkdir(parents=True)
    (tmp_path / "boot/grub").mkdir(parents=True)
    (tmp_path / "boot/vmlinuz-6.1.0-9").touch()
    (tmp_path / "boot/grub/grub.cfg").write_text("linux /boot/vmlinuz-6.1.0-9 root=/dev/loop3p3\n")
    (tmp_path / "root/.ssh").mkdir(parents=True)
    (tmp_path / "root/.ssh/authorized_keys").write_text("ssh-ed25519 AAAA\n")
    where = {finding.where for finding in seal.verify(tmp_path)}
    assert where == {
        "/etc/machine-id",
        "/etc/ssh/ssh_host_rsa_key",
        "/root/.ssh/authorized_keys",
        "/etc/resolv.conf",
        "/boot",
        "/boot/grub/grub.cfg",
    }
    assert Finding(what="no initramfs for the kernel 6.1.0-9", where="/boot") in seal.verify(tmp_path)


def test_versions_of_kernels_are_compared_as_numbers(tmp_path: Path) -> None:
    for version in ("6.1.0-9-amd64", "6.1.0-10-amd64", "5.19.0-99-amd64"):
        (tmp_path / "lib/modules" / version).mkdir(parents=True)
        (tmp_path / "boot").mkdir(exist_ok=True)
        (tmp_path / "boot" / f"vmlinuz-{version}").touch()
    assert seal.newest_kernel(tmp_path) == "6.1.0-10-amd64"
