"""The pretend cloud passes what every backend passes, also with the habits of clouds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from ingot.backends.memory.backend import MemoryBackend
from ingot.backends.memory.habits import Habits, parse_habits
from ingot.model.definition import DebootstrapBase
from ingot.model.digest import digest
from ingot.model.events import ignore
from ingot.model.image import LayerRef
from ingot.model.plan import Base, LayerKey
from ingot.model.step import MachineKind
from ingot.model.units import Bytes
from ingot.ports import Machine, Resource
from ingot.system.waits import Flag
from ingot.testing.backend_suite import BackendSuite, some_base


class NoHolder:
    """A base of the pretend cloud needs nothing temporary."""

    def open(self, resource: Resource) -> str:
        raise AssertionError

    def close(self, ref: str) -> None:
        raise AssertionError

    def keep(self, ref: str, until: float) -> None:
        raise AssertionError


@dataclass(frozen=True, kw_only=True, slots=True)
class MemorySubject:
    """Implements `backend_suite.Subject`."""

    root: Path
    base: LayerRef
    habits: Habits
    kind: MachineKind = "chroot"

    @property
    def planned(self) -> Base:
        return some_base(self.base)

    def open(self, directory: Path) -> MemoryBackend:
        return MemoryBackend(root=self.root, habits=self.habits)

    def write(self, machine: Machine, path: str, text: str) -> None:
        cloud = self.open(self.root)
        disk = cloud.disk_of(machine.ref)
        disk["files"][path] = text
        cloud.write_disk(machine.ref, disk)

    def read(self, machine: Machine, path: str) -> str | None:
        text: str | None = self.open(self.root).disk_of(machine.ref)["files"].get(path)
        return text

    def seal(self, machine: Machine) -> None:
        """What lets one log in is not on the disk."""

    def left(self) -> Sequence[str]:
        return self.open(self.root).shelf.machines()


class TestMemory(BackendSuite):
    @pytest.fixture(params=["", "lag=200ms,boot=100ms,throttle=3"], ids=["at once", "like a cloud"])
    def subject(self, request: pytest.FixtureRequest, tmp_path: Path) -> MemorySubject:
        cloud = MemoryBackend(root=tmp_path / "cloud")
        source = DebootstrapBase(suite="bookworm")
        base = Base(
            name="base", source=source, arch="x86_64", disk=Bytes(2**30), key=LayerKey(digest("base"))
        )
        made = cloud.base(base, NoHolder(), emit=ignore, cancel=Flag())
        return MemorySubject(root=cloud.root, base=made, habits=parse_habits(request.param))
