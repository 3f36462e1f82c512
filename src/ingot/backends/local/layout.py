"""Where the root file system lies on a disk: GPT or MBR, read from its first sectors. Pure; standard library only."""

from __future__ import annotations

import struct
from typing import NamedTuple

SECTOR = 512
HEAD = 1 << 20
"""Bytes from a disk's start that `partitions` needs."""

_ROOT_TYPES = frozenset(
    {
        "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",  # root, x86-64: Discoverable Partitions Specification
        "b921b045-1df0-41c3-af44-4c6f280d3fae",  # root, arm64
    }
)


class Partition(NamedTuple):
    """One partition: its number as tools count it, start and size in bytes, and its type (GUID, or MBR byte)."""

    number: int
    start: int
    size: int
    type: str


def partitions(head: bytes, size: int) -> tuple[Partition, ...]:
    """The partitions of a disk of `size` bytes; of a disk without a table, itself as number 0."""
    if head[SECTOR : SECTOR + 8] == b"EFI PART":
        return _gpt(head)
    if head[510:512] == b"\x55\xaa" and file_system(head) == "":
        return _mbr(head)
    return (Partition(0, 0, size, ""),)


def _gpt(head: bytes) -> tuple[Partition, ...]:
    entries, count, length = struct.unpack_from("<QII", head, SECTOR + 72)
    found = []
    for number in range(min(count, 128)):
        place = entries * SECTOR + number * length
        kind = head[place : place + 16]
        if len(kind) < 16 or not any(kind):
            continue
        first, last = struct.unpack_from("<QQ", head, place + 32)
        found.append(Partition(number + 1, first * SECTOR, (last - first + 1) * SECTOR, _guid(kind)))
    return tuple(found)


def _guid(raw: bytes) -> str:
    a, b, c = struct.unpack("<IHH", raw[:8])
    return f"{a:08x}-{b:04x}-{c:04x}-{raw[8:10].hex()}-{raw[10:].hex()}"


def _mbr(head: bytes) -> tuple[Partition, ...]:
    found = []
    for number in range(4):
        kind, start, length = struct.unpack_from("<4xB3xII", head, 446 + 16 * number)
        if kind and length:
            found.append(Partition(number + 1, start * SECTOR, length * SECTOR, f"{kind:02x}"))
    return tuple(found)


def file_system(head: bytes) -> str:
    """`ext4`, `xfs` or `btrfs` by the magic in a partition's first 68 KiB; "" for any other."""
    if head[1080:1082] == b"\x53\xef":
        return "ext4"
    if head[:4] == b"XFSB":
        return "xfs"
    if head[65600:65608] == b"_BHRfS_M":
        return "btrfs"
    return ""


def boot_source(fstab: str) -> tuple[str, str] | None:
    """How an fstab names the partition of /boot: (`LABEL`, `UUID` or `PARTUUID`, value); None where it has none."""
    for line in fstab.splitlines():
        words = line.split()
        if len(words) > 2 and words[1].rstrip("/") == "/boot" and not line.lstrip().startswith("#"):
            tag, _, value = words[0].partition("=")
            return (tag, value.strip('"')) if tag in ("LABEL", "UUID", "PARTUUID") else None
    return None


def root_partition(found: tuple[tuple[Partition, str], ...]) -> tuple[Partition, str] | None:
    """Of partitions with their file systems, the root's: the one typed so, else the largest; None without any."""
    usable = [(part, kind) for part, kind in found if kind]
    typed = [(part, kind) for part, kind in usable if part.type in _ROOT_TYPES]
    return max(typed or usable, key=lambda pair: pair[0].size, default=None)
