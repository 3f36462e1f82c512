"""Growing the root file system of an exported disk into room that was added behind it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ingot.backends.local.holder import HeldDisk
from ingot.errors import BackendError
from ingot.ports import Cancel


def grow_partition(held: HeldDisk, files: Sequence[Path], *, cancel: Cancel) -> None:
    """Makes the root partition end where the disk ends. Raises BackendError where another lies behind it."""
    assert held.exported
    root, _ = held.exported.root
    behind = [part for part, _ in held.exported.partitions if part.start > root.start]
    if behind:
        raise BackendError(
            f"the root partition cannot grow: partition {behind[0].number} lies behind it",
            hint="keep the disk's size, or use a base whose root partition is the last one",
        )
    if root.number == 0:
        return
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


def grow_file_system(held: HeldDisk, device: str) -> None:
    """Makes the mounted root file system as large as its partition."""
    assert held.exported
    _, kind = held.exported.root
    root = str(held.root)
    match kind:
        case "ext4":
            held.tool(["resize2fs", device])
        case "xfs":
            held.tool(["xfs_growfs", root])
        case _:
            held.tool(["btrfs", "filesystem", "resize", "max", root])
