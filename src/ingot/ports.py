"""Every Protocol that the core calls. Backends, provisioners and stores implement them; they import nothing back.

Members that are not methods are read-only properties, so that an implementation's narrower type fits.
A backend that lacks an ability lacks the port: the planner can say so before anything is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal, NewType, Protocol

from ingot.model.events import Emit
from ingot.model.forensics import Evidence
from ingot.model.image import Image, LayerRef, Package
from ingot.model.plan import Base, ContentId, LayerKey
from ingot.model.secret import Secret
from ingot.model.step import Step
from ingot.model.units import Bytes, Seconds

Token = NewType("Token", str)
"""`ingot-<run>-<number>`: what a temporary thing bears in its own name or tag from its first moment on."""


class Clock(Protocol):
    """Time as the core sees it, so that tests need not wait."""

    def now(self) -> datetime: ...  # aware, UTC
    def monotonic(self) -> Seconds: ...
    def sleep(self, duration: Seconds) -> None: ...


class Cancel(Protocol):
    """The wish to stop. `check` raises CancelledError once it was expressed; `wait` sleeps at most so long."""

    def check(self) -> None: ...
    def wait(self, duration: Seconds) -> bool: ...  # True once cancelled


class Tree(Protocol):
    """The files that planning may read: the project's, and those of the folders that Ansible would search.

    Paths are POSIX text. A relative one (`..` allowed) is the project's, or else that of the first further root
    that has it; absolute ones and `~/…` are what they say.
    """

    def read(self, path: str) -> bytes | None:
        """The bytes of a file (links followed); None where there is no such file."""
        ...

    def files(self, folder: str, *, deep: bool = True) -> Sequence[str]:
        """The files in a folder, and unless `deep` is off all those below it, as sorted paths that begin with
        `folder`; linked folders are followed, `.git` is left out. Empty where there is none."""
        ...

    def mode(self, path: str) -> int:
        """The permission bits of a file or folder (links followed); 0 where there is none."""
        ...

    def listing(self, folder: str) -> Sequence[tuple[str, str, int]]:
        """Everything below a folder as copying it sees it: (path below the folder, kind, permission bits), sorted.

        `kind` is `file`, `folder`, or for a link, which is not followed, `-> ` and what it says. `.git` is left out.
        """
        ...


class Resource(Protocol):
    """One kind of temporary thing that a backend can make and unmake.

    `create` puts the token where `find` can see it, in the same act that makes the thing: a crash right after it
    leaves something that `find` finds. `delete` of a thing already gone succeeds, and when it returns the thing
    is gone with all it held (processes, mounts, loop devices).
    """

    @property
    def kind(self) -> str: ...  # "local.machine", "aws.security-group"
    @property
    def settles(self) -> Seconds:
        """How old a thing may be that `find` does not see yet; 0 where it sees all."""
        ...

    def create(self, token: Token) -> str: ...  # its ref
    def find(self, token: Token) -> str | None: ...
    def delete(self, ref: str) -> None: ...


class Holder(Protocol):
    """The engine's stack of open resources (`engine.resources`): a journal record precedes each create."""

    def open(self, resource: Resource) -> str: ...  # the ref
    def close(self, ref: str) -> None: ...


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
    def kind(self) -> Literal["chroot", "booted", "vm", "instance"]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineSpec:
    """What machine to make: on which layer, of which kind; `purpose` "look" means a throw-away, never frozen."""

    parent: LayerRef
    kind: Literal["chroot", "booted", "vm"] = "chroot"
    purpose: Literal["build", "look"] = "build"
    arch: str = "x86_64"
    disk: Bytes | None = None
    """Grow the disk to this size; None keeps it."""
    memory: Bytes = Bytes(2 * 2**30)
    cpus: int = 2
    boot_limit: Seconds = Seconds(1800.0)
    """How long it may take to come up at most; one whose boot does not go on is given up sooner."""
    labels: Mapping[str, str] = field(default_factory=dict)


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

    The life of a machine: its resource is opened; `attach` makes it reachable (again, after a freeze too);
    steps run; `freeze` turns the state of its disk into a layer and leaves the machine on top of that layer,
    detached. `scan` and `freeze` end whatever runs on the machine first.
    """

    def base(self, base: Base, held: Holder, *, emit: Emit, cancel: Cancel, fresh: bool = False) -> LayerRef:
        """The layer that `base` names, made now if it is not there, or with `fresh` in any case: the new content
        then takes the key over. The caller holds the lock on its key."""
        ...

    def machine(self, spec: MachineSpec) -> Resource: ...
    def attach(self, ref: str, *, emit: Emit, cancel: Cancel) -> Machine: ...

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
        cancel: Cancel,
    ) -> LayerRef:
        """A durable, complete layer: after a crash at any moment it is either all there or not there.

        Where the key has a layer already (a build without cache), the new one takes the key over; the old stays
        for those that stand on it.
        """
        ...


class ImageStore(Protocol):
    """Images of one backend at one location."""

    def list(self, labels: Mapping[str, str]) -> Iterator[Image]: ...
    def register(self, layer: LayerRef, name: str, *, arch: str, labels: Mapping[str, str]) -> Image:
        """Makes an image of a sealed layer. The same layer under the same name again gives the image there is."""
        ...

    def delete(self, image: Image) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredLayer:
    """A layer as its store sees it. `children` are the contents of the layers that stand directly on it."""

    ref: LayerRef
    last_used: datetime
    """Aware, UTC: when it was last made, opened as a parent, checked or exported."""
    leased: bool
    """Whether a machine, a check or an export holds it at this moment."""
    children: frozenset[ContentId] = frozenset()


class LayerStore(Protocol):
    """The layers that a backend keeps, as garbage collection sees them."""

    def layers(self) -> Iterator[StoredLayer]:
        """Every complete layer, base layers too, in no particular order."""
        ...

    def drop(self, ref: LayerRef) -> None:
        """Removes a layer durably. One already gone is fine; RefusedError for one leased or with children."""
        ...


class Exporter(Protocol):
    """Writes an image as one flat disk file, with nothing left of what its layers deleted."""

    @property
    def formats(self) -> Mapping[str, str]:
        """The formats by name (`qcow2`, `vhd`), each with the ending that a file of it has (`.vhd`)."""
        ...

    def export(
        self, image: Image, output: Path, *, format: str, subject: str, emit: Emit, cancel: Cancel
    ) -> Path:
        """Writes the image to `output`, which it replaces; the file appears whole and durable, or not at all."""
        ...


class Backend(Protocol):
    """One place that images live. Knows nothing of plans."""

    @property
    def name(self) -> str: ...
    @property
    def location(self) -> str: ...
    @property
    def hosts(self) -> MachineHost: ...
    @property
    def images(self) -> ImageStore: ...
    @property
    def layers(self) -> LayerStore: ...
    @property
    def exporter(self) -> Exporter | None: ...

    def layer(self, key: LayerKey) -> LayerRef | None:
        """The layer of this key with its whole chain intact, or None. Quick: called for every layer of a plan."""
        ...

    def lock(self, key: LayerKey, *, emit: Emit, cancel: Cancel) -> AbstractContextManager[None]:
        """Held by whoever builds the layer of this key; waits for another holder, and says so."""
        ...

    def resource(self, kind: str) -> Resource:
        """The resource of a journal's record, for deleting. Raises KeyError for a kind that is not ours."""
        ...

    def strays(self, *, older_than: Seconds) -> Iterator[tuple[str, str]]:
        """(kind, ref) of temporary things found by their own marks alone, with no journal."""
        ...


class Provisioner(Protocol):
    """Applies one step to one machine. Raises ProvisionError; a retried step starts from whatever state it left."""

    def expect(self, step: Step) -> None:
        """Told which step comes next, before its machine is there: what takes long to start may start now."""
        ...

    def apply(self, step: Step, machine: Machine, *, subject: str, emit: Emit, cancel: Cancel) -> None: ...

    def close(self) -> None:
        """Ends what was started for a step that did not come."""
        ...


class Inventory(Protocol):
    """Reads what a machine contains, for the manifest."""

    def packages(self, machine: Machine) -> tuple[Package, ...]: ...
    def os_release(self, machine: Machine) -> Mapping[str, str]: ...
    def kernel(self, machine: Machine) -> str: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class BackendSettings:
    """What a backend is opened with. `state` is Ingot's state folder, `directory` the run's own."""

    state: Path
    directory: Path
    root: Path
    """The project's folder, for keyrings and base images named by path."""
    options: Mapping[str, object] = field(default_factory=dict)
    secrets: Mapping[str, Secret] = field(default_factory=dict)


OpenBackend = Callable[[BackendSettings], Backend]
