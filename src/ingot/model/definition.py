"""What the user wrote: valid, complete, variables filled in, matrix multiplied out. Not resolved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ingot.model.step import NOWHERE, Place, Step
from ingot.model.units import Bytes, Seconds

Arch = Literal["x86_64", "aarch64"]
BuildPlace = Literal["native", "local"]
"""Where a target's disks are made: on the backend's own machines, or on this computer, to be imported."""
Origin = Literal["default", "file", "environment", "command line", "matrix"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Variable:
    """A variable of a definition with the value that it has now. A sensitive one has no value here."""

    name: str
    type: Literal["string", "number", "boolean", "list", "map"] = "string"
    description: str = ""
    choices: tuple[Any, ...] = ()
    sensitive: bool = False
    rev: str = ""
    """Of a sensitive one: text that counts in the key in place of the value."""
    value: Any = None
    origin: Origin = "default"
    place: Place = NOWHERE


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """One place to build for. `options` are the backend's own, as plain data."""

    name: str
    backend: str
    arch: Arch = "x86_64"
    disk: Bytes = Bytes(8 * 2**30)
    options: Mapping[str, Any] = field(default_factory=dict)
    build: BuildPlace = "native"
    location: str = ""
    """Where its images live, as the backend names it: a region. "" where the backend has one place alone."""
    checkpoints: int | None = None
    """How many layers of a build it keeps beside the last one; None for all of them."""
    place: Place = NOWHERE


def made_by(target: Target) -> str:
    """The name of the backend that makes a target's disks."""
    return "local" if target.build == "local" else target.backend


@dataclass(frozen=True, kw_only=True, slots=True)
class DebootstrapBase:
    """A base made from a Debian archive with mmdebstrap."""

    kind: Literal["debootstrap"] = "debootstrap"
    suite: str
    mirror: str = "http://deb.debian.org/debian"
    security: str = "http://deb.debian.org/debian-security"
    """The archive of security updates; "" for none."""
    components: tuple[str, ...] = ("main",)
    keyring: str = ""
    """A file of the project with the archive's keys; "" for Debian's own."""
    kernel: str = "linux-image-amd64"
    include: tuple[str, ...] = ()

    @property
    def archives(self) -> tuple[tuple[str, str], ...]:
        """(suite, address) of each archive that apt reads: the suite, its updates, its security updates.

        Debian's rolling suites have neither, and where `security` is "" the archive is one that has only the suite.
        """
        if not self.security or self.suite in ("sid", "unstable", "experimental", "rc-buggy"):
            return ((self.suite, self.mirror),)
        updates, security = f"{self.suite}-updates", f"{self.suite}-security"
        return ((self.suite, self.mirror), (updates, self.mirror), (security, self.security))


@dataclass(frozen=True, kw_only=True, slots=True)
class DiskImageBase:
    """A base that is a cloud image: a path of the project or a URL, with its checksum."""

    kind: Literal["disk-image"] = "disk-image"
    url: str
    sha256: str = ""
    """Required for a URL; a path without one is hashed by the lock."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CloudBase:
    """A base that is an image of a cloud. `query` is how it is found there, as the backend's shape has it."""

    kind: Literal["cloud"] = "cloud"
    backend: str
    query: Mapping[str, Any]


BaseSource = DebootstrapBase | DiskImageBase | CloudBase


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseDefinition:
    """A named base: what it is on each target, by target name or backend name."""

    name: str
    sources: Mapping[str, BaseSource]
    place: Place = NOWHERE

    def source_for(self, target: Target) -> BaseSource | None:
        """What it is for a target: what it says of that target, else of where the target's disks are made."""
        return self.sources.get(target.name) or self.sources.get(made_by(target))


CheckMachine = Literal["vm", "booted"]
"""What an image is booted on to be checked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageDefinition:
    """One image after the matrix was multiplied out. Exactly one of `base` and `parent` is set."""

    name: str
    base: str = ""
    parent: str = ""
    """The image of this definition whose last layer before its seal this one continues."""
    targets: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    checks: tuple[str, ...] = ()
    """Paths of testinfra files or folders, relative to the project; a parent's checks come first."""
    matrix: Mapping[str, Any] = field(default_factory=dict)
    disk: Bytes | None = None
    check_timeout: Seconds = Seconds(900.0)
    check_machine: CheckMachine = "vm"
    place: Place = NOWHERE


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedCache:
    """Where layers are shared with other computers: an address that fsspec knows."""

    url: str
    signers: str
    """The project's file of allowed signers, as `ssh-keygen` reads it: whose layers are taken."""
    key: str = ""
    """The file of the key that signs what is given, absolute or `~/…`; "" gives nothing."""
    place: Place = NOWHERE


@dataclass(frozen=True, kw_only=True, slots=True)
class Definition:
    """A whole `ingot.yaml` with its includes. `root` is the project's folder; paths inside are relative to it."""

    name: str
    root: str
    variables: Mapping[str, Variable] = field(default_factory=dict)
    targets: Mapping[str, Target] = field(default_factory=dict)
    bases: Mapping[str, BaseDefinition] = field(default_factory=dict)
    images: Mapping[str, ImageDefinition] = field(default_factory=dict)
    freshness: Seconds | None = None
    """How long what comes from outside is good for; None for as long as the lock says so."""
    cache: SharedCache | None = None
    files: tuple[str, ...] = ()
    """The definition's own files: the first one and what it includes."""
