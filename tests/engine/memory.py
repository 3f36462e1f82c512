"""A whole backend whose disks are JSON files: small, honest about the contracts, and there after a SIGKILL."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from ingot.errors import NotFoundError, RefusedError
from ingot.model.digest import digest, plain
from ingot.model.events import Emit, Waiting
from ingot.model.image import Image, LayerRef, Package
from ingot.model.plan import Base, ContentId, LayerKey
from ingot.model.secret import Secret, reveal
from ingot.model.step import FilesStep, PackagesStep, SealStep, Step, describe
from ingot.model.units import Bytes, Seconds
from ingot.ports import (
    Backend,
    Cancel,
    Finding,
    Holder,
    ImageStore,
    LayerStore,
    Machine,
    MachineHost,
    MachineSpec,
    Needle,
    Resource,
    SshAccess,
    StoredLayer,
    Token,
)
from ingot.system import locks
from ingot.system.files import write_atomically

CREATED = "2026-11-21T10:00:00+00:00"
Fault = Callable[[str], None]


def no_fault(name: str) -> None:
    """Nothing fails."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryMachine:
    ref: str
    file: Path
    kind: Literal["chroot"] = "chroot"

    @property
    def ssh(self) -> SshAccess:
        return SshAccess(config=self.file, host=self.ref)

    def read(self) -> dict[str, Any]:
        return _read(self.file)

    def write(self, disk: Mapping[str, Any]) -> None:
        write_atomically(self.file, json.dumps(disk))


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryMachines:
    """The resource: a machine is a file named by its token, so that `find` needs no other mark."""

    store: MemoryBackend
    spec: MachineSpec | None = None

    @property
    def kind(self) -> str:
        return "memory.machine"

    def create(self, token: Token) -> str:
        assert self.spec is not None
        self.store.fault("create")
        disk = self.store.disk(self.spec.parent.content)
        if self.spec.disk is not None:
            assert self.spec.disk > disk["size"], "a disk only grows"
            disk = {**disk, "size": self.spec.disk}
        MemoryMachine(ref=token, file=self.store.machine_file(token)).write(disk)
        self.store.count("machines")
        return token

    def find(self, token: Token) -> str | None:
        return token if self.store.machine_file(token).exists() else None

    def delete(self, ref: str) -> None:
        self.store.fault("delete")
        self.store.machine_file(ref).unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryBackend:
    """Backend, hosts, images and layer store in one; `fault` is called before each effect and may raise."""

    root: Path
    fault: Fault = no_fault
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return "memory"

    @property
    def location(self) -> str:
        return "here"

    @property
    def hosts(self) -> MemoryBackend:
        return self

    @property
    def images(self) -> MemoryImages:
        return MemoryImages(store=self)

    @property
    def layers(self) -> MemoryLayers:
        return MemoryLayers(store=self)

    @property
    def exporter(self) -> None:
        return None

    def layer(self, key: LayerKey) -> LayerRef | None:
        pointer = self.root / "keys" / _name(key)
        return self._whole(pointer.read_text()) if pointer.exists() else None

    @contextmanager
    def lock(self, key: LayerKey, *, emit: Emit, cancel: Cancel) -> Iterator[None]:
        waiting = Waiting(what=f"lock {key}", seconds=0.0, deadline=0.0)
        path = self.root / "locks" / _name(key)
        with locks.lock(path, cancel=cancel, on_wait=lambda: emit(waiting)):
            yield

    def resource(self, kind: str) -> Resource:
        return {"memory.machine": MemoryMachines(store=self)}[kind]

    def strays(self, *, older_than: Seconds) -> Iterator[tuple[str, str]]:
        return (("memory.machine", path.stem) for path in (self.root / "machines").glob("*.json"))

    def base(self, base: Base, held: Holder, *, emit: Emit, cancel: Cancel, fresh: bool = False) -> LayerRef:
        found = self.layer(base.key)
        if found and not fresh:
            return found
        self.fault("base")
        self.count("bases")
        disk = {"size": base.disk, "packages": [], "files": {}, "done": [f"base {self.counts['bases']}"]}
        return self._store(disk, base.key, parent=None, sealed=False, labels={})

    def machine(self, spec: MachineSpec) -> Resource:
        return MemoryMachines(store=self, spec=spec)

    def attach(self, ref: str, *, emit: Emit, cancel: Cancel) -> MemoryMachine:
        self.fault("attach")
        file = self.machine_file(ref)
        if not file.exists():
            raise NotFoundError(f"the machine {ref} is gone")
        return MemoryMachine(ref=ref, file=file)

    def scan(self, machine: Machine, needles: Sequence[Needle], *, cancel: Cancel) -> tuple[Finding, ...]:
        files: dict[str, str] = _read(self.machine_file(machine.ref))["files"]
        return tuple(
            Finding(what=needle.name, where=path)
            for path, text in files.items()
            for needle in needles
            if needle.value.reveal() in text
        )

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
        self.fault("freeze")
        assert scanned or not sealed
        self.count("layers")
        file = self.machine_file(machine.ref)
        disk = _read(file)
        parent = disk.pop("on")
        layer = self._store(disk, key, parent=parent, sealed=sealed, labels=labels)
        MemoryMachine(ref=machine.ref, file=file).write({**disk, "on": layer.content})
        return layer

    def disk(self, content: str) -> dict[str, Any]:
        """What a disk holds that stands on this layer."""
        return {**_read(self.root / "layers" / _name(content))["disk"], "on": content}

    def machine_file(self, ref: str) -> Path:
        return self.root / "machines" / f"{ref}.json"

    def machines(self) -> list[str]:
        """Machines that exist."""
        return sorted(path.stem for path in (self.root / "machines").glob("*.json"))

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def damage(self, key: LayerKey) -> None:
        """Loses the bytes of a layer."""
        pointer = self.root / "keys" / _name(key)
        (self.root / "layers" / _name(pointer.read_text())).unlink()

    def _whole(self, content: str) -> LayerRef | None:
        """The layer, if it and all below it are there."""
        below: str | None = content
        while below is not None:
            file = self.root / "layers" / _name(below)
            if not file.exists():
                return None
            below = _read(file)["parent"]
        return self.ref(content)

    def ref(self, content: str) -> LayerRef:
        known = _read(self.root / "layers" / _name(content))
        return LayerRef(
            key=LayerKey(known["key"]),
            content=ContentId(content),
            parent=ContentId(known["parent"]) if known["parent"] else None,
            ref=_name(content),
            size=Bytes(known["bytes"]),
            created=CREATED,
            sealed=known["sealed"],
            labels=known["labels"],
        )

    def _store(
        self,
        disk: Mapping[str, Any],
        key: LayerKey,
        *,
        parent: str | None,
        sealed: bool,
        labels: Mapping[str, str],
    ) -> LayerRef:
        content = digest([parent, disk, uuid.uuid4().hex])  # no two makings of a layer have the same bytes
        known = {
            "key": key,
            "parent": parent,
            "bytes": len(str(disk)),
            "sealed": sealed,
            "labels": dict(labels),
            "disk": dict(disk),
        }
        write_atomically(self.root / "layers" / _name(content), json.dumps(known))
        write_atomically(self.root / "keys" / _name(key), content)
        return self.ref(content)


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryImages:
    store: MemoryBackend

    def list(self, labels: Mapping[str, str]) -> Iterator[Image]:
        for file in sorted((self.store.root / "images").glob("*.json")):
            image = Image(**_read(file))
            if labels.items() <= image.labels.items():
                yield image

    def register(self, layer: LayerRef, name: str, *, arch: str, labels: Mapping[str, str]) -> Image:
        self.store.fault("register")
        assert layer.sealed
        file = self.store.root / "images" / f"{name}-{_name(layer.content)}.json"
        if file.exists():
            return Image(**_read(file))
        self.store.count("images")
        image = Image(
            name=name,
            backend="memory",
            location="here",
            ref=file.stem,
            digest=layer.content,
            key=layer.key,
            arch=arch,
            size=Bytes(self.store.disk(layer.content)["size"]),
            created=CREATED,
            labels=dict(labels),
        )
        write_atomically(file, json.dumps(plain(image)))
        return image

    def delete(self, image: Image) -> None:
        (self.store.root / "images" / f"{image.ref}.json").unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryLayers:
    store: MemoryBackend
    used: Mapping[str, datetime] = field(default_factory=dict)

    def layers(self) -> Iterator[StoredLayer]:
        files = (self.store.root / "layers").glob("[!.]*")  # a dot begins what was never renamed into place
        found = [self.store.ref(_content(file)) for file in files]
        for layer in found:
            yield StoredLayer(
                ref=layer,
                last_used=datetime(2026, 11, 1, tzinfo=UTC),
                leased=False,
                children=frozenset(child.content for child in found if child.parent == layer.content),
            )

    def drop(self, ref: LayerRef) -> None:
        if any(layer.ref.parent == ref.content for layer in self.layers()):
            raise RefusedError(f"the layer {ref.ref} has layers standing on it")
        (self.store.root / "layers" / ref.ref).unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryProvisioner:
    """Writes down what it was asked to do; `fault` is called with the step's description first."""

    store: MemoryBackend
    fault: Fault = no_fault
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    applied: list[str] = field(default_factory=list)

    def expect(self, step: Step) -> None:
        """Nothing takes long to start."""

    def close(self) -> None:
        """Nothing was started."""

    def apply(self, step: Step, machine: Machine, *, subject: str, emit: Emit, cancel: Cancel) -> None:
        name = describe(step)
        self.fault(name)
        cancel.check()
        self.applied.append(name)
        here = MemoryMachine(ref=machine.ref, file=self.store.machine_file(machine.ref))
        disk = here.read()
        match step:
            case PackagesStep():
                disk["packages"] = sorted({*disk["packages"], *step.install} - {*step.remove})
            case FilesStep():
                disk["files"][step.dest] = reveal(step.text or "", self.secrets)
            case SealStep():
                disk["files"].pop("/etc/machine-id", None)
        disk["done"].append(name)
        here.write(disk)


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryInventory:
    store: MemoryBackend
    looked: list[str] = field(default_factory=list)

    def packages(self, machine: Machine) -> tuple[Package, ...]:
        self.looked.append(machine.ref)
        disk = _read(self.store.machine_file(machine.ref))
        assert not any(done == "seal" for done in disk["done"]), "read before the seal"
        return tuple(Package(name=name, version="1") for name in disk["packages"])

    def os_release(self, machine: Machine) -> Mapping[str, str]:
        return {"ID": "memory"}

    def kernel(self, machine: Machine) -> str:
        return "6.1.0"


def conforms(store: MemoryBackend) -> tuple[Backend, MachineHost, ImageStore, LayerStore]:
    """Holds for mypy: the fakes keep the contracts of ports.py."""
    return store, store, store.images, store.layers


def _name(content: str) -> str:
    return content.removeprefix("sha256:")


def _content(file: Path) -> str:
    return f"sha256:{file.name}"


def _read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())
    return found
