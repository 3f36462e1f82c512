"""How a fresh disk is divided: GPT with room for BIOS boot code, an EFI system partition, and the root last.

The root is the last partition, so that it can grow. Every UUID is derived from the base's key: one definition gives
one disk, and two definitions never give disks that a machine with both would confuse.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from ingot.errors import BackendError
from ingot.model.units import Bytes, format_bytes

SECTOR = 512
MIB = 2**20
SMALLEST = Bytes(2 * 2**30)
"""A smaller disk would not hold a base with its kernel."""

BIOS_BOOT = "21686148-6449-6e6f-744e-656564454649"  # GRUB's manual, "BIOS installation"
EFI_SYSTEM = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"  # UEFI specification, "GPT partition entry"
LINUX_ROOT = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"  # Discoverable Partitions Specification, root of x86-64

_NAMESPACE = uuid.UUID("5d2b7f0c-3f1e-5a39-9d55-6b1d7c2f8e10")


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One partition: where it lies, what it is."""

    number: int
    name: str
    type: str
    start: Bytes
    size: Bytes
    uuid: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """A divided disk. The ids of the file systems are those that `/etc/fstab` and GRUB name."""

    size: Bytes
    uuid: str
    bios: Part
    esp: Part
    root: Part
    root_fs: str
    """The root file system's UUID."""
    esp_fs: str
    """The EFI system partition's volume id, as `XXXX-XXXX`."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """All partitions by number."""
        return (self.bios, self.esp, self.root)


def plan_layout(key: str, size: int) -> Layout:
    """The layout of a disk of `size` bytes for the base of this key. Raises BackendError for one that is too small."""
    if size < SMALLEST:
        raise BackendError(
            f"a disk of {format_bytes(size)} is too small for a base; it takes {format_bytes(SMALLEST)} or more",
            hint="raise `disk:` of the target, for example to `8 GiB`",
        )
    # The backup table takes the last 33 sectors; the root ends on the last whole MiB before it.
    end = (size - 34 * SECTOR) // MIB * MIB

    def part(number: int, name: str, kind: str, start: int, stop: int) -> Part:
        return Part(
            number=number,
            name=name,
            type=kind,
            start=Bytes(start),
            size=Bytes(stop - start),
            uuid=_derive(key, name),
        )

    volume = uuid.UUID(_derive(key, "esp file system")).hex[:8].upper()
    return Layout(
        size=Bytes(size),
        uuid=_derive(key, "disk"),
        bios=part(1, "bios", BIOS_BOOT, MIB, 2 * MIB),
        esp=part(2, "esp", EFI_SYSTEM, 2 * MIB, 128 * MIB),
        root=part(3, "root", LINUX_ROOT, 128 * MIB, end),
        root_fs=_derive(key, "root file system"),
        esp_fs=f"{volume[:4]}-{volume[4:]}",
    )


def _derive(key: str, name: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, f"{key} {name}"))


def sfdisk_script(layout: Layout) -> str:
    """What sfdisk reads to write the layout's partition table."""
    lines = ["label: gpt", f"label-id: {layout.uuid}", "unit: sectors", "first-lba: 34", ""]
    lines += [
        f"{part.number} : start={part.start // SECTOR}, size={part.size // SECTOR}, "
        f'type={part.type}, uuid={part.uuid}, name="{part.name}"'
        for part in layout.parts
    ]
    return "\n".join(lines) + "\n"


def sfdisk_argv(disk: str) -> list[str]:
    """The program that writes a partition table to a disk's raw file."""
    return ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", "--wipe=never", disk]


def mkfs_argv(layout: Layout, disk: str) -> list[str]:
    """The program that makes the root file system inside a disk's raw file.

    Features that older systems' GRUB or kernels lack, and that newer builders' mke2fs turns on, are named off.
    """
    options = f"offset={layout.root.start},lazy_itable_init=1,lazy_journal_init=1,nodiscard,hash_seed={layout.root_fs}"
    return [
        "mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-U", layout.root_fs, "-m", "1",
        "-O", "^metadata_csum_seed,^orphan_file", "-E", options, disk, f"{layout.root.size // 1024}k",
    ]  # fmt: skip


def fstab(layout: Layout) -> str:
    """The `/etc/fstab` of the disk. The EFI system partition is only needed where GRUB is installed anew."""
    return (
        f"UUID={layout.root_fs} / ext4 rw,errors=remount-ro,discard 0 1\n"
        f"UUID={layout.esp_fs} /boot/efi vfat umask=0077,nofail 0 0\n"
    )
