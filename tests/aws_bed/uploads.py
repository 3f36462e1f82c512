"""Disks through the EBS direct APIs, as plainly as it goes: for tests of the bed."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.aws_bed import disks


def checksum(data: bytes) -> str:
    """The SHA-256 in Base64."""
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def put(ebs: Any, snapshot: str, index: int, data: bytes) -> None:
    """One block."""
    ebs.put_snapshot_block(
        SnapshotId=snapshot,
        BlockIndex=index,
        BlockData=data,
        DataLength=len(data),
        Checksum=checksum(data),
        ChecksumAlgorithm="SHA256",
    )


def upload(ebs: Any, disk: Path, blocks: Iterable[int], **start: Any) -> str:
    """The snapshot that has these blocks of the disk. Not complete yet when this returns."""
    size = -(-disk.stat().st_size // disks.GIB)
    snapshot = str(ebs.start_snapshot(VolumeSize=size, **start)["SnapshotId"])
    wanted = list(blocks)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda index: put(ebs, snapshot, index, disks.read_block(disk, index)), wanted))
    ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=len(wanted))
    return snapshot


def block(ebs: Any, snapshot: str, index: int) -> bytes:
    """A block of a snapshot, read back; its checksum holds."""
    listed = ebs.list_snapshot_blocks(SnapshotId=snapshot, StartingBlockIndex=index)["Blocks"]
    token = next(item["BlockToken"] for item in listed if item["BlockIndex"] == index)
    about = ebs.get_snapshot_block(SnapshotId=snapshot, BlockIndex=index, BlockToken=token)
    data: bytes = about["BlockData"].read()
    assert about["Checksum"] == checksum(data)
    return data
