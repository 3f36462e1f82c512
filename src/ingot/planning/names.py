"""Names of layers: short, readable, unique inside a plan."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from typing import assert_never

from ingot.model.plan import Plan
from ingot.model.step import (
    CloudInitStep,
    ContainersStep,
    FilesStep,
    PackagesStep,
    PlaybookStep,
    RebootStep,
    RolesStep,
    ScriptStep,
    SealStep,
    Step,
    describe,
)

_LONGEST = 40
_UNFIT = re.compile(r"[^A-Za-z0-9._+-]+")


def layer_names(base: str, parts: Sequence[tuple[tuple[Step, ...], int | None]]) -> tuple[str, ...]:
    """A name for each part of a plan (its steps, and the size that it grows the disk to), different from the base's."""
    taken = {base}
    names = []
    for steps, grow in parts:
        wanted = "grow" if grow else _wanted(steps)
        name, number = wanted, 1
        while name in taken:
            number += 1
            name = f"{wanted}-{number}"
        taken.add(name)
        names.append(name)
    return tuple(names)


def find_step(plan: Plan, name: str) -> int | None:
    """Which layer of a plan has a step of this name (the layer's own name, the step as plans show it, or a role's)."""
    for number, layer in enumerate(plan.layers):
        names = {layer.name, *(describe(step) for step in layer.steps)}
        names |= {role for step in layer.steps if isinstance(step, RolesStep) for role in step.roles}
        if name in names:
            return number
    return None


def _wanted(steps: Sequence[Step]) -> str:
    text = steps[0].layer or _word(steps[0])
    return _UNFIT.sub("-", text).strip("-.")[:_LONGEST].rstrip("-.") or steps[0].kind


def _word(step: Step) -> str:
    match step:
        case PackagesStep() | ContainersStep() | RebootStep() | SealStep():
            return step.kind
        case RolesStep():
            return "+".join(name.rstrip("/").split("/")[-1].split(".")[-1] for name in step.roles)
        case PlaybookStep() | ScriptStep() | CloudInitStep():
            return posixpath.splitext(posixpath.basename(step.path))[0]
        case FilesStep():
            return posixpath.basename(step.dest.rstrip("/"))
    assert_never(step)
