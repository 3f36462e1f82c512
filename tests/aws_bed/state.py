"""What exists: images and snapshots of every account and region. The rest moto keeps."""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HOME = "123456789012"
"""The account of the access key that the bed gives out, and of any unknown key."""
OTHER = "210987654321"
"""A second account, to see what is shared from its side."""
KEYS = {"AKIABEDHOME000000000": HOME, "AKIABEDOTHER00000000": OTHER}
"""Access keys → accounts. Signatures are not checked."""
DEBIAN = "136693071363"
UBUNTU = "099720109477"
REGION = "us-east-1"
NEVER = float("inf")

Tags = dict[str, str]


def new_id(prefix: str) -> str:
    """An id that nothing else has."""
    return f"{prefix}-{uuid.uuid4().hex[:17]}"


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


@dataclass(kw_only=True, slots=True, eq=False)
class Snapshot:
    """A disk as it was. `ready_at` is of the monotonic clock; NEVER while blocks are still being written."""

    id: str
    account: str
    region: str
    disk: Path
    size: int
    """GiB."""
    ready_at: float
    started: datetime = field(default_factory=now)
    description: str = ""
    volume: str = "vol-ffffffff"
    """The volume it was taken from; for one that was uploaded or copied, what AWS writes there."""
    key: str = ""
    """ARN of the KMS key; "" where it is not encrypted."""
    parent: str = ""
    fails: str = ""
    """Why it ends as failed; "" where it does not."""
    written: set[int] = field(default_factory=set)
    """Of one that was uploaded: the blocks that it has, its parent's too."""
    put: set[int] = field(default_factory=set)
    """Of one that was uploaded: the blocks that were."""
    uploaded: bool = False
    shared_with: set[str] = field(default_factory=set)
    """Account ids, or `all`."""

    @property
    def state(self) -> str:
        """`pending`, `completed` or `error`."""
        if time.monotonic() < self.ready_at:
            return "pending"
        return "error" if self.fails else "completed"

    def usable_by(self, account: str) -> bool:
        """Whether the account may copy it or make volumes of it; what it needs of the key aside."""
        return account == self.account or bool({account, "all"} & self.shared_with)


@dataclass(kw_only=True, slots=True, eq=False)
class Image:
    """An AMI."""

    id: str
    account: str
    region: str
    name: str
    devices: tuple[dict[str, Any], ...]
    """Block device mappings as DescribeImages answers them."""
    root_device: str
    ready_at: float
    created: datetime = field(default_factory=now)
    description: str = ""
    architecture: str = "x86_64"
    virtualization: str = "hvm"
    boot_mode: str = ""
    tpm: str = ""
    imds: str = ""
    sriov: str = ""
    ena: bool = False
    kernel: str = ""
    disabled: bool = False
    deprecated: datetime | None = None
    protection: str = "disabled"
    source: str = ""
    source_region: str = ""
    instance: str = ""
    fails: str = ""
    permissions: list[dict[str, str]] = field(default_factory=list)
    alias: str = ""
    user: str = "admin"
    """The user that its cloud-init makes."""

    @property
    def state(self) -> str:
        """`pending`, `available`, `disabled` or `failed`."""
        if time.monotonic() < self.ready_at:
            return "pending"
        if self.fails:
            return "failed"
        return "disabled" if self.disabled else "available"

    @property
    def public(self) -> bool:
        return {"Group": "all"} in self.permissions

    def visible_to(self, account: str, organisation: Iterable[str] = ()) -> bool:
        """Whether the account may see and launch it: its owner, an account, organisation or unit it is shared with."""
        if account == self.account:
            return True
        if self.disabled:
            return False
        shared = [value for permission in self.permissions for value in permission.values()]
        return self.public or account in shared or bool(set(organisation) & set(shared))

    @property
    def snapshots(self) -> tuple[str, ...]:
        """The snapshots that it stands on, the root's first."""
        found = sorted(self.devices, key=lambda device: device["DeviceName"] != self.root_device)
        return tuple(device["Ebs"]["SnapshotId"] for device in found if "Ebs" in device)


class World:
    """All images and snapshots. Whoever changes something holds `lock`."""

    def __init__(self, base: Path) -> None:
        self.lock = threading.RLock()
        self.images: dict[str, Image] = {}
        self.snapshots: dict[str, Snapshot] = {}
        self.deregistered: dict[str, Image] = {}
        self.base = base
        self._size = (base.stat().st_size + 2**30 - 1) // 2**30
        self._stocked: set[str] = set()

    def stock(self, region: str) -> None:
        """Puts the stand-in images into a region, with ids of its own, as the vendors do."""
        with self.lock:
            if region not in self._stocked:
                self._stocked.add(region)
                for about in STAND_INS:
                    self._add_stand_in(region, **about)

    def _add_stand_in(
        self, region: str, *, name: str, account: str, created: str, architecture: str, user: str
    ) -> None:
        mark = hashlib.sha256(f"{region} {name}".encode()).hexdigest()[:17]
        device = "/dev/xvda" if account == DEBIAN else "/dev/sda1"
        snapshot = Snapshot(
            id=f"snap-{mark}",
            account=account,
            region=region,
            disk=self.base,
            size=self._size,
            ready_at=0.0,
            started=datetime.fromisoformat(created),
            shared_with={"all"},
        )
        self.snapshots[snapshot.id] = snapshot
        self.images[f"ami-{mark}"] = Image(
            id=f"ami-{mark}",
            account=account,
            region=region,
            name=name,
            created=datetime.fromisoformat(created),
            architecture=architecture,
            devices=(mapping(device, snapshot),),
            root_device=device,
            ready_at=0.0,
            boot_mode="uefi" if architecture == "arm64" else "uefi-preferred",
            ena=True,
            sriov="simple",
            permissions=[{"Group": "all"}],
            user=user,
        )


def mapping(device: str, snapshot: Snapshot, **more: Any) -> dict[str, Any]:
    """How DescribeImages answers a device that stands on a snapshot."""
    ebs: dict[str, Any] = {
        "SnapshotId": snapshot.id,
        "VolumeSize": snapshot.size,
        "VolumeType": "gp3",
        "DeleteOnTermination": True,
        "Encrypted": bool(snapshot.key),
    }
    return {"DeviceName": device, "Ebs": {**ebs, **more}}


def _debian(version: int, architecture: str, day: str) -> Mapping[str, str]:
    return {
        "name": f"debian-{version}-{architecture}-{day}-{int(day) % 2000}",
        "account": DEBIAN,
        "created": f"{day[:4]}-{day[4:6]}-{day[6:]}T07:12:45+00:00",
        "architecture": {"amd64": "x86_64"}.get(architecture, architecture),
        "user": "admin",
    }


STAND_INS: tuple[Mapping[str, str], ...] = (
    _debian(12, "amd64", "20251006"),
    _debian(12, "amd64", "20260101"),
    _debian(12, "amd64", "20260907"),
    _debian(12, "arm64", "20260907"),
    _debian(13, "amd64", "20260915"),
    {
        "name": "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20260826",
        "account": UBUNTU,
        "created": "2026-08-26T10:02:11+00:00",
        "architecture": "x86_64",
        "user": "ubuntu",
    },
)
"""Public images of others. Their disks are all the same one: Debian 12 without a kernel."""
