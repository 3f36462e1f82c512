"""GRUB for BIOS and for UEFI, put on a disk without a device of the builder's or a mounted EFI partition.

The image carries GRUB's own programs and modules (`grub2-common`, `grub-pc-bin`, `grub-efi-amd64-bin`), and what
starts it is made by them, inside the image: so the code on the disk fits the modules in `/boot/grub`, whatever the
builder runs. `grub-install` itself would look for the builder's disk, and for a kernel that can mount FAT.

The packages `grub-pc` and `grub-efi-amd64` stay out: each excludes the other, and each would want to install itself
on the first disk that it finds. With what is there `update-grub` works on a started machine, and so does
`grub-install /dev/vda`, or with `--target=x86_64-efi --removable`, for whoever wants a newer one.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from ingot.disk.layout import SECTOR, Layout

PACKAGES = ("grub2-common", "grub-pc-bin", "grub-efi-amd64-bin")
KERNEL_OPTIONS = "console=tty0 console=ttyS0,115200"
EFI_PROGRAM = "EFI/BOOT/BOOTX64.EFI"
"""The removable path, where firmware looks without being told."""

_COMMON = ("part_gpt", "part_msdos", "ext2", "search_fs_uuid", "normal", "configfile", "minicmd")
# What a menu of GRUB's own making may want before it could load modules, and what firmware screens need.
_EFI = (
    "fat", "gzio", "test", "echo", "serial", "regexp", "linux", "all_video", "efi_gop", "video", "gfxterm", "font",
    "loadenv", "boot", "halt", "reboot", "sleep", "true",
)  # fmt: skip

DEFAULTS = f"""\
# How GRUB's menu and the kernel show themselves: on the screen and on the first serial line.
GRUB_TIMEOUT=1
GRUB_TERMINAL="console serial"
GRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"
GRUB_CMDLINE_LINUX_DEFAULT=""
GRUB_CMDLINE_LINUX="{KERNEL_OPTIONS}"
GRUB_DISABLE_OS_PROBER=true
GRUB_DISTRIBUTOR="$(. /etc/os-release && echo "$NAME")"
"""
"""The content of `/etc/default/grub.d/10_ingot.cfg`, so that the image's `update-grub` writes a menu like ours."""


def early_config(root_fs: str) -> str:
    """What GRUB does first: finds the root file system by its UUID and takes its menu and modules from there."""
    return f"search.fs_uuid {root_fs} root\nset prefix=($root)/boot/grub\n"


def grub_config(root_fs: str, kernels: Sequence[str], *, options: str = KERNEL_OPTIONS) -> str:
    """The menu, `/boot/grub/grub.cfg`: one entry for each kernel, the first being the one that starts by itself."""
    head = f"""\
# Made with the image. `update-grub` on a started machine replaces it with GRUB's own.
set default=0
set timeout=1
if serial --unit=0 --speed=115200; then
  terminal_input console serial
  terminal_output console serial
fi
insmod part_gpt
insmod ext2
insmod gzio
search --no-floppy --fs-uuid --set=root {root_fs}
"""
    return head + "".join(_entry(root_fs, kernel, options) for kernel in kernels)


def _entry(root_fs: str, kernel: str, options: str) -> str:
    return f"""\
menuentry "Linux {kernel}" --class gnu-linux --class os {{
  linux /boot/vmlinuz-{kernel} root=UUID={root_fs} ro {options}
  initrd /boot/initrd.img-{kernel}
}}
"""


def setup_script(root_fs: str) -> str:
    """A shell script for the inside of the image: modules to `/boot/grub`, and the two first-stage images there."""
    lines = ["set -eu", "mkdir -p /boot/grub /boot/efi", "early=$(mktemp)", "cat >$early <<'EARLY'"]
    lines += [early_config(root_fs).rstrip(), "EARLY"]
    for platform, name, extra in (
        ("i386-pc", "core.img", ("biosdisk",)),
        ("x86_64-efi", "core.efi", _EFI),
    ):
        lines += [
            f"mkdir -p /boot/grub/{platform}",
            f"cp /usr/lib/grub/{platform}/*.mod /usr/lib/grub/{platform}/*.lst /boot/grub/{platform}/",
            f"grub-mkimage -O {platform} -c $early -p /boot/grub -o /boot/grub/{platform}/{name} "
            + " ".join((*_COMMON, *extra)),
        ]
    lines += ["cp /usr/lib/grub/i386-pc/boot.img /boot/grub/i386-pc/", "rm -f $early"]
    return "\n".join(lines) + "\n"


def boot_sector(sector: bytes, boot_img: bytes, core_start: int) -> bytes:
    """A disk's first sector with GRUB's boot code in it; its partition table is kept.

    Offsets are those of GRUB's `include/grub/i386/pc/boot.h`: where the core image lies, and which drive it is on.
    """
    code = bytearray(boot_img[:440])
    struct.pack_into("<Q", code, 0x5C, core_start // SECTOR)
    code[0x64] = 0xFF  # the drive that the BIOS says it started from
    # Some BIOSes say 0 or 1 for the first hard disk; two no-ops in place of a jump turn GRUB's remedy on.
    code[0x66:0x68] = b"\x90\x90"
    return bytes(code) + sector[440:SECTOR]


def core_image(core_img: bytes, core_start: int) -> bytes:
    """The core image that finds its own rest: its first sector ends with where that lies, in one piece."""
    core = bytearray(core_img)
    core += bytes(-len(core) % SECTOR)
    rest = len(core) // SECTOR - 1
    # struct grub_boot_blocklist, the last 12 bytes of diskboot.img: start, length, segment to load it to.
    struct.pack_into("<QHH", core, SECTOR - 12, core_start // SECTOR + 1, rest, 0x820)
    return bytes(core)


def write_bios(disk: Path, layout: Layout, *, boot_img: bytes, core_img: bytes) -> None:
    """Makes the raw disk start by BIOS: boot code in its first sector, the core image in its BIOS boot partition."""
    core = core_image(core_img, layout.bios.start)
    assert len(core) <= layout.bios.size, "GRUB's core image is larger than its partition"
    with disk.open("r+b") as file:
        sector = boot_sector(file.read(SECTOR), boot_img, layout.bios.start)
        file.seek(layout.bios.start)
        file.write(core)
        file.seek(0)
        file.write(sector)


def esp_argvs(layout: Layout, disk: str, program: str) -> tuple[list[str], ...]:
    """The programs (dosfstools, mtools) that make the EFI system partition inside a raw disk, with GRUB on it.

    Not mformat: it writes a partition table of its own into the boot sector, which then hides the file system.
    """
    image = f"{disk}@@{layout.esp.start}"
    first, kib = str(layout.esp.start // SECTOR), str(layout.esp.size // 1024)
    # mtools refuses a size that is no multiple of the tracks' sectors; 32 of them divide every MiB. Clusters of one
    # sector make it FAT32: left alone, mkfs.fat goes by the size of the whole disk.
    words = [
        "-F",
        "32",
        "-s",
        "1",
        "-n",
        "ESP",
        "-i",
        layout.esp_fs.replace("-", ""),
        "-g",
        "64/32",
        "-h",
        first,
    ]
    return (
        ["mkfs.fat", *words, "--mbr=no", "--offset", first, disk, kib],
        ["mmd", "-i", image, "::/EFI", "::/EFI/BOOT"],
        ["mcopy", "-i", image, program, f"::/{EFI_PROGRAM}"],
    )
