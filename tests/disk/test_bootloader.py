"""GRUB's pieces on a disk: the bytes that start it, its menu, and the EFI partition."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from ingot.disk import bootloader
from ingot.disk.layout import SECTOR, plan_layout
from ingot.model.units import Seconds
from ingot.system import process

LAYOUT = plan_layout("key", 4 * 2**30)
BOOT_IMG = Path("/usr/lib/grub/i386-pc/boot.img")


def test_the_partition_table_survives_the_boot_code() -> None:
    sector = bytes(range(256)) * 2
    made = bootloader.boot_sector(sector, b"\xeb" * SECTOR, 4 * 2**20)
    assert len(made) == SECTOR and made[440:] == sector[440:]
    assert struct.unpack_from("<Q", made, 0x5C) == (8192,)
    assert made[0x64:0x68] == b"\xff\xeb\x90\x90"


@pytest.mark.parametrize(("size", "rest"), [(512, 0), (513, 1), (1024, 1), (30000, 58)])
def test_the_core_image_finds_its_rest(size: int, rest: int) -> None:
    core = bootloader.core_image(b"c" * size, 2**20)
    assert len(core) == (rest + 1) * SECTOR
    assert struct.unpack_from("<QHH", core, SECTOR - 12) == (2049, rest, 0x820)


def test_bios_code_lands_in_its_partition(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(LAYOUT.size)
    bootloader.write_bios(disk, LAYOUT, boot_img=BOOT_IMG.read_bytes(), core_img=b"core" * 1000)
    with disk.open("rb") as file:
        assert file.read(2) == BOOT_IMG.read_bytes()[:2]
        file.seek(LAYOUT.bios.start)
        assert file.read(4) == b"core"
        file.seek(LAYOUT.bios.start + SECTOR)
        assert file.read(8) == b"corecore"


def test_the_menu_names_every_kernel_newest_first() -> None:
    menu = bootloader.grub_config(LAYOUT.root_fs, ["6.12.1-amd64", "6.1.0-50-amd64"])
    entries = [line.split('"')[1] for line in menu.splitlines() if line.startswith("menuentry")]
    assert entries == ["Linux 6.12.1-amd64", "Linux 6.1.0-50-amd64"]
    assert menu.count(f"root=UUID={LAYOUT.root_fs} ro console=tty0 console=ttyS0,115200") == 2
    assert "/dev/" not in menu


def test_grub_understands_the_menu(tmp_path: Path) -> None:
    path = tmp_path / "grub.cfg"
    path.write_text(bootloader.grub_config(LAYOUT.root_fs, ["6.1.0-50-amd64"]))
    process.run(["grub-script-check", str(path)], timeout=Seconds(30.0))
    path.write_text(bootloader.early_config(LAYOUT.root_fs))
    process.run(["grub-script-check", str(path)], timeout=Seconds(30.0))


def test_the_efi_partition_holds_grub_where_firmware_looks(tmp_path: Path) -> None:
    disk, program = tmp_path / "disk", tmp_path / "core.efi"
    with disk.open("wb") as file:
        file.truncate(LAYOUT.size)
    program.write_bytes(b"MZ efi" * 50_000)
    for argv in bootloader.esp_argvs(LAYOUT, str(disk), str(program)):
        process.run(argv, timeout=Seconds(60.0))
    image = f"{disk}@@{LAYOUT.esp.start}"
    process.run(
        ["mcopy", "-i", image, f"::/{bootloader.EFI_PROGRAM}", str(tmp_path / "back")], timeout=Seconds(60.0)
    )
    assert (tmp_path / "back").read_bytes() == program.read_bytes()
    probe = [
        "blkid",
        "--probe",
        f"--offset={LAYOUT.esp.start}",
        f"--size={LAYOUT.esp.size}",
        "--output=export",
    ]
    known = process.run([*probe, str(disk)], timeout=Seconds(60.0)).stdout
    assert "TYPE=vfat" in known and f"UUID={LAYOUT.esp_fs}" in known
    assert "PTTYPE" not in known
    with disk.open("rb") as file:
        file.seek(LAYOUT.root.start)
        assert not file.read(2**20).strip(b"\0")
