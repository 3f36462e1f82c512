"""The local backend: layers as qcow2 files below the state folder, machines on this computer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ingot.backends.local.exporter import LocalExporter
from ingot.backends.local.hosts import (
    BASE_KIND,
    KINDS,
    TRAVEL_KIND,
    LocalHosts,
    LocalMachine,
    MachineKind,
    MachineResource,
    MakeBase,
)
from ingot.backends.local.images import LOCATION, LocalImages
from ingot.backends.local.store import Store
from ingot.model.digest import short
from ingot.model.events import Emit, Warned
from ingot.model.image import LayerRef
from ingot.model.plan import Base, LayerKey
from ingot.model.units import Seconds
from ingot.ports import BackendSettings, Cancel, MachineSpec, Resource
from ingot.system import locks

if TYPE_CHECKING:
    from ingot.backends.local.around import Surroundings
    from ingot.backends.local.carrier import LocalCarrier
    from ingot.backends.local.doctor import LocalDoctor


class LocalBackend:
    """Implements `ports.Backend`."""

    name = "local"
    location = LOCATION
    finder = importer = publisher = None

    def __init__(
        self,
        folder: Path,
        *,
        kinds: Mapping[str, MachineKind],
        store: Store,
        make_base: MakeBase,
        root: Path = Path(),
    ) -> None:
        self.store = store
        self.layers = store
        self.hosts = LocalHosts(folder, store, kinds=kinds, make_base=make_base)
        self.images = LocalImages(folder / "images", store)
        self.exporter = LocalExporter(store)
        self._folder = folder
        self._root = root

    @cached_property
    def carrier(self) -> LocalCarrier:
        """Gives layers to other computers and takes theirs."""
        from ingot.backends.local.carrier import LocalCarrier

        return LocalCarrier(self._folder, store=self.store, hosts=self.hosts)

    @property
    def doctor(self) -> LocalDoctor:
        """Looks at this computer."""
        from ingot.backends.local.doctor import LocalDoctor

        return LocalDoctor(folder=self._folder, root=self._root)

    def layer(self, key: LayerKey) -> LayerRef | None:
        """The layer of this key with its whole chain intact; what is damaged is dropped."""
        return self.store.find(key)

    def find_layers(self, keys: Sequence[LayerKey]) -> dict[LayerKey, LayerRef]:
        """Those of these layers that are there."""
        return {key: found for key in keys if (found := self.layer(key))}

    def lock(self, key: LayerKey, *, emit: Emit, cancel: Cancel) -> AbstractContextManager[None]:
        """Held by whoever builds the layer of this key."""
        waiting = Warned(
            message=f"another build makes the layer {short(key)}; waiting for it", hint="its result is reused"
        )
        return locks.lock(self.store.lock(key), cancel=cancel, on_wait=lambda: emit(waiting))

    def resource(self, kind: str) -> Resource:
        """What deletes a dead run's machines. Raises KeyError for a kind that is not ours."""
        if kind not in (*KINDS.values(), BASE_KIND, TRAVEL_KIND):
            raise KeyError(kind)
        return MachineResource(self.hosts, kind)

    def strays(self, *, older_than: Seconds) -> Iterator[tuple[str, str]]:
        """Machines whose process is gone, found by their folders alone."""
        return self.hosts.strays(older_than=older_than)


def open_backend(settings: BackendSettings) -> LocalBackend:
    """The local backend of a state folder. Nothing is made, started or even imported before it is used."""
    folder = settings.state / "local"
    store = Store(folder)

    def make_base(base: Base, disk: Path, *, emit: Emit, cancel: Cancel) -> Mapping[str, str]:
        from ingot.backends.local import base as bases

        return bases.make_base(base, disk, settings=settings, emit=emit, cancel=cancel)

    around = _around(settings)
    chroot = _chroot(store, around)
    kinds = {"chroot": chroot, "booted": chroot, "vm": _virtual(folder, store, around)}
    return LocalBackend(folder, kinds=kinds, store=store, make_base=make_base, root=settings.root)


def _around(settings: BackendSettings) -> Callable[[], Surroundings]:
    @cache
    def around() -> Surroundings:
        from ingot.backends.local.around import Surroundings
        from ingot.backends.local.download_origin import upstream_from
        from ingot.backends.local.downloads import Downloads

        return Surroundings(
            keys=settings.directory / "ssh",
            environment=dict(os.environ),
            downloads=Downloads(settings.state / "downloads", upstream=upstream_from(os.environ)),
        )

    return around


def _chroot(store: Store, around: Callable[[], Surroundings]) -> MachineKind:
    def open_machine(work: Path, spec: MachineSpec) -> LocalMachine:
        from ingot.backends.local.machine import Chroot

        return Chroot(work, spec, store=store, around=around())

    def remove(work: Path) -> None:
        from ingot.backends.local.machine import remove_work

        remove_work(work)

    return MachineKind(open=open_machine, remove=remove)


def _virtual(folder: Path, store: Store, around: Callable[[], Surroundings]) -> MachineKind:
    def open_machine(work: Path, spec: MachineSpec) -> LocalMachine:
        if spec.purpose == "build":
            from ingot.backends.local.virtual_build import VirtualBuild

            return VirtualBuild(work, spec, store=store, state=folder, around=around())
        from ingot.backends.local.virtual import Virtual

        return Virtual(work, spec, store=store, state=folder)

    def remove(work: Path) -> None:
        from ingot.backends.local.virtual import remove_virtual

        remove_virtual(work, state=folder)

    return MachineKind(open=open_machine, remove=remove)
