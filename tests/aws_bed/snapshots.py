"""The actions on snapshots and volumes. Each cites its page in the Amazon EC2 API Reference by its own name."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.aws_bed import disks, filters
from tests.aws_bed.bed import Answer, Bed
from tests.aws_bed.state import Snapshot, new_id
from tests.aws_bed.wire import ApiError, Call

_FILTERS: Mapping[str, filters.Value] = {
    "description": lambda found: found["Description"],
    "encrypted": lambda found: found["Encrypted"],
    "owner-id": lambda found: found["OwnerId"],
    "progress": lambda found: found["Progress"],
    "snapshot-id": lambda found: found["SnapshotId"],
    "start-time": lambda found: found["StartTime"].strftime("%Y-%m-%dT%H:%M:%S.000Z"),
    "status": lambda found: found["State"],
    "storage-tier": lambda found: found["StorageTier"],
    "volume-id": lambda found: found["VolumeId"],
    "volume-size": lambda found: found["VolumeSize"],
}


def find(bed: Bed, call: Call, name: str, *, own: bool = False) -> Snapshot:
    """A snapshot of the caller's, or one shared with it. Raises ApiError: "Error codes for the Amazon EC2 API"."""
    if not name.startswith("snap-"):
        raise ApiError("InvalidParameterValue", f"Value ({name}) for parameter snapshotId is invalid.")
    bed.world.stock(call.region)
    snapshot = bed.world.snapshots.get(name)
    if snapshot is None or snapshot.region != call.region or not snapshot.usable_by(call.account):
        raise ApiError("InvalidSnapshot.NotFound", f"The snapshot '{name}' does not exist.")
    if own and snapshot.account != call.account:
        raise ApiError("AuthFailure", f"You do not own snapshot {name}", status=403)
    return snapshot


def describe(bed: Bed, snapshot: Snapshot) -> dict[str, Any]:
    """A snapshot as DescribeSnapshots answers it."""
    about: dict[str, Any] = {
        "SnapshotId": snapshot.id,
        "VolumeId": snapshot.volume,
        "VolumeSize": snapshot.size,
        "State": snapshot.state,
        "StartTime": snapshot.started,
        "Progress": "100%" if snapshot.state == "completed" else "0%",
        "OwnerId": snapshot.account,
        "Description": snapshot.description,
        "Encrypted": bool(snapshot.key),
        "StorageTier": "standard",
        "Tags": bed.tags(snapshot.account, snapshot.region, snapshot.id),
    }
    if snapshot.key:
        about["KmsKeyId"] = snapshot.key
    if snapshot.state == "error":
        about["StateMessage"] = snapshot.fails
    return about


def _add(bed: Bed, snapshot: Snapshot) -> Snapshot:
    if "snapshot" in bed.trouble.wish.end_failed:
        snapshot.fails = "The bed was asked to let snapshots fail."
    bed.world.snapshots[snapshot.id] = snapshot
    return snapshot


def take(bed: Bed, call: Call, volume_id: str, *, description: str) -> Snapshot:
    """A snapshot of a volume as it is now; the machine that it belongs to writes nothing meanwhile."""
    volume = bed.moto(call).get_volume(volume_id)
    name = new_id("snap")
    disk = bed.disk_of_snapshot(name)
    source = bed.disk_of_volume(volume_id)
    began = time.monotonic()
    with bed.machines.still(volume_id):
        disks.copy(source, disk, source.stat().st_size)
    return _add(
        bed,
        Snapshot(
            id=name,
            account=call.account,
            region=call.region,
            disk=disk,
            size=volume.size,
            description=description,
            volume=volume_id,
            key=volume.kms_key_id or "" if volume.encrypted else "",
            ready_at=began + bed.delays.snapshot,
        ),
    )


def create_snapshot(bed: Bed, call: Call) -> Answer:
    """CreateSnapshot: the volume at the time of the call, complete later. Pending ones count at once as existing."""
    bed.moto(call).get_volume(call.params["VolumeId"])
    bed.dry_run(call)
    snapshot = take(bed, call, call.params["VolumeId"], description=call.params.get("Description", ""))
    bed.tag(call, snapshot.id, "snapshot")
    return {**describe(bed, snapshot), "State": "pending", "Progress": ""}


def check_readable(bed: Bed, call: Call, snapshot: Snapshot) -> None:
    """ "Copy an AMI that was shared with you": its owner must share the snapshots too, and the key where encrypted."""
    if not snapshot.usable_by(call.account):
        text = "You do not have permission to access the storage of this ami"
        raise ApiError("InvalidRequest", text)


def copy(bed: Bed, call: Call, old: Snapshot, *, description: str, encrypted: bool) -> Snapshot:
    """A copy in the call's region and account: encrypted if asked for, by the account's default, or as it was."""
    key, fails = "", ""
    given = call.params.get("KmsKeyId", "")
    if encrypted or given or old.key or bed.moto(call).ebs_encryption_by_default:
        key, fails = bed.find_key(call, given) if given else (bed.default_key(call), "")
    if old.key and not bed.key_allows(old.key, call.account):
        fails = "Given key ID is not accessible. You must have DescribeKey permissions on the default CMK"
    name = new_id("snap")
    disk = bed.disk_of_snapshot(name)
    _copy_disk(old, disk, noise=bool(key) and not old.key)
    snapshot = Snapshot(
        id=name,
        account=call.account,
        region=call.region,
        disk=disk,
        size=old.size,
        description=description,
        key=key,
        fails=fails,
        ready_at=time.monotonic() + bed.delays.copy,
        written=set(old.written),
        uploaded=old.uploaded,
    )
    return _add(bed, snapshot)


def _copy_disk(old: Snapshot, disk: Path, *, noise: bool) -> None:
    """`noise`: the copy is encrypted and the old one is not, so that what was never written can be anything."""
    disk.parent.mkdir(parents=True, exist_ok=True)
    if noise and old.uploaded:
        disks.copy(old.disk, disk, old.disk.stat().st_size)
        blocks = range(old.size * disks.GIB // disks.BLOCK)
        disks.add_noise(disk, (index for index in blocks if index not in old.written))
        return
    try:
        os.link(old.disk, disk)  # no snapshot ever changes
    except OSError:
        disks.copy(old.disk, disk, old.disk.stat().st_size)


def copy_snapshot(bed: Bed, call: Call) -> Answer:
    """CopySnapshot."""
    params = call.params
    old = find(bed, bed.in_region(call, params["SourceRegion"]), params["SourceSnapshotId"])
    if old.state != "completed":
        raise ApiError("InvalidSnapshot.NotFound", f"Snapshot {old.id} is not completed")
    if params.get("KmsKeyId") and not params.get("Encrypted"):
        raise ApiError(
            "InvalidParameterDependency", "The parameter KmsKeyId requires the parameter Encrypted"
        )
    bed.dry_run(call)
    text = params.get("Description", "")
    snapshot = copy(bed, call, old, description=text, encrypted=bool(params.get("Encrypted")))
    bed.tag(call, snapshot.id, "snapshot")
    return {"SnapshotId": snapshot.id, "Tags": bed.tags(call.account, call.region, snapshot.id)}


def describe_snapshots(bed: Bed, call: Call) -> Answer:
    """DescribeSnapshots."""
    bed.world.stock(call.region)
    params = call.params
    wanted = params.get("SnapshotIds", [])
    if wanted:
        found = [find(bed, call, name) for name in wanted]
    else:
        found = [
            snapshot
            for snapshot in list(bed.world.snapshots.values())
            if snapshot.region == call.region
            and snapshot.usable_by(call.account)
            and not bed.trouble.hidden(snapshot.id)
        ]
    owners = {call.account if name == "self" else name for name in params.get("OwnerIds", [])}
    found = [snapshot for snapshot in found if not owners or snapshot.account in owners]
    answers = [describe(bed, snapshot) for snapshot in sorted(found, key=lambda snapshot: snapshot.id)]
    answers = filters.matching(answers, params.get("Filters", []), _FILTERS)
    page, token = filters.page(answers, params, least=5)
    return {"Snapshots": page, "NextToken": token} if token else {"Snapshots": page}


def delete(bed: Bed, snapshot: Snapshot) -> None:
    """Forgets a snapshot and removes its file."""
    bed.world.snapshots.pop(snapshot.id, None)
    if snapshot.disk == bed.disk_of_snapshot(snapshot.id):
        disks.remove(snapshot.disk)


def delete_snapshot(bed: Bed, call: Call) -> Answer:
    """DeleteSnapshot: refused for one that a registered image stands on."""
    from tests.aws_bed import images

    snapshot = find(bed, call, call.params["SnapshotId"], own=True)
    if image := images.in_use(bed, snapshot):
        text = f"The snapshot {snapshot.id} is currently in use by {image}"
        raise ApiError("InvalidSnapshot.InUse", text)
    bed.dry_run(call)
    delete(bed, snapshot)
    return {}


def modify_snapshot_attribute(bed: Bed, call: Call) -> Answer:
    """ModifySnapshotAttribute: "Encrypted snapshots … with the default KMS key can't be shared"."""
    snapshot = find(bed, call, call.params["SnapshotId"], own=True)
    changes = call.params.get("CreateVolumePermission", {})
    named = {item for key in ("UserIds", "GroupNames") for item in call.params.get(key, [])}
    removes = call.params.get("OperationType") == "remove"
    add = {value for item in changes.get("Add", []) for value in item.values()} | (
        set() if removes else named
    )
    remove = {value for item in changes.get("Remove", []) for value in item.values()} | (
        named if removes else set()
    )
    for value in add | remove:
        if value != "all" and not (len(value) == 12 and value.isdigit()):
            text = f'Invalid attribute item value "{value}" for userId item type.'
            raise ApiError("InvalidParameterValue", text)
    if add and snapshot.key and snapshot.key == bed.default_key(call):
        text = "Encrypted snapshots with EBS default key cannot be shared"
        raise ApiError("OperationNotPermitted", text)
    if "all" in add and snapshot.key:
        raise ApiError("OperationNotPermitted", "Encrypted snapshots cannot be shared publicly")
    bed.dry_run(call)
    snapshot.shared_with = (snapshot.shared_with - remove) | add
    return {}


def describe_snapshot_attribute(bed: Bed, call: Call) -> Answer:
    """DescribeSnapshotAttribute."""
    snapshot = find(bed, call, call.params["SnapshotId"], own=True)
    shared = sorted(snapshot.shared_with)
    permissions = [{"Group": name} if name == "all" else {"UserId": name} for name in shared]
    return {"SnapshotId": snapshot.id, "CreateVolumePermissions": permissions}


def create_volume(bed: Bed, call: Call) -> Answer:
    """CreateVolume, of a snapshot too. It can be attached, but no machine here sees more than its root volume."""
    params = dict(call.params)
    snapshot = find(bed, call, params.pop("SnapshotId")) if params.get("SnapshotId") else None
    if snapshot:
        params["Size"] = max(params.get("Size", 0), snapshot.size)
    answer = bed.ask_moto(call, params)
    name = answer["VolumeId"]
    size = answer["Size"] * disks.GIB
    if snapshot:
        disks.copy(snapshot.disk, bed.disk_of_volume(name), size)
        bed.moto(call).get_volume(name).snapshot_id = answer["SnapshotId"] = snapshot.id
    else:
        disks.create(bed.disk_of_volume(name), size)
    return answer


def delete_volume(bed: Bed, call: Call) -> Answer:
    """DeleteVolume."""
    answer = bed.ask_moto(call)
    disks.remove(bed.disk_of_volume(call.params["VolumeId"]))
    return answer


ACTIONS = {
    "CopySnapshot": copy_snapshot,
    "CreateSnapshot": create_snapshot,
    "CreateVolume": create_volume,
    "DeleteSnapshot": delete_snapshot,
    "DeleteVolume": delete_volume,
    "DescribeSnapshotAttribute": describe_snapshot_attribute,
    "DescribeSnapshots": describe_snapshots,
    "ModifySnapshotAttribute": modify_snapshot_attribute,
}
