"""The EBS direct APIs: "Use EBS direct APIs to access the contents of an EBS snapshot" and their API reference."""

from __future__ import annotations

import base64
import hashlib
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from tests.aws_bed import disks, filters
from tests.aws_bed.bed import Answer, Bed
from tests.aws_bed.disks import BLOCK
from tests.aws_bed.state import NEVER, Snapshot, new_id
from tests.aws_bed.wire import ApiError, Call

_LARGEST = 65536
_TOKENS = timedelta(days=7)
_count = threading.Lock()
_running: dict[str, int] = {}


def _invalid(message: str, reason: str) -> ApiError:
    return ApiError("ValidationException", message, Reason=reason)


def _find(bed: Bed, call: Call, name: str) -> Snapshot:
    bed.world.stock(call.region)
    snapshot = bed.world.snapshots.get(name)
    if snapshot is None or snapshot.region != call.region or not snapshot.usable_by(call.account):
        text = f"The snapshot '{name}' does not exist."
        raise ApiError("ResourceNotFoundException", text, status=404, Reason="SNAPSHOT_NOT_FOUND")
    return snapshot


def start_snapshot(bed: Bed, call: Call) -> Answer:
    """StartSnapshot. "If encryption by default is enabled … the snapshot is encrypted"; with a parent as that one is."""
    params = call.params
    size = params["VolumeSize"]
    if not 1 <= size <= _LARGEST:
        raise _invalid(f"The volume size {size} is not valid", "INVALID_VOLUME_SIZE")
    once = bed.once(call)
    if once.answer:
        return once.answer
    parent = _find(bed, call, params["ParentSnapshotId"]) if params.get("ParentSnapshotId") else None
    if parent and (params.get("Encrypted") is not None or params.get("KmsKeyArn")):
        text = "Encrypted and KmsKeyArn cannot be given with ParentSnapshotId"
        raise _invalid(text, "INVALID_DEPENDENCY_REQUEST")
    if parent and parent.size > size:
        raise _invalid(f"The parent has {parent.size} GiB", "INVALID_VOLUME_SIZE")
    if parent and parent.state != "completed":
        raise _invalid(f"The parent {parent.id} is not completed", "INVALID_SNAPSHOT_ID")
    if params.get("KmsKeyArn") and not params.get("Encrypted"):
        raise _invalid("KmsKeyArn needs Encrypted", "INVALID_DEPENDENCY_REQUEST")
    snapshot = _new(bed, call, parent)
    tags = {tag["Key"]: tag.get("Value", "") for tag in params.get("Tags", [])}
    bed.set_tags(call, snapshot.id, tags)
    bed.world.snapshots[snapshot.id] = snapshot
    answer: dict[str, Any] = {
        "SnapshotId": snapshot.id,
        "OwnerId": call.account,
        "Status": "pending",
        "StartTime": snapshot.started,
        "VolumeSize": size,
        "BlockSize": BLOCK,
        "Description": snapshot.description,
        "Tags": params.get("Tags", []),
        "SseType": "sse-kms" if snapshot.key else "none",
    }
    if parent:
        answer["ParentSnapshotId"] = parent.id
    if snapshot.key:
        answer["KmsKeyArn"] = snapshot.key
    return once.remember(answer)


def _new(bed: Bed, call: Call, parent: Snapshot | None) -> Snapshot:
    size = call.params["VolumeSize"]
    name = new_id("snap")
    disk = bed.disk_of_snapshot(name)
    key, fails = parent.key if parent else "", ""
    wanted = call.params.get("Encrypted") or bed.moto(call).ebs_encryption_by_default
    if not parent and wanted:
        given = call.params.get("KmsKeyArn", "")
        key, fails = bed.find_key(call, given) if given else (bed.default_key(call), "")
        if fails:
            raise ApiError("AccessDeniedException", fails, status=403, Reason="DEPENDENCY_ACCESS_DENIED")
    if parent:
        disks.copy(parent.disk, disk, parent.disk.stat().st_size)
        os.truncate(disk, size * disks.GIB)
    else:
        disks.create(disk, size * disks.GIB)
    return Snapshot(
        id=name,
        account=call.account,
        region=call.region,
        disk=disk,
        size=size,
        ready_at=NEVER,
        description=call.params.get("Description", ""),
        key=key,
        parent=parent.id if parent else "",
        written=set(_blocks(parent)) if parent else set(),
        uploaded=True,
    )


def put_snapshot_block(bed: Bed, call: Call) -> Answer:
    """PutSnapshotBlock: 512 KiB with their SHA-256, in Base64, for a snapshot that is still pending."""
    params = call.params
    snapshot = _find(bed, call, params["SnapshotId"])
    if snapshot.ready_at != NEVER or not snapshot.uploaded:
        text = f"The snapshot {snapshot.id} is not in the pending state"
        raise _invalid(text, "INVALID_SNAPSHOT_ID")
    index, data = params["BlockIndex"], params["BlockData"]
    if not 0 <= index < snapshot.size * disks.GIB // BLOCK:
        raise _invalid(f"The block index {index} is not on the volume", "INVALID_PARAMETER_VALUE")
    if len(data) != BLOCK or params["DataLength"] != BLOCK:
        raise _invalid(f"A block has {BLOCK} bytes, not {len(data)}", "INVALID_BLOCK")
    checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
    if checksum != params["Checksum"]:
        raise _invalid("The checksum is not that of the block", "INVALID_BLOCK")
    with _place(bed, snapshot):
        file = os.open(snapshot.disk, os.O_WRONLY)
        try:
            os.pwrite(file, data, index * BLOCK)
        finally:
            os.close(file)
        snapshot.written.add(index)
        snapshot.put.add(index)
    return {"Checksum": checksum, "ChecksumAlgorithm": "SHA256"}


@contextmanager
def _place(bed: Bed, snapshot: Snapshot) -> Iterator[None]:
    """One of the writes that a snapshot takes at once. "Monitor and optimize": ConcurrentLimitExceededException."""
    limit = bed.trouble.wish.block_limit
    with _count:
        _running[snapshot.id] = _running.get(snapshot.id, 0) + 1
        full = 0 < limit < _running[snapshot.id]
    try:
        if full:
            raise ApiError("ConcurrentLimitExceededException", "Too many blocks are being written at once.")
        yield
    finally:
        with _count:
            _running[snapshot.id] -= 1


def complete_snapshot(bed: Bed, call: Call) -> Answer:
    """CompleteSnapshot: with the number of blocks that were put, and a checksum of all of them where there is one."""
    params = call.params
    snapshot = _find(bed, call, params["SnapshotId"])
    if snapshot.ready_at != NEVER or not snapshot.uploaded:
        raise _invalid(f"The snapshot {snapshot.id} is not in the pending state", "INVALID_SNAPSHOT_ID")
    count = params["ChangedBlocksCount"]
    if count != len(snapshot.put):
        text = f"{len(snapshot.put)} blocks were put, and not {count}"
        raise _invalid(text, "INVALID_PARAMETER_VALUE")
    if params.get("Checksum"):
        _check_all(snapshot, params["Checksum"])
    if snapshot.key:
        everything = range(snapshot.size * disks.GIB // BLOCK)
        disks.add_noise(snapshot.disk, (index for index in everything if index not in snapshot.written))
    if "snapshot" in bed.trouble.wish.end_failed:
        snapshot.fails = "The bed was asked to let snapshots fail."
    snapshot.ready_at = time.monotonic() + bed.delays.snapshot
    return {"Status": "pending"}


def _check_all(snapshot: Snapshot, given: str) -> None:
    """CompleteSnapshot, `Checksum`: SHA-256 of the blocks' checksums, one after the other (`LINEAR`)."""
    whole = hashlib.sha256()
    for index in sorted(snapshot.put):
        whole.update(hashlib.sha256(disks.read_block(snapshot.disk, index)).digest())
    if base64.b64encode(whole.digest()).decode() != given:
        raise _invalid("The checksum is not that of the blocks", "INVALID_PARAMETER_VALUE")


def _blocks(snapshot: Snapshot) -> Iterable[int]:
    """The blocks that a snapshot has: those that were written, which need not differ from zeros."""
    return sorted(snapshot.written if snapshot.uploaded else disks.allocated(snapshot.disk))


def _readable(bed: Bed, call: Call, name: str) -> Snapshot:
    snapshot = _find(bed, call, name)
    if snapshot.state != "completed":
        raise _invalid(f"The snapshot {name} is not in the completed state", "INVALID_SNAPSHOT_ID")
    return snapshot


def _token(snapshot: Snapshot, index: int) -> str:
    return base64.b64encode(f"{snapshot.id} {index}".encode()).decode()


def list_snapshot_blocks(bed: Bed, call: Call) -> Answer:
    """ListSnapshotBlocks."""
    snapshot = _readable(bed, call, call.params["SnapshotId"])
    start = call.params.get("StartingBlockIndex", 0)
    found = [
        {"BlockIndex": index, "BlockToken": _token(snapshot, index)}
        for index in _blocks(snapshot)
        if index >= start
    ]
    return _page(bed, call, snapshot, found, "Blocks")


def list_changed_blocks(bed: Bed, call: Call) -> Answer:
    """ListChangedBlocks: those whose bytes differ, of two snapshots of one size; all of the second without a first."""
    second = _readable(bed, call, call.params["SecondSnapshotId"])
    first = _readable(bed, call, call.params["FirstSnapshotId"]) if "FirstSnapshotId" in call.params else None
    start = call.params.get("StartingBlockIndex", 0)
    if first and first.size != second.size:
        raise _invalid("The snapshots are not of one volume", "UNRELATED_SNAPSHOTS")
    found = []
    old = set(_blocks(first)) if first else set()
    new = set(_blocks(second))
    for index in sorted(index for index in old | new if index >= start):
        if first and disks.read_block(first.disk, index) == disks.read_block(second.disk, index):
            continue
        item: dict[str, Any] = {"BlockIndex": index}
        if first and index in old:
            item["FirstBlockToken"] = _token(first, index)
        if index in new:
            item["SecondBlockToken"] = _token(second, index)
        found.append(item)
    return _page(bed, call, second, found, "ChangedBlocks")


def _page(bed: Bed, call: Call, snapshot: Snapshot, found: list[dict[str, Any]], name: str) -> Answer:
    size = call.params.get("MaxResults", 1000)
    if not 100 <= size <= 10000:
        raise _invalid(f"MaxResults is {size}, not from 100 to 10000", "INVALID_PARAMETER_VALUE")
    try:
        page, token = filters.page(found, {**call.params, "MaxResults": min(size, 1000)})
    except ApiError:
        raise _invalid("The token is none of ours", "INVALID_PAGE_TOKEN") from None
    about = {"BlockSize": BLOCK, "VolumeSize": snapshot.size, "ExpiryTime": bed.now() + _TOKENS, name: page}
    return {**about, "NextToken": token} if token else about


def get_snapshot_block(bed: Bed, call: Call) -> Answer:
    """GetSnapshotBlock, for a token that one of the lists gave."""
    snapshot = _readable(bed, call, call.params["SnapshotId"])
    index = call.params["BlockIndex"]
    if call.params["BlockToken"] != _token(snapshot, index):
        raise _invalid("The token is not that of the block", "INVALID_BLOCK_TOKEN")
    data = disks.read_block(snapshot.disk, index)
    checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
    about = {"DataLength": BLOCK, "Checksum": checksum, "ChecksumAlgorithm": "SHA256"}
    return {**about, "BlockData": data}


ACTIONS = {
    "CompleteSnapshot": complete_snapshot,
    "GetSnapshotBlock": get_snapshot_block,
    "ListChangedBlocks": list_changed_blocks,
    "ListSnapshotBlocks": list_snapshot_blocks,
    "PutSnapshotBlock": put_snapshot_block,
    "StartSnapshot": start_snapshot,
}
