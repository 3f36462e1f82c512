"""Machines of the local backend, and the layers that are made of them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from ingot.backends.local.records import Record
from ingot.backends.local.store import NewLayer, Store
from ingot.errors import BackendError, NotFoundError
from ingot.model.events import Emit
from ingot.model.forensics import Evidence
from ingot.model.image import LayerRef
from ingot.model.plan import Base, LayerKey
from ingot.model.units import Seconds
from ingot.ports import Cancel, Finding, Holder, Machine, MachineSpec, Needle, Resource, Token
from ingot.system import locks, process

KINDS = {"chroot": "local.machine", "booted": "local.machine", "vm": "local.vm"}
"""What the journal calls each kind of machine. A booted one is left, and removed, as a chroot is."""
BASE_KIND, TRAVEL_KIND = "local.base", "local.layer"
"""Work folders without a machine: where a base is made, where a layer is that comes or goes."""
_TOOLS = ("qemu-storage-daemon", "qemu-img", "slirp4netns", "unshare", "nsenter", "mount", "ssh", "sfdisk")
_VM_TOOLS = ("qemu-system-x86_64", "qemu-img", "mformat", "mcopy", "ssh", "ssh-keygen")
_ROOTLESS_TOOLS = ("qemu-storage-daemon", "fuse2fs", "zerofree", "unshare", "nsenter")


class LocalMachine(Protocol):
    """One machine of whatever kind, from the making of its work folder to its end."""

    @property
    def parent(self) -> Record | None:
        """The layer that the next one will stand on; None where that one will be flat."""
        ...

    def create(self) -> None: ...
    def adopt(self) -> None: ...
    def put_by(self) -> None: ...
    def attach(self, *, emit: Emit, cancel: Cancel) -> Machine: ...
    def examine(self) -> Evidence | None: ...
    def freeze(self, new: NewLayer, *, final: bool) -> Record: ...
    def scan(self, needles: Sequence[Needle], *, cancel: Cancel) -> tuple[Finding, ...]: ...
    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineKind:
    """How one kind of machine is made in a work folder that is not there yet, and removed after its process died."""

    open: Callable[[Path, MachineSpec], LocalMachine]
    remove: Callable[[Path], None]


class MakeBase(Protocol):
    """Writes the disk of a base: a qcow2 file of the base's size that names no other file. Returns its labels."""

    def __call__(self, base: Base, disk: Path, *, emit: Emit, cancel: Cancel) -> Mapping[str, str]: ...


class MachineResource:
    """Implements `ports.Resource`: work folders, whose name is the token. Without a spec it only deletes."""

    def __init__(self, hosts: LocalHosts, kind: str, spec: MachineSpec | None = None) -> None:
        self._hosts = hosts
        self._spec = spec
        self.kind = kind
        self.settles = Seconds(0.0)

    def create(self, token: Token) -> str:
        """Makes the machine, detached. Raises BackendError where this computer can't, before anything is made."""
        assert self._spec, "a resource without a spec only deletes"
        self._hosts.create(token, self._spec)
        return token

    def find(self, token: Token) -> str | None:
        """The ref of this token's machine, if its folder is there."""
        return token if self._hosts.work(token).exists() else None

    def delete(self, ref: str) -> None:
        """Ends and removes it."""
        self._hosts.delete(ref, self.kind)


class RoomResource(MachineResource):
    """A work folder in which a base is made, or a layer waits that comes from elsewhere."""

    def __init__(self, hosts: LocalHosts, kind: str = TRAVEL_KIND) -> None:
        super().__init__(hosts, kind)

    def create(self, token: Token) -> str:
        """An empty work folder."""
        self._hosts.work(token).mkdir(parents=True)
        return token


class LocalHosts:
    """Implements `ports.MachineHost`. `kinds` opens machines by their kind."""

    def __init__(
        self, folder: Path, store: Store, *, kinds: Mapping[str, MachineKind], make_base: MakeBase
    ) -> None:
        self._folder = folder / "work"
        self._store = store
        self._kinds = kinds
        self._make_base = make_base
        self._machines: dict[str, LocalMachine] = {}
        self._guard = threading.Lock()

    @property
    def own_kind(self) -> Literal["chroot", "vm"]:
        """A chroot machine, which is quick, where one can be had: with root."""
        return "chroot" if os.geteuid() == 0 else "vm"

    def base(self, base: Base, held: Holder, *, emit: Emit, cancel: Cancel, fresh: bool = False) -> LayerRef:
        """The base's layer, made in a work folder of its own where it is not there. The caller locks its key."""
        found = None if fresh else self._store.find(base.key)
        if found:
            return found
        refuse_foreign_arch(base.arch)
        ref = held.open(RoomResource(self, BASE_KIND))
        disk = self.work(ref) / "disk.qcow2"
        labels = self._make_base(base, disk, emit=emit, cancel=cancel)
        # What a base is made from is public, and it is made before any secret of the run is in reach.
        new = NewLayer(
            key=base.key, parent=None, sealed=False, scanned=True, labels={**labels, "base": base.name}
        )
        record = self._store.add(disk, new)
        held.close(ref)
        return record.ref(self._store.file(record.content))

    def machine(self, spec: MachineSpec) -> Resource:
        """A machine on a layer. Raises BackendError for what this computer cannot run, before anything is made."""
        refuse_foreign_arch(spec.arch)
        if spec.kind not in self._kinds:
            known = ", ".join(sorted(self._kinds))
            raise BackendError(f"the local backend has no {spec.kind} machines yet", hint=f"it has: {known}")
        if spec.user_data and spec.kind != "booted":
            raise BackendError(
                f"the local backend cannot give user-data to a {spec.kind} machine",
                hint="leave the step's `machine` out, or write `machine: booted`",
            )
        if spec.kind in ("chroot", "booted"):
            from ingot.backends.local.holder import refuse_without_root

            refuse_without_root()
        refuse_missing_tools(tools_of(spec.kind))
        return MachineResource(self, KINDS[spec.kind], spec)

    def attach(self, ref: str, *, emit: Emit, cancel: Cancel) -> Machine:
        """The machine, reachable. One that this process did not open must have been kept: else NotFoundError."""
        return self._of(ref).attach(emit=emit, cancel=cancel)

    def keep(self, ref: str, until: float) -> None:
        """Leaves the machine's work folder, its disk at rest, for another process to attach; a folder has no clock."""
        self._of(ref).put_by()
        with self._guard:
            self._machines.pop(ref, None)

    def examine(self, ref: str) -> Evidence | None:
        """What can be seen of a machine that does not answer, which is of no more use then; None for one that does."""
        return self._of(ref).examine()

    def scan(self, machine: Machine, needles: Sequence[Needle], *, cancel: Cancel) -> tuple[Finding, ...]:
        """What the disk must not hold; the machine is detached then."""
        return self._of(machine.ref).scan(needles, cancel=cancel)

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
        """A durable layer of what was written since the last one; the machine stands on it then, detached."""
        cancel.check()
        own = self._of(machine.ref)
        parent = own.parent
        record = own.freeze(
            NewLayer(
                key=key,
                parent=parent.content if parent else None,
                sealed=sealed,
                scanned=scanned,
                labels=labels,
            ),
            final=final,
        )
        return record.ref(self._store.file(record.content))

    def create(self, token: Token, spec: MachineSpec) -> None:
        """Makes a machine in the work folder that bears the token."""
        machine = self._kinds[spec.kind].open(self.work(token), spec)
        with self._guard:
            self._machines[token] = machine
        machine.create()

    def delete(self, ref: str, kind: str) -> None:
        """Ends a machine of this process or of a dead one, and removes its folder."""
        with self._guard:
            machine = self._machines.pop(ref, None)
        self._store.unpin(ref)
        if machine:
            machine.close()
            return
        # The folder in which a base is made is laid out as that of a chroot machine.
        removers = {KINDS[name]: made.remove for name, made in self._kinds.items()}
        removers.get(kind, self._kinds["chroot"].remove)(self.work(ref))

    def work(self, token: str) -> Path:
        """The work folder that bears this token."""
        if not token or "/" in token or token.startswith("."):
            raise NotFoundError(f"{token!r} names no machine of the local backend")
        return self._folder / token

    def strays(self, *, older_than: Seconds) -> Iterator[tuple[str, str]]:
        """Work folders that no living process uses."""
        for path in sorted(self._folder.glob("*")) if self._folder.is_dir() else ():
            if time.time() - path.stat().st_mtime >= older_than:
                with locks.try_lock(path / "lock") as free:
                    if free:
                        # A virtual machine's console is there from its start on.
                        yield KINDS["vm" if (path / "console").exists() else "chroot"], path.name

    def _of(self, ref: str) -> LocalMachine:
        with self._guard:
            machine = self._machines.get(ref)
        if machine:
            return machine
        from ingot.backends.local.overlay import read_spec

        spec = read_spec(self.work(ref))
        machine = self._kinds[spec.kind].open(self.work(ref), spec)
        machine.adopt()
        with self._guard:
            self._machines[ref] = machine
        return machine


def refuse_foreign_arch(arch: str) -> None:
    """Raises BackendError for an architecture that is not this computer's."""
    own = os.uname().machine
    if arch != own:
        raise BackendError(
            f"the local backend of this computer ({own}) cannot make {arch} machines",
            hint=f"build on a computer of that architecture, or set `arch: {own}` on the target",
        )


def tools_of(kind: str) -> tuple[str, ...]:
    """The programs that a kind of machine needs, run by the user that we are."""
    if kind == "vm":
        return _VM_TOOLS if os.geteuid() == 0 else (*_VM_TOOLS, *_ROOTLESS_TOOLS)
    return (*_TOOLS, "systemd-nspawn") if kind == "booted" else _TOOLS


def refuse_missing_tools(names: Sequence[str]) -> None:
    """Raises BackendError naming every one of these programs that is not installed."""
    missing = [name for name in names if not process.have(name)]
    if missing:
        raise BackendError(
            f"these programs are not installed: {', '.join(missing)}",
            hint="`make setup` installs what Ingot needs; the list is in `debian-packages.txt`",
        )
