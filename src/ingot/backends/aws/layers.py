"""Layers: snapshots of whole disks, found by the key and the content id in their tags."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ingot.backends.aws import tags
from ingot.backends.aws.cloud import Cloud
from ingot.errors import NotFoundError, RefusedError
from ingot.model.digest import short
from ingot.model.image import LayerRef
from ingot.model.plan import LayerKey
from ingot.ports import StoredLayer

_AT_ONCE = 200
"""Values that one filter takes (EC2, DescribeSnapshots)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SnapshotLayers:
    """Implements `ports.LayerStore`."""

    cloud: Cloud

    def find(self, keys: Sequence[LayerKey]) -> dict[LayerKey, LayerRef]:
        """Those of these layers that are there, of several of one key the newest.

        A sealed one may still be on its way: the disk is as it will be, and whoever registers it waits.
        """
        found: dict[LayerKey, Mapping[str, Any]] = {}
        for start in range(0, len(keys), _AT_ONCE):
            wanted = {f"tag:{tags.KEY}": list(keys[start : start + _AT_ONCE])}
            for snapshot in self._snapshots(wanted):
                key = tags.layer(snapshot).key
                known = found.get(key)
                if _is_there(snapshot) and (not known or known["StartTime"] <= snapshot["StartTime"]):
                    found[key] = snapshot
        return {key: tags.layer(snapshot) for key, snapshot in found.items()}

    def layers(self) -> Iterator[StoredLayer]:
        """Every snapshot of ours that is complete. EC2 keeps no time of last use: it is that of making."""
        for snapshot in self._snapshots({"tag-key": tags.KEY, "status": "completed"}):
            yield StoredLayer(ref=tags.layer(snapshot), last_used=snapshot["StartTime"], leased=False)

    def unfinished(self, names: Sequence[str]) -> Iterator[str]:
        """Those of these snapshots that are not complete."""
        if names:
            wanted = {"snapshot-id": list(names), "status": ["pending", "error"]}
            yield from (str(one["SnapshotId"]) for one in self._snapshots(wanted))

    def drop(self, ref: LayerRef) -> None:
        """Removes a snapshot. Raises RefusedError for one that an AMI stands on."""
        try:
            self.cloud.ask("delete_snapshot", SnapshotId=ref.ref)
        except NotFoundError:
            return
        except RefusedError as error:
            raise RefusedError(
                f"the layer {short(ref.content)} is the snapshot {ref.ref}, which an AMI stands on",
                hint="remove the image first",
            ) from error

    def _snapshots(self, wanted: Mapping[str, str | Sequence[str]]) -> Iterator[Mapping[str, Any]]:
        found = self.cloud.list(
            "describe_snapshots", "Snapshots", OwnerIds=["self"], Filters=tags.filters(wanted)
        )
        return (one for one in found if {tags.KEY, tags.CONTENT} <= tags.values(one).keys())


def _is_there(snapshot: Mapping[str, Any]) -> bool:
    state = snapshot["State"]
    return bool(state == "completed" or (state == "pending" and tags.SEALED in tags.values(snapshot)))
