"""What is written on things in AWS so that they are found again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ingot.backends.aws.shape import TargetShape, VolumeShape
from ingot.model.image import LayerRef
from ingot.model.plan import ContentId, LayerKey
from ingot.model.units import Bytes

TOKEN = "ingot:token"
"""On everything temporary, from the call on that makes it."""
MADE, EXPIRES = "ingot:made", "ingot:expires"
"""When it was asked for, and when it ends by itself: UTC, ISO 8601."""
KEY, CONTENT, SEALED, SCANNED = "ingot:key", "ingot:content", "ingot:sealed", "ingot:scanned"
ARCH, ROOT, BOOT, USER = "ingot:arch", "ingot:root", "ingot:boot", "ingot:user"
"""Traits of the disk that a snapshot is: what its AMI needs to say. `arch` as EC2 writes it."""
_LABEL = "ingot:label:"
GIB = 2**30

Tags = Sequence[Mapping[str, str]]


def tags(values: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as EC2 takes them."""
    return [{"Key": key, "Value": value} for key, value in values.items()]


def specification(kinds: Iterable[str], values: Mapping[str, str]) -> list[dict[str, Any]]:
    """Tags for what one call makes, of several kinds of things."""
    return [{"ResourceType": kind, "Tags": tags(values)} for kind in kinds]


def values(found: Mapping[str, Any]) -> dict[str, str]:
    """The tags of a thing, as EC2 describes it."""
    return {tag["Key"]: tag["Value"] for tag in found.get("Tags") or ()}


def filters(wanted: Mapping[str, str | Sequence[str]]) -> list[dict[str, Any]]:
    """Filters as EC2 takes them."""
    return [
        {"Name": name, "Values": [value] if isinstance(value, str) else list(value)}
        for name, value in wanted.items()
    ]


def when(at: float) -> str:
    """A time (seconds since the epoch) as a tag has it."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def labels(found: Mapping[str, str]) -> dict[str, str]:
    """Our own labels among a thing's tags."""
    return {key.removeprefix(_LABEL): value for key, value in found.items() if key.startswith(_LABEL)}


def label_tags(given: Mapping[str, str]) -> dict[str, str]:
    """Our own labels as tags."""
    return {f"{_LABEL}{key}": value for key, value in given.items()}


def traits(told: Mapping[str, str]) -> dict[str, str]:
    """What a snapshot's tags tell of the AMI that it can be."""
    return {key: told[key] for key in (ARCH, ROOT, BOOT, USER) if key in told}


def image_traits(known: Mapping[str, str], snapshot: str) -> dict[str, Any]:
    """The part of RegisterImage that follows from the disk."""
    made: dict[str, Any] = {
        "Architecture": known[ARCH],
        "RootDeviceName": known[ROOT],
        "VirtualizationType": "hvm",
        "EnaSupport": True,
        "SriovNetSupport": "simple",
        "BlockDeviceMappings": [
            {"DeviceName": known[ROOT], "Ebs": {"SnapshotId": snapshot, "DeleteOnTermination": True}}
        ],
    }
    return {**made, "BootMode": known[BOOT]} if known.get(BOOT) else made


def parallelcluster(settings: TargetShape) -> dict[str, str]:
    """The tags by which ParallelCluster knows a custom AMI (`CustomAmiTagValidator` and `AmiSearchFilters` of its CLI)."""
    wanted = settings.parallelcluster
    if wanted is None:
        return {}
    return {
        "parallelcluster:version": wanted.version,
        "parallelcluster:os": wanted.os,
        "parallelcluster:build_status": "available",
    }


def volume(shape: VolumeShape, size: int, settings: TargetShape) -> dict[str, Any]:
    """A root volume of an instance, for a block device mapping; `size` in GiB."""
    made: dict[str, Any] = {"VolumeType": shape.type, "VolumeSize": size, "DeleteOnTermination": True}
    if shape.iops:
        made["Iops"] = shape.iops
    if shape.throughput:
        made["Throughput"] = shape.throughput
    if settings.encrypt or settings.kms_key:
        made["Encrypted"] = True
    if settings.kms_key:
        made["KmsKeyId"] = settings.kms_key
    return made


def layer(snapshot: Mapping[str, Any]) -> LayerRef:
    """The layer that a snapshot of ours is. A snapshot is a whole disk: it stands on nothing."""
    told = values(snapshot)
    return LayerRef(
        key=LayerKey(told[KEY]),
        content=ContentId(told[CONTENT]),
        parent=None,
        ref=snapshot["SnapshotId"],
        size=Bytes(snapshot["VolumeSize"] * GIB),
        created=snapshot["StartTime"].astimezone().isoformat(timespec="seconds"),
        sealed=SEALED in told,
        labels=labels(told),
    )
