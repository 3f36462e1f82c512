"""What the façade (`ingot.api`) answers with, where no other value says it already. Frozen and printable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ingot.model.diagnosis import Diagnosis
from ingot.model.image import CheckRun, LayerRecord, Package
from ingot.model.units import Bytes, Seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Begun:
    """A project that was begun: its folder and the files written, relative to it."""

    folder: Path
    files: tuple[str, ...]
    image: str = ""
    """The image that the definition describes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Valid:
    """A definition without mistakes, in numbers and names. `images` are (image, targets)."""

    name: str
    files: tuple[str, ...]
    images: Mapping[str, tuple[str, ...]]
    variables: Mapping[str, str] = field(default_factory=dict)
    """Where each variable's value came from: `default`, `file`, `environment`, `command line`."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Locked:
    """The lock as it is (or would be) now: how many pins, and what changed, a line each."""

    path: Path
    pins: int
    changes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedLayer:
    """What a build would do about one layer; `reason` tells what changed since the last build."""

    name: str
    key: str
    status: Literal["hit", "miss"]
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """What a build of one image for one target would do. `to_build` counts the layers that are not there."""

    image: str
    target: str
    backend: str
    location: str
    arch: str
    disk: Bytes
    key: str
    to_build: int
    layers: tuple[PlannedLayer, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """One version of one image, as the catalog has it. `size` is the disk's virtual size."""

    project: str
    image: str
    target: str
    backend: str
    location: str
    version: int
    ref: str
    digest: str
    size: Bytes
    arch: str
    created: str
    run: str = ""
    checks: Literal["passed", "failed", "not run"] = "not run"


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspected:
    """All that is known of one version of an image."""

    listed: Listed
    layers: tuple[LayerRecord, ...]
    packages: tuple[Package, ...] = ()
    os_release: Mapping[str, str] = field(default_factory=dict)
    kernel: str = ""
    ingot: str = ""
    checks: tuple[CheckRun, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenRun:
    """A run, alive or over. `state`: `running`, `done`, `failed` or `interrupted`."""

    id: str
    folder: Path
    events: Path
    started: str = ""
    state: str = ""
    verb: str = ""
    plans: tuple[str, ...] = ()
    seconds: Seconds = Seconds(0.0)
    exit_code: int | None = None
    logs: tuple[str, ...] = ()
    """A file for each image that was built, where there were several."""
    held: tuple[str, ...] = ()
    """Temporary things that it has made and not removed yet, each as `<kind> <ref>`."""
    kept_until: str = ""
    """Until when a machine of a run that is over is kept, as ISO 8601 text; "" where none is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """A disk that was written (or would be)."""

    image: str
    target: str
    format: str
    path: Path
    bytes: Bytes = Bytes(0)
    seconds: Seconds = Seconds(0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """How something uses an image: its settings, and the texts of files, by ending. `path` was written, if anything."""

    image: str
    target: str
    format: str
    ref: str
    settings: Mapping[str, Any]
    texts: Mapping[str, str]
    path: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropped:
    """A layer that is removed (or would be) and why; `image` is what the catalog forgets with it, if anything."""

    name: str
    key: str
    bytes: Bytes
    created: str
    reason: str
    image: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Garbage:
    """What garbage collection removed (or would), and how much the layers that stay take."""

    drops: tuple[Dropped, ...] = ()
    runs: tuple[str, ...] = ()
    """Old runs whose logs go."""
    kept: Bytes = Bytes(0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Examined:
    """What was found at the place of one target. `policy` is what its credentials must allow, where there is such."""

    target: str
    backend: str
    location: str
    findings: tuple[Diagnosis, ...]
    policy: Mapping[str, Any] | None = None

    @property
    def well(self) -> bool:
        """Whether nothing was found that a build would fail for."""
        return all(one.state != "bad" for one in self.findings)
