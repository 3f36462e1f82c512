"""Machines: what is made, reached, frozen, looked at and scanned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from ingot.model.events import Emit
from ingot.model.forensics import Evidence
from ingot.model.image import LayerRef
from ingot.model.plan import Base, LayerKey
from ingot.model.secret import Secret
from ingot.model.units import Bytes, Seconds
from ingot.ports.basics import Cancel, Holder, Resource

HostKind = Literal["chroot", "booted", "vm", "instance"]
"""Kinds of machines: three of the local backend, and the one that clouds have."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SshAccess:
    """How a machine is reached: OpenSSH's own client with this config file and this host alias. User: root."""

    config: Path
    host: str


class Machine(Protocol):
    """A thing that can be provisioned now; dies with the run. `system.ssh` runs commands on and copies files to it."""

    @property
    def ref(self) -> str: ...
    @property
    def ssh(self) -> SshAccess: ...
    @property
    def kind(self) -> HostKind: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineSpec:
    """What machine to make: on which layer, of which kind; `purpose` "look" means a throw-away, never frozen."""

    parent: LayerRef
    kind: HostKind = "chroot"
    purpose: Literal["build", "look"] = "build"
    arch: str = "x86_64"
    disk: Bytes | None = None
    """Grow the disk to this size; None keeps it."""
    memory: Bytes = Bytes(2 * 2**30)
    cpus: int = 2
    boot_limit: Seconds = Seconds(1800.0)
    """How long it may take to come up at most; one whose boot does not go on is given up sooner."""
    labels: Mapping[str, str] = field(default_factory=dict)
    expires: float = 0.0
    """When it halts itself, whatever became of its maker, in seconds since the epoch; 0 for never.

    A machine that cannot outlive its maker need not heed it.
    """
    user_data: Secret | None = None
    """What the system is told from its first boot on, as a cloud tells an instance; never part of its disk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Needle:
    """What the leak scan looks for beside its own patterns: a name for messages and the bytes that may not be there."""

    name: str
    value: Secret
    fresh: bool = False
    """Made by this very run: no layer that was there before it can hold it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A leak: what it is and where (`/root/.netrc`, or `block at 1.2 GiB`). Never the secret itself."""

    what: str
    where: str


class MachineHost(Protocol):
    """Makes machines and freezes what became of them.

    The life of a machine: its resource is opened; `attach` makes it reachable (again, after a freeze or `keep`);
    steps run; `freeze` turns the state of its disk into a layer and leaves the machine on top of that layer,
    detached. `scan` and `freeze` end whatever steps have started first.
    """

    @property
    def own_kind(self) -> HostKind:
        """What the engine's own layers, a larger disk and the seal, are made on here."""
        ...

    def base(self, base: Base, held: Holder, *, emit: Emit, cancel: Cancel, fresh: bool = False) -> LayerRef:
        """The layer that `base` names, made now if it is not there, or with `fresh` in any case: the new content
        then takes the key over. The caller holds the lock on its key."""
        ...

    def machine(self, spec: MachineSpec) -> Resource: ...
    def attach(self, ref: str, *, emit: Emit, cancel: Cancel) -> Machine: ...

    def keep(self, ref: str, until: float) -> None:
        """Makes the machine fit for staying after this process, until then: `attach` of another one finds it as it is now.

        What ran on it may have ended, where it lives on this computer. Raises BackendError where it cannot stay.
        """
        ...

    def examine(self, ref: str) -> Evidence | None:
        """What can be seen of a machine that could not be attached, or on which a step failed.

        None for one that runs and answers, and for a kind of which nothing can be seen. Any other is of no more use
        then: it may be ended so that its disk can be read. It still has to be deleted.
        """
        ...

    def scan(self, machine: Machine, needles: Sequence[Needle], *, cancel: Cancel) -> tuple[Finding, ...]:
        """What the disk as it now is must not hold: files, and raw blocks allocated since the last scanned layer."""
        ...

    def freeze(
        self,
        machine: Machine,
        key: LayerKey,
        *,
        labels: Mapping[str, str],
        scanned: bool,
        sealed: bool,
        final: bool = True,
        cancel: Cancel,
    ) -> LayerRef:
        """A durable, complete layer: after a crash at any moment it is either all there or not there.

        Unless it is `final` the machine will make another layer: one that takes long to boot may keep running then.

        Where the key has a layer already (a build without cache), the new one takes the key over; the old stays
        for those that stand on it.
        """
        ...
