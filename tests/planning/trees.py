"""Trees in memory, and definitions small enough to read, for planning's tests."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ingot.model.definition import (
    BaseDefinition,
    DebootstrapBase,
    Definition,
    ImageDefinition,
    Target,
    Variable,
)
from ingot.model.plan import Plan
from ingot.model.step import FilesStep, PackagesStep, PlaybookStep, RolesStep, ScriptStep, Step
from ingot.model.units import Bytes
from ingot.planning.planner import plan
from ingot.ports import Tree

GIB = 2**30
KINDS: dict[str, type[PackagesStep | RolesStep | PlaybookStep | ScriptStep | FilesStep]] = {
    "packages": PackagesStep,
    "roles": RolesStep,
    "playbook": PlaybookStep,
    "script": ScriptStep,
    "files": FilesStep,
}


@dataclass(frozen=True, slots=True)
class MemoryTree:
    """A tree of texts. A path in `modes` has those bits, every other file 0644."""

    texts: Mapping[str, str]
    modes: Mapping[str, int]

    def read(self, path: str) -> bytes | None:
        text = self.texts.get(posixpath.normpath(path))
        return None if text is None else text.encode()

    def files(self, folder: str, *, deep: bool = True) -> Sequence[str]:
        prefix = f"{folder.rstrip('/')}/" if folder not in ("", ".") else ""
        found = (path for path in self.texts if path.startswith(prefix))
        return sorted(path for path in found if deep or "/" not in path[len(prefix) :])

    def mode(self, path: str) -> int:
        if path in self.texts:
            return self.modes.get(path, 0o644)
        return 0o755 if self.files(path) else 0

    def listing(self, folder: str) -> Sequence[tuple[str, str, int]]:
        start = len(folder.rstrip("/")) + 1
        return [(path[start:], "file", self.mode(path)) for path in self.files(folder)]


def tree(texts: Mapping[str, str], *, modes: Mapping[str, int] | None = None) -> Tree:
    """The tree of these files."""
    return MemoryTree(texts, modes or {})


def definition(
    *steps: Step,
    disk: int = 8 * GIB,
    images: Sequence[ImageDefinition] = (),
    secrets: Sequence[Variable] = (),
) -> Definition:
    """One image `node` of these steps for one target `local`, and further images."""
    node = ImageDefinition(name="node", base="debian-12", targets=("local",), steps=steps)
    return Definition(
        name="acme",
        root="/project",
        variables={variable.name: variable for variable in secrets},
        targets={"local": Target(name="local", backend="local", disk=Bytes(disk))},
        bases={
            "debian-12": BaseDefinition(
                name="debian-12", sources={"local": DebootstrapBase(suite="bookworm")}
            )
        },
        images={image.name: image for image in (node, *images)},
    )


def planned(
    known: Definition | Sequence[Step],
    files: Mapping[str, str] | None = None,
    *,
    image: str = "node",
    ansible: str = "2.19.3",
    epoch: str = "",
    pins: Mapping[str, str] | None = None,
) -> Plan:
    """The plan of one image over files in memory."""
    return plan(
        known if isinstance(known, Definition) else definition(*known),
        image=image,
        target="local",
        tree=tree(files or {}),
        pins=lambda base, source, arch: pins or {},
        ansible=ansible,
        epoch=epoch,
    )


def step_from(fields: Mapping[str, Any]) -> Step:
    """A step written as plain data: `{kind: packages, install: [htop]}`."""
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in fields.items()
        if name != "kind"
    }
    return KINDS[fields["kind"]](**values)
