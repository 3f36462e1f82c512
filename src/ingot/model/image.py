"""What exists: layers that were frozen, images that were registered, and what is recorded of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ingot.model.plan import ContentId, LayerKey
from ingot.model.units import Bytes, Seconds

LayerStatus = Literal["reused", "built"]
Status = Literal["built", "reused", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerRef:
    """A layer that exists, complete, on one backend at one location. `ref` is the backend's own name for it."""

    key: LayerKey
    content: ContentId
    parent: ContentId | None
    ref: str
    size: Bytes
    """Bytes that the layer itself occupies."""
    created: str
    """UTC, ISO 8601."""
    sealed: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """A finished, immutable, startable thing at one location of one backend."""

    name: str
    backend: str
    location: str
    ref: str
    digest: ContentId
    key: LayerKey
    arch: str
    size: Bytes
    """The disk's virtual size."""
    created: str
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """An installed package of the image."""

    name: str
    version: str
    arch: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerRecord:
    """How one layer of a build came about. `seconds` is 0 for a reused one that was here already."""

    name: str
    key: LayerKey
    status: LayerStatus
    seconds: Seconds
    bytes: Bytes
    content: ContentId | None = None
    steps: tuple[str, ...] = ()
    pulled: bool = False
    """Whether a reused one came from the shared cache."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What an image contains and how it was made. Never edited."""

    image: str
    target: str
    digest: ContentId
    project: str
    arch: str
    ingot: str
    created: str
    run: str
    layers: tuple[LayerRecord, ...]
    packages: tuple[Package, ...]
    os_release: Mapping[str, str] = field(default_factory=dict)
    kernel: str = ""
    plan: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckResult:
    """One check of one run: a built-in one or a test of the user's."""

    name: str
    outcome: Literal["passed", "failed", "skipped"]
    seconds: Seconds
    message: str = ""
    hint: str = ""
    """What to try next, where the machine itself was the trouble."""
    bundle: str = ""
    """The folder with all that was seen of it then."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckRun:
    """One run of an image's checks; recorded by the image's digest."""

    digest: ContentId
    run: str
    created: str
    machine: str
    """What it ran on: `qemu tcg`, `qemu kvm`."""
    boot_seconds: Seconds
    results: tuple[CheckResult, ...]

    @property
    def passed(self) -> bool:
        """Whether something was checked and nothing failed."""
        return bool(self.results) and all(result.outcome != "failed" for result in self.results)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of one plan. `error` has message, hint, code and facts where status is `failed`."""

    image: str
    target: str
    backend: str
    location: str
    status: Status
    seconds: Seconds
    version: int | None = None
    ref: str = ""
    digest: str = ""
    layers: tuple[LayerRecord, ...] = ()
    checks: CheckRun | None = None
    error: Mapping[str, Any] | None = None
    copies: Mapping[str, str] = field(default_factory=dict)
    """The image's `ref` at each further location."""
    log: str = ""
    """The file with the words of this build alone, where there were several."""
