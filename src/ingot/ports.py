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

from ingot.model.digest import Digest
from ingot.model.events import Emit
from ingot.model.forensics import Evidence
from ingot.model.image import Image, LayerRef, Package
from ingot.model.plan import Base, ContentId, LayerKey
from ingot.model.secret import Secret
from ingot.model.step import Step
from ingot.model.units import Bytes, Seconds
from ingot.ports_disk import Disk

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
    def close(self, ref: str) -> None: ...  # one that is kept too
    def keep(self, ref: str, until: float) -> None: ...  # after the run, until then; seconds since the epoch


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
    def own_kind(self) -> Literal["chroot", "booted", "vm"]:
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Parcel:
    """A layer on its way between computers: all that whoever takes it in has to believe."""

    key: LayerKey
    content: ContentId
    parent: ContentId | None
    kind: str
    """What its bytes are: `qcow2`. A backend takes in what it gives out."""
    file: Digest
    bytes: Bytes
    """The file's checksum and length."""
    disk: Bytes
    created: str
    sealed: bool
    scanned: bool
    """As the layer's own record had it: whether it was scanned as the last layer of a disk."""
    labels: Mapping[str, str] = field(default_factory=dict)


class LayerCarrier(Protocol):
    """Gives a backend's layers out as files, and takes in those of other computers."""

    @property
    def kind(self) -> str: ...
    def room(self) -> Resource:
        """A folder for what is on its way, where a file can become a layer without being copied."""
        ...

    def folder(self, ref: str) -> Path:
        """Where the room of this ref is."""
        ...

    def chain(self, content: ContentId) -> tuple[Parcel, ...]:
        """What would be given out of a whole disk, base first; () for what is not there."""
        ...

    def opened(
        self, parcel: Parcel, needles: Sequence[Needle], *, cancel: Cancel
    ) -> AbstractContextManager[Path]:
        """The file of a layer, its bytes known to be right; nobody drops it meanwhile.

        Raises RefusedError, with the reason, unless the leak scan has read all of the layer and found nothing of these
        needles in it, not even what a layer above it hides.
        """
        ...

    def take(self, file: Path, parcel: Parcel) -> LayerRef:
        """Makes a layer of a file, which is moved; the key leads to it then. The caller holds the key's lock.

        Raises BackendError for bytes other than the parcel's, and for a disk that names other files.
        """
        ...


class LayerCache(Protocol):
    """Layers that computers share. What it raises is a BackendError: a build goes on without it."""

    @property
    def url(self) -> str: ...
    @property
    def gives(self) -> bool:
        """Whether layers can be signed, and so given to others."""
        ...

    def find(
        self, keys: Sequence[LayerKey], *, kind: str, standing: Sequence[ContentId | None], emit: Emit
    ) -> tuple[Parcel, ...]:
        """The layers that lead from what is standing to the deepest that is offered, the lowest first.

        `keys` are those of a plan, base first; `standing` are the contents that the first of them have here. The lowest
        stands on one of those, or on nothing; () where nothing deeper is offered. What is not signed by somebody allowed
        is passed over with a warning.
        """
        ...

    def has(self, key: LayerKey, content: ContentId) -> bool:
        """Whether it offers this very layer, signed by somebody allowed."""
        ...

    def take(self, parcel: Parcel, folder: Path, *, subject: str, emit: Emit, cancel: Cancel) -> Path:
        """The layer's file, made in the folder. Raises RefusedError for what is not what was signed."""
        ...

    def give(
        self, parcel: Parcel, file: Path, folder: Path, *, subject: str, emit: Emit, cancel: Cancel
    ) -> Bytes:
        """Offers the layer to others; the folder is for what is made on the way. Returns how much was sent."""
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

    def opened(
        self, content: ContentId, *, since: ContentId | None = None, cancel: Cancel
    ) -> AbstractContextManager[Disk]:
        """The disk of that content, to be read by blocks; they know whether they are as they were on the one of `since`."""
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
    @property
    def carrier(self) -> LayerCarrier | None: ...

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

    def user_data(self, step: Step) -> Secret | None:
        """What a fresh machine for this step is told from its first boot on; None for a step that needs none."""
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
