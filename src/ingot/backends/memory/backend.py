"""The pretend cloud as a backend: for tests of whatever drives a backend, and for `ingot build --simulate`.

What a driver of a real cloud has to do is done here too: each call goes through one place that tries again what the
cloud wants to be asked later, and what is made is waited for until it is seen.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from ingot.backends.memory.habits import Habits, parse_habits
from ingot.backends.memory.shelf import Disk, Shelf
from ingot.backends.memory.stores import MemoryImages, MemoryLayers
from ingot.errors import BackendError, NotFoundError, TransientError
from ingot.model.digest import digest, short
from ingot.model.events import Emit, Warned, ignore
from ingot.model.image import LayerRef
from ingot.model.plan import Base, ContentId, LayerKey
from ingot.model.units import Bytes, Seconds, format_bytes
from ingot.ports import (
    BackendSettings,
    Cancel,
    Clock,
    Finding,
    Holder,
    Machine,
    MachineSpec,
    Needle,
    Resource,
    SshAccess,
    Token,
)
from ingot.system import locks
from ingot.system.waits import Flag, WallClock, poll

LOCATION = "here"
KIND = "memory.machine"
_PATIENCE = Seconds(600.0)
_PAUSE = Seconds(0.05)

T = TypeVar("T")
Hook = Callable[[str], None]


def no_hook(name: str) -> None:
    """Nothing happens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryMachine:
    """Implements `ports.Machine`. There is nobody to log in to: steps are written down on its disk."""

    ref: str
    ssh: SshAccess
    kind: Literal["chroot"] = "chroot"


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryBackend:
    """Implements `ports.Backend` and its hosts. Safe for several threads, and for several processes on one folder.

    `hook` is called with the name of each call to the cloud before it has an effect, and may raise.
    """

    root: Path
    habits: Habits = Habits()
    clock: Clock = field(default_factory=WallClock)
    hook: Hook = no_hook
    counts: dict[str, int] = field(default_factory=dict)
    """What was made, by kind: `bases`, `machines`, `layers`, `images`."""
    calls: dict[str, int] = field(default_factory=dict)
    """How often each call was made."""
    guard: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def name(self) -> str:
        return "memory"

    @property
    def location(self) -> str:
        return LOCATION

    @property
    def shelf(self) -> Shelf:
        """Where its things are."""
        return Shelf(root=self.root)

    @property
    def hosts(self) -> MemoryBackend:
        return self

    @property
    def own_kind(self) -> Literal["chroot"]:
        return "chroot"

    @property
    def images(self) -> MemoryImages:
        return MemoryImages(cloud=self)

    @property
    def layers(self) -> MemoryLayers:
        return MemoryLayers(shelf=self.shelf)

    @property
    def exporter(self) -> None:
        return None

    @property
    def carrier(self) -> None:
        return None

    @property
    def finder(self) -> None:
        return None

    @property
    def importer(self) -> None:
        return None

    @property
    def publisher(self) -> None:
        return None

    @property
    def doctor(self) -> None:
        return None

    def layer(self, key: LayerKey) -> LayerRef | None:
        """The layer of this key with all that it stands on."""
        return self.shelf.layer(key)

    def find_layers(self, keys: Sequence[LayerKey]) -> dict[LayerKey, LayerRef]:
        """Those of these layers that are there."""
        return {key: found for key in keys if (found := self.layer(key))}

    @contextmanager
    def lock(self, key: LayerKey, *, emit: Emit, cancel: Cancel) -> Iterator[None]:
        """Held by whoever builds the layer of this key."""
        waiting = Warned(
            message=f"another build makes the layer {short(key)}; waiting for it", hint="its result is reused"
        )
        with locks.lock(self.shelf.lock(key), cancel=cancel, on_wait=lambda: emit(waiting)):
            yield

    def resource(self, kind: str) -> Resource:
        """What deletes a dead run's machines. Raises KeyError for a kind that is not ours."""
        return {KIND: MemoryMachines(cloud=self)}[kind]

    def strays(self, *, older_than: Seconds) -> Iterator[tuple[str, str]]:
        """Machines, by their tokens alone."""
        for token in self.shelf.machines():
            if self.age(token) >= max(older_than, self.habits.lag):
                yield KIND, token

    def base(self, base: Base, held: Holder, *, emit: Emit, cancel: Cancel, fresh: bool = False) -> LayerRef:
        """The base's layer: an empty disk of its size."""
        found = None if fresh else self.layer(base.key)
        if found:
            return found

        def make() -> LayerRef:
            self.count("bases")
            disk: Disk = {
                "size": base.disk,
                "packages": [],
                "files": {},
                "done": [f"base {self.counts['bases']}"],
            }
            return self._keep(disk, base.key, parent=None, sealed=False, labels={})

        return self.ask("base", make, cancel=cancel)

    def machine(self, spec: MachineSpec) -> Resource:
        """A machine on a layer."""
        return MemoryMachines(cloud=self, spec=spec)

    def attach(self, ref: str, *, emit: Emit, cancel: Cancel) -> MemoryMachine:
        """The machine, once it is seen and answers. Raises NotFoundError for one that is gone."""

        def up() -> bool | None:
            self._about(ref)
            return True if self.age(ref) >= max(self.habits.boot, self.habits.lag) else None

        self.ask("attach", lambda: True, cancel=cancel)
        often = Seconds(min(max(self.habits.boot / 20, _PAUSE), 1.0))
        self._wait(up, what=f"the start of {ref}", every=often, emit=emit, cancel=cancel)
        return MemoryMachine(ref=ref, ssh=SshAccess(config=self.root / "no-ssh", host=ref))

    def keep(self, ref: str, until: float) -> None:
        """The machine stays as it is, for it does not live here; it halts itself then."""
        self.shelf.put_machine(ref, {**self._about(ref), "expires": until})

    def examine(self, ref: str) -> None:
        """Nothing: a pretend machine says nothing and has no port."""

    def scan(self, machine: Machine, needles: Sequence[Needle], *, cancel: Cancel) -> tuple[Finding, ...]:
        """Needles in the files of the machine's disk."""

        def look() -> tuple[Finding, ...]:
            files: dict[str, str] = self.disk_of(machine.ref)["files"]
            return tuple(
                Finding(what=needle.name, where=path)
                for path, text in files.items()
                for needle in needles
                if needle.value.reveal() in text
            )

        return self.ask("scan", look, cancel=cancel)

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
        """A layer of the machine's disk, once it is complete."""
        if sealed and not scanned:
            raise BackendError("a disk that was not scanned for leaks cannot be sealed", hint="scan it first")

        def make() -> LayerRef:
            self.count("layers")
            about = self._about(machine.ref)
            layer = self._keep(about["disk"], key, parent=about["on"], sealed=sealed, labels=labels)
            self.shelf.put_machine(machine.ref, {**about, "on": layer.content})
            return layer

        started = self.clock.monotonic()
        self._wait(
            lambda: True if self.clock.monotonic() - started >= self.habits.freeze else None,
            what=f"the layer {short(key)}",
            cancel=cancel,
        )
        return self.ask("freeze", make, cancel=cancel)

    def disk_of(self, ref: str) -> Disk:
        """What the disk of a machine holds. Raises NotFoundError for one that is gone."""
        disk: Disk = self._about(ref)["disk"]
        return disk

    def write_disk(self, ref: str, disk: Disk) -> None:
        """Changes the disk of a machine."""
        self.shelf.put_machine(ref, {**self._about(ref), "disk": disk})

    def age(self, ref: str) -> Seconds:
        """For how long a machine has been there."""
        about = self.shelf.machine(ref)
        return Seconds(self.clock.now().timestamp() - about["made"] if about else 0.0)

    def runs(self, ref: str) -> bool:
        """Whether a machine is there and has not halted itself yet."""
        about = self.shelf.machine(ref)
        expires = float(about.get("expires", 0.0)) if about else -1.0
        return expires == 0 or self.clock.now().timestamp() < expires

    def count(self, what: str) -> None:
        """Notes that one more was made."""
        self.counts[what] = self.counts.get(what, 0) + 1

    def ask(self, name: str, act: Callable[[], T], *, cancel: Cancel | None = None) -> T:
        """What `act` gives back, as one call to the cloud: tried again where the cloud asks for that.

        Raises BackendError where the cloud was told to refuse this call.
        """

        def once() -> tuple[T]:
            with self.guard:
                self.calls[name] = number = self.calls.get(name, 0) + 1
                total = sum(self.calls.values())
            self.hook(name)
            if self.habits.throttle and total % self.habits.throttle == 0:
                raise TransientError(f"the pretend cloud wants to be asked later ({name})")
            if number in self.habits.faults.get(name, ()):
                raise BackendError(
                    f"the pretend cloud refused call {number} of {name!r}",
                    hint="it was told to, by its habits",
                )
            return (act(),)

        return self._wait(once, what=f"the cloud's answer to {name}", cancel=cancel)[0]

    def _wait(
        self,
        probe: Callable[[], T | None],
        *,
        what: str,
        every: Seconds = _PAUSE,
        emit: Emit = ignore,
        cancel: Cancel | None = None,
    ) -> T:
        return poll(
            probe,
            what=what,
            every=every,
            deadline=_PATIENCE,
            cancel=cancel or Flag(),
            clock=self.clock,
            emit=emit,
        )

    def _about(self, ref: str) -> dict[str, Any]:
        about = self.shelf.machine(ref)
        if not about or not self.runs(ref):
            how = "has halted itself, for its time was over" if about else "is gone"
            raise NotFoundError(f"the machine {ref} {how}", hint="build again: finished layers are kept")
        return about

    def _keep(
        self,
        disk: Disk,
        key: LayerKey,
        *,
        parent: ContentId | None,
        sealed: bool,
        labels: Mapping[str, str],
    ) -> LayerRef:
        # No two makings of a layer have the same bytes, as it is with real disks.
        content = ContentId(digest([parent, disk, uuid.uuid4().hex]))
        about = LayerRef(
            key=key,
            content=content,
            parent=parent,
            ref=content.removeprefix("sha256:"),
            size=Bytes(len(str(disk))),
            created=self.clock.now().isoformat(timespec="seconds"),
            sealed=sealed,
            labels=dict(labels),
        )
        return self.shelf.put_layer(disk, about)


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryMachines:
    """Implements `ports.Resource`: a machine is a file named by its token. Without a spec it only deletes."""

    cloud: MemoryBackend
    spec: MachineSpec | None = None

    @property
    def kind(self) -> str:
        return KIND

    @property
    def settles(self) -> Seconds:
        return self.cloud.habits.lag

    def create(self, token: Token) -> str:
        """Makes the machine. Raises BackendError beyond the quota, and for a disk that would shrink."""
        assert self.spec is not None, "a resource without a spec only deletes"
        spec, cloud = self.spec, self.cloud

        def make() -> str:
            with (
                cloud.guard
            ):  # counted and made at once: two builds side by side may not both find room for the last
                return place()

        def place() -> str:
            quota = cloud.habits.machines
            if quota and sum(map(cloud.runs, cloud.shelf.machines())) >= quota:
                raise BackendError(
                    f"the quota of {quota} machines at once is used up",
                    hint="build fewer at once: a smaller `-j`",
                )
            disk = cloud.shelf.disk(spec.parent.content)
            if spec.disk is not None and spec.disk < disk["size"]:
                raise BackendError(
                    f"the disk has {format_bytes(disk['size'])} and cannot shrink to {format_bytes(spec.disk)}",
                    hint="write a larger `disk`",
                )
            disk = {**disk, "size": spec.disk or disk["size"]}
            now = cloud.clock.now().timestamp()
            about = {"disk": disk, "on": spec.parent.content, "made": now, "expires": spec.expires}
            cloud.shelf.put_machine(token, about)
            cloud.count("machines")
            return token

        return cloud.ask("create", make)

    def find(self, token: Token) -> str | None:
        """The machine of this token, unless it is too young to be listed."""
        seen = token in self.cloud.shelf.machines() and self.cloud.age(token) >= self.cloud.habits.lag
        return token if seen else None

    def delete(self, ref: str) -> None:
        """Removes it; one that is gone already is fine."""
        self.cloud.ask("delete", lambda: self.cloud.shelf.drop_machine(ref))


def open_backend(settings: BackendSettings) -> MemoryBackend:
    """The pretend cloud of a state folder. The option `habits` says how it behaves; see `habits.parse_habits`."""
    habits = parse_habits(str(settings.options.get("habits", "")))
    return MemoryBackend(root=settings.state / "memory", habits=habits)
