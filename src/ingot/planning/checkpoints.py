"""Which layers of a build are kept, where keeping one costs money and time: a cloud's snapshots."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ingot.model.step import CloudInitStep, RebootStep, Step
from ingot.model.units import Bytes

Part = tuple[tuple[Step, ...], Bytes | None]
"""The steps of one layer, and the size to which it grows the disk."""


def checkpoints(parts: Sequence[Part], *, most: int | None, ends: Collection[int] = ()) -> frozenset[int]:
    """The indexes of the parts whose layers are kept; the last one, the seal, always is.

    `most` counts those beside it; None keeps all. `ends` are the last parts of images that others continue. What a fresh
    machine has to start from is kept however many that are: the layers before a larger disk, and around user-data, which
    a machine reads at its first boot alone.
    """
    if most is None:
        return frozenset(range(len(parts)))
    last = len(parts) - 1
    needed = {index for index in range(last) if _begins_anew(parts, index + 1)}
    wanted = [
        *(index for index in ends if 0 <= index < last),
        *(index for index in range(last) if any(step.layer for step in parts[index][0])),
        *(index for index in range(last) if _reboots(parts[index + 1])),
        last - 2,  # a change of the last part alone
        0,
        last - 1,  # a change of the checks, or a leak that the seal finds
        *_halves(last),
    ]
    chosen = set(needed)
    for index in wanted:
        if len(chosen) >= max(most, len(needed)):
            break
        if 0 <= index < last:
            chosen.add(index)
    return frozenset(chosen | {last})


def _begins_anew(parts: Sequence[Part], index: int) -> bool:
    """Whether the layer of this part wants a machine that has made nothing else."""
    (before, _), (steps, grow) = parts[index - 1], parts[index]
    return grow is not None or _told(steps) or _told(before)


def _told(steps: Sequence[Step]) -> bool:
    return any(isinstance(step, CloudInitStep) for step in steps)


def _reboots(part: Part) -> bool:
    return any(isinstance(step, RebootStep) for step in part[0])


def _halves(count: int) -> tuple[int, ...]:
    """Indexes below `count` that halve what lies between those before them."""
    return tuple(dict.fromkeys(count * part // size for size in (2, 4, 8) for part in range(1, size)))
