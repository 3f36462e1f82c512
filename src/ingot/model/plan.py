"""Plan: one image for one target, every input pinned. Plain data: no clients, no secrets, no local state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NewType

from ingot.model.definition import Arch, BaseSource
from ingot.model.digest import Digest, digest, plain
from ingot.model.step import HOW, MachineKind, SealStep, Step, step_key
from ingot.model.units import Bytes, Seconds

SCHEMA = 1
"""Part of every key. Raising it rebuilds everything that anybody has: a decision page."""

LayerKey = NewType("LayerKey", str)
"""A digest of inputs: what a layer is made from decides it."""
ContentId = NewType("ContentId", str)
"""A digest of a layer's bytes and of its parent's content id: what the whole disk is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Base:
    """The pinned beginning of a plan. `pins` are facts of the lock that count (mirror digests, checksums)."""

    name: str
    source: BaseSource
    arch: Arch
    disk: Bytes
    pins: Mapping[str, str] = field(default_factory=dict)
    key: LayerKey


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """Steps applied together. `parent` is the key below: the base's for the first layer."""

    name: str
    key: LayerKey
    parent: LayerKey
    steps: tuple[Step, ...]
    keep: bool = True
    """Whether it is frozen; else its steps are only part of what the next one that is kept holds."""
    grow: Bytes | None = None
    """The size that the disk has from this layer on, where `from` grows it."""
    revs: Mapping[str, str] = field(default_factory=dict)
    """The `rev` of each secret of its steps that has one: it counts in place of the value."""

    @property
    def machine(self) -> MachineKind:
        """The kind of machine that its steps want."""
        return self.steps[0].machine if self.steps else "chroot"

    @property
    def seals(self) -> bool:
        """Whether this is the layer after which the disk is an image."""
        return any(isinstance(step, SealStep) for step in self.steps)


@dataclass(frozen=True, kw_only=True, slots=True)
class Destination:
    """Where a finished disk is imported."""

    backend: str
    location: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A base and an ordered chain of layers, the last of which seals."""

    project: str
    image: str
    target: str
    backend: str
    location: str
    arch: Arch
    disk: Bytes
    base: Base
    layers: tuple[Layer, ...]
    checks: tuple[str, ...] = field(default=(), metadata=HOW)
    check_timeout: Seconds = Seconds(900.0)
    options: Mapping[str, Any] = field(default_factory=dict)
    imported: Destination | None = None
    """Where the disk goes, once `backend` has made it; None where it is made where it is wanted."""
    secrets: tuple[str, ...] = ()
    """Names of the secrets that its steps refer to."""

    @property
    def key(self) -> LayerKey:
        """The key of the finished disk."""
        return self.layers[-1].key

    @property
    def subject(self) -> str:
        """`image/target`: what events and messages call this plan."""
        return f"{self.image}/{self.target}"


def base_key(source: BaseSource, *, arch: str, disk: int, pins: Mapping[str, str]) -> LayerKey:
    """The key of a base layer: where it comes from, its architecture, its size, and its pins."""
    counted = {f.name: plain(getattr(source, f.name)) for f in fields(source)}
    return LayerKey(
        digest({"schema": SCHEMA, "base": counted, "arch": arch, "disk": disk, "pins": dict(pins)})
    )


def layer_key(
    parent: LayerKey,
    *,
    arch: str,
    steps: tuple[Step, ...],
    grow: int | None = None,
    revs: Mapping[str, str] | None = None,
) -> LayerKey:
    """The key of a layer: its parent's, the architecture, every field of every step that counts, secrets' revs."""
    return LayerKey(
        digest(
            {
                "schema": SCHEMA,
                "parent": parent,
                "arch": arch,
                "grow": grow,
                "steps": [step_key(step) for step in steps],
                "revs": dict(revs or {}),
            }
        )
    )


def content_id(parent: ContentId | None, file: Digest) -> ContentId:
    """What a whole disk is: the bytes of its last layer, and what that stands on."""
    return ContentId(digest({"parent": parent, "file": file}))


def as_digest(key: LayerKey | ContentId) -> Digest:
    """The same text as a plain digest."""
    return Digest(key)
