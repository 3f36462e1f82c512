"""Partitions are read as `sfdisk` wrote them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingot.backends.local.layout import HEAD, Partition, file_system, partitions, root_partition
from ingot.model.units import Seconds
from ingot.system import process

SIZE = 64 * 2**20
LINUX, ROOT = "0fc63daf-8483-4772-8e79-3d69d8477de4", "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"
GPT = f"label: gpt\nstart=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649\nsize=8192, type={LINUX}\ntype={ROOT}\n"
MBR = "label: dos\nsize=4096, type=83\nsize=20480, type=83, bootable\n"


def read(disk: Path) -> tuple[Partition, ...]:
    with disk.open("rb") as file:
        return partitions(file.read(HEAD), SIZE)


def partitioned(disk: Path, table: str) -> Path:
    disk.write_bytes(b"")
    with disk.open("r+b") as file:
        file.truncate(SIZE)
    process.run(["sfdisk", "--quiet", str(disk)], timeout=Seconds(30.0), input=table.encode())
    return disk


@pytest.mark.local
def test_reads_gpt(tmp_path: Path) -> None:
    first, second, third = read(partitioned(tmp_path / "disk", GPT))
    assert (first.number, first.start, first.size) == (1, 2048 * 512, 2048 * 512)
    assert (second.number, second.size, second.type) == (2, 8192 * 512, LINUX)
    assert third.type == ROOT and third.start == second.start + second.size


@pytest.mark.local
def test_reads_mbr(tmp_path: Path) -> None:
    first, second = read(partitioned(tmp_path / "disk", MBR))
    assert (first.number, first.size, first.type) == (1, 4096 * 512, "83")
    assert (second.number, second.start) == (2, first.start + first.size)


def test_disk_without_a_table_is_one_partition() -> None:
    assert partitions(bytes(HEAD), SIZE) == (Partition(0, 0, SIZE, ""),)


def test_root_is_what_is_typed_so_else_the_largest() -> None:
    esp, boot = Partition(1, 0, 900, "c12a"), Partition(2, 900, 100, LINUX)
    data, root = Partition(3, 1000, 500, LINUX), Partition(4, 1500, 200, ROOT)
    pairs = ((esp, ""), (boot, "ext4"), (data, "xfs"), (root, "ext4"))
    assert root_partition(pairs) == (root, "ext4")
    assert root_partition(pairs[:3]) == (data, "xfs")
    assert root_partition(pairs[:1]) is None


@pytest.mark.parametrize(
    ("place", "magic", "kind"),
    [(1080, b"\x53\xef", "ext4"), (0, b"XFSB", "xfs"), (65600, b"_BHRfS_M", "btrfs"), (0, b"LUKS", "")],
)
def test_knows_file_systems(place: int, magic: bytes, kind: str) -> None:
    head = bytearray(HEAD)
    head[place : place + len(magic)] = magic
    assert file_system(bytes(head)) == kind
