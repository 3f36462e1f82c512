"""A disk whose /boot is a partition of its own, as Ubuntu's and Fedora's cloud images have it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingot.backends.local import chain, holder, layout
from ingot.errors import BackendError
from ingot.model.secret import Secret
from ingot.model.units import Bytes, Seconds
from ingot.ports import Needle
from ingot.system import process
from ingot.system.waits import Flag
from tests.local_fixtures import Site, cached_base, open_site, sh

__all__ = ["cached_base"]

MIB = 2**20
FSTAB = "# / was on /dev/sda1\nLABEL=root / ext4 defaults 0 1\n{} /boot ext4 defaults 0 2\nUUID=A /boot/efi vfat umask=0077 0 1\n"


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("LABEL=BOOT", ("LABEL", "BOOT")),
        ('UUID="1-2"', ("UUID", "1-2")),
        ("PARTUUID=ab", ("PARTUUID", "ab")),
        ("/dev/sda2", None),
        ("#LABEL=BOOT", None),
    ],
)
def test_fstab_says_what_is_mounted_on_boot(line: str, found: tuple[str, str] | None) -> None:
    assert layout.boot_source(FSTAB.format(line)) == found


def divided(base: Path, folder: Path, *, source: str) -> Path:
    """The base with a second partition, labelled BOOT, and an fstab that mounts `source` on /boot."""
    top, flat = folder / "top.qcow2", folder / "flat.qcow2"
    chain.create(top, Bytes(chain.read_header(base).size + 128 * MIB))
    files = [base, top]
    with holder.hold(folder / "ns") as held:
        held.export(files, writable=True)
        held.tool(["sfdisk", "--quiet", "--relocate", "gpt-bak-std", str(held.raw)])
        words = ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", "--append", str(held.raw)]
        held.tool(words, text="size=64MiB,type=BC13C2FF-59E6-4262-A352-B275FD6F7172\n")
        held.unexport()
        part = held.export(files, writable=True).partitions[-1][0]
        words = ["mke2fs", "-q", "-t", "ext4", "-L", "BOOT", "-E", f"offset={part.start}", str(held.raw)]
        held.tool([*words, f"{part.size // 1024}k"])
        held.unexport()
        held.export(files, writable=True)
        held.mount(held.exported.root if held.exported else None)
        (held.outside(held.root) / "etc/fstab").write_text(FSTAB.format(source))
        held.unmount(trim=False)
        held.unexport()
    process.run(
        ["qemu-img", "convert", "-O", "qcow2", chain.nested(files), str(flat)], timeout=Seconds(300.0)
    )
    return flat


@pytest.fixture(scope="module")
def boot_site(cached_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("divided")
    return open_site(folder / "state", divided(cached_base, folder, source="LABEL=BOOT"))


@pytest.mark.local
def test_what_a_machine_writes_to_boot_is_on_its_partition(boot_site: Site, tmp_path: Path) -> None:
    layer = boot_site.layer("kernel", "mountpoint -q /boot; echo new > /boot/vmlinuz-new")
    files = boot_site.backend.store.files(boot_site.backend.store.verify(layer.content))
    with holder.mounted(files, tmp_path / "whole", writable=False) as held:
        assert held.below == ("boot",)
        assert (held.outside(held.root) / "boot/vmlinuz-new").read_text() == "new\n"
    with holder.mounted(
        files, tmp_path / "root", writable=False, where=lambda exported: exported.root
    ) as held:
        assert not (held.outside(held.root) / "boot/vmlinuz-new").exists()


@pytest.mark.local
def test_the_leak_scan_reads_boot_too(boot_site: Site) -> None:
    needle = Needle(name="the secret token", value=Secret("correct-horse-battery"))
    with boot_site.machine("ingot-boot-1") as machine:
        sh(machine, "echo password=correct-horse-battery > /boot/grub.conf")
        (found,) = boot_site.backend.hosts.scan(machine, [needle], cancel=Flag())
    assert (found.what, found.where) == ("the secret token", "/boot/grub.conf")


@pytest.mark.local
def test_a_boot_partition_that_is_not_there_is_told(cached_base: Path, tmp_path: Path) -> None:
    site = open_site(tmp_path / "state", divided(cached_base, tmp_path, source="LABEL=OTHER"))
    with pytest.raises(BackendError, match="mounts LABEL=OTHER on /boot"), site.machine():
        pass
