"""Raw disks in sparse files: the one form that volumes, snapshots and images' roots have here."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ingot.backends.local import kernel, layout
from ingot.model.units import Seconds
from ingot.system import locks, process
from tests.local_fixtures import make_cached_base

BLOCK = 524288
"""Bytes of a block of the EBS direct APIs ("Access the contents of an EBS snapshot")."""
GIB = 2**30
_PATIENCE = Seconds(600.0)


def base() -> Path:
    """The raw disk of the stand-in images: Debian 12 with systemd, sshd, Python, sudo. Made once; never written to."""
    source = make_cached_base()
    path = source.with_suffix(".raw")
    with locks.lock(path.with_name("test-base-raw.lock")):
        if not path.exists():
            fresh = path.with_suffix(".raw.new")
            words = ["qemu-img", "convert", "-O", "raw", str(source), str(fresh)]
            process.run(words, timeout=_PATIENCE)
            _shrink(fresh)
            fresh.rename(path)
    return path


def _shrink(disk: Path) -> None:
    """Makes holes of the blocks that the file system does not use."""
    with _on_device(disk) as device:
        process.run(["e2fsck", "-f", "-p", device], timeout=_PATIENCE, check=False)
        process.run(["zerofree", device], timeout=_PATIENCE)
    process.run(["fallocate", "--dig-holes", str(disk)], timeout=_PATIENCE)


@contextmanager
def _on_device(disk: Path) -> Iterator[str]:
    """A loop device on the disk's last partition, while it lasts."""
    with disk.open("r+b") as file:
        parts = layout.partitions(file.read(layout.HEAD), disk.stat().st_size)
        part = max(parts, key=lambda part: part.start)
        held, device = kernel.loop_device(file.fileno(), part.start, part.size)
    try:
        yield device
    finally:
        os.close(held)


def copy(source: Path, target: Path, size: int) -> None:
    """A copy of the disk, holes and all, that has `size` bytes; a last partition is made to end with the disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    process.run(["cp", "--sparse=auto", "--reflink=auto", str(source), str(target)], timeout=_PATIENCE)
    if size > target.stat().st_size:
        _grow(target, size)


def copy_base(source: Path, target: Path, size: int, kept: Path) -> None:
    """As `copy`, of a disk that many copies are made of: one of each size is kept in a folder, for growing takes long."""
    if size > source.stat().st_size:
        grown = kept / f"{size}.raw"
        with locks.lock(kept / "lock"):
            if not grown.exists():
                copy(source, grown.with_suffix(".new"), size)
                grown.with_suffix(".new").rename(grown)
        source = grown
    copy(source, target, size)


def create(target: Path, size: int) -> None:
    """An empty disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        file.truncate(size)


def _grow(disk: Path, size: int) -> None:
    with disk.open("r+b") as file:
        head = file.read(layout.HEAD)
        old = file.seek(0, os.SEEK_END)
        file.truncate(size)
    parts = layout.partitions(head, old)
    last = max(parts, key=lambda part: part.start, default=None)
    if last and last.number:
        with disk.open("rb") as file:
            file.seek(last.start)
            kind = layout.file_system(file.read(layout.HEAD))
        # What cloud-init's growpart does at the first boot.
        if head[layout.SECTOR : layout.SECTOR + 8] == b"EFI PART":
            process.run(["sfdisk", "--quiet", "--relocate", "gpt-bak-std", str(disk)], timeout=_PATIENCE)
        words = ["sfdisk", "--quiet", "--no-reread", "-N", str(last.number), str(disk)]
        process.run(words, timeout=_PATIENCE, input=b", +\n")
        if kind == "ext4":
            with _on_device(disk) as device:
                process.run(["e2fsck", "-p", device], timeout=_PATIENCE, check=False)
                process.run(["resize2fs", "-f", device], timeout=_PATIENCE)


def read_block(disk: Path, index: int) -> bytes:
    """The bytes of one block."""
    with disk.open("rb") as file:
        return os.pread(file.fileno(), BLOCK, index * BLOCK).ljust(BLOCK, b"\0")


def allocated(disk: Path) -> frozenset[int]:
    """The blocks of the file that are not holes from end to end."""
    found: set[int] = set()
    with disk.open("rb") as file:
        for start, end in _extents(file.fileno()):
            found.update(range(start // BLOCK, (end + BLOCK - 1) // BLOCK))
    return frozenset(found)


def _extents(file: int) -> Iterator[tuple[int, int]]:
    place = 0
    with contextlib.suppress(OSError):  # ENXIO: no more data
        while True:
            start = os.lseek(file, place, os.SEEK_DATA)
            place = os.lseek(file, start, os.SEEK_HOLE)
            yield start, place


def add_noise(disk: Path, blocks: Iterator[int]) -> None:
    """Fills blocks with what is nobody's: so read those that were never written to an encrypted snapshot."""
    noise = os.urandom(BLOCK)
    with disk.open("r+b") as file:
        for index in blocks:
            os.pwrite(file.fileno(), noise, index * BLOCK)


def remove(path: Path) -> None:
    """Removes a disk or a folder; gone already is fine."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
