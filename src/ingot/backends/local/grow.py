"""The root file system of an exported disk, not mounted: grown into room behind it, cleared of what was deleted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ingot.backends.local.holder import HeldDisk
from ingot.backends.local.layout import Partition
from ingot.errors import BackendError
from ingot.model.units import Seconds
from ingot.ports import Cancel

_PATIENCE = Seconds(1200.0)


def grow_partition(held: HeldDisk, files: Sequence[Path], *, cancel: Cancel) -> None:
    """Makes the root partition, and an ext4 file system on it, end where the disk ends. Exported, not mounted.

    Raises BackendError where another partition lies behind the root's.
    """
    assert held.exported
    root, _ = held.exported.root
    behind = [part for part, _ in held.exported.partitions if part.start > root.start]
    if behind:
        raise BackendError(
            f"the root partition cannot grow: partition {behind[0].number} lies behind it",
            hint="keep the disk's size, or use a base whose root partition is the last one",
        )
    if root.number:
        _grow_entry(held, root, files, cancel=cancel)
    _grow_ext4(held, cancel=cancel)


def grow_file_system(held: HeldDisk) -> None:
    """Makes a mounted XFS or btrfs root file system as large as its partition; these grow in no other state."""
    assert held.exported
    _, kind = held.exported.root
    if kind == "xfs":
        held.tool(["xfs_growfs", str(held.root)])
    elif kind == "btrfs":
        held.tool(["btrfs", "filesystem", "resize", "max", str(held.root)])


def _grow_entry(held: HeldDisk, root: Partition, files: Sequence[Path], *, cancel: Cancel) -> None:
    raw = str(held.raw)
    if len(root.type) > 2:  # a GUID: the table's second copy belongs at the new end
        held.tool(["sfdisk", "--quiet", "--relocate", "gpt-bak-std", raw], cancel=cancel)
    held.tool(
        ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", "-N", str(root.number), raw],
        text=", +\n",
        cancel=cancel,
    )
    held.unexport()
    held.export(files, writable=True, cancel=cancel)


def _grow_ext4(held: HeldDisk, *, cancel: Cancel) -> None:
    # A mounted one grows too, but only where the builder has CAP_SYS_RESOURCE, which containers often lack.
    assert held.exported
    root, kind = held.exported.root
    if kind == "ext4":
        held.ask("resize", start=root.start, size=root.size, seconds=_PATIENCE, cancel=cancel)


def clear_free(held: HeldDisk, *, cancel: Cancel) -> None:
    """Overwrites what was deleted from an ext4 root file system with zeros, which take no room. Exported, not mounted."""
    assert held.exported
    root, kind = held.exported.root
    if kind == "ext4":
        held.tool(["zerofree", f"{held.raw}?offset={root.start}"], cancel=cancel)
