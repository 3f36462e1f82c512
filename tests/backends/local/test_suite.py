"""The local backend passes what every backend passes, on real disks."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from ingot.backends.local.backend import LocalBackend, open_backend
from ingot.model.image import LayerRef
from ingot.model.plan import Base
from ingot.model.step import MachineKind
from ingot.ports import BackendSettings, Machine
from ingot.testing.backend_suite import BackendSuite, some_base
from tests.backends.local.test_killed import find_leftovers, own_loops
from tests.local_fixtures import Site, cached_base, sh, site

__all__ = ["cached_base", "site"]
pytestmark = pytest.mark.local


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalSubject:
    """Implements `backend_suite.Subject`."""

    state: Path
    base: LayerRef
    kind: MachineKind = "chroot"

    @property
    def planned(self) -> Base:
        return some_base(self.base)

    def open(self, directory: Path) -> LocalBackend:
        return open_backend(BackendSettings(state=self.state, directory=directory, root=self.state))

    def write(self, machine: Machine, path: str, text: str) -> None:
        sh(machine, f"printf %s {shlex.quote(text)} > {shlex.quote(path)}")

    def read(self, machine: Machine, path: str) -> str | None:
        done = sh(machine, f"cat {shlex.quote(path)}", check=False)
        return None if done.code else done.stdout

    def seal(self, machine: Machine) -> None:
        """What lets one log in is not on the disk."""

    def left(self) -> Sequence[str]:
        found = find_leftovers(str(self.state), own_loops())
        folders = (str(path) for path in (self.state / "local" / "work").glob("*"))
        # By what they are on: others on this computer may come and go.
        files = Path("/sys/block").glob("loop*/loop/backing_file")
        loops = (str(file) for file in files if str(self.state) in file.read_text())
        return [*folders, *found.processes, *found.mounts, *loops]


class TestLocal(BackendSuite):
    @pytest.fixture
    def subject(self, site: Site) -> LocalSubject:
        return LocalSubject(state=site.state, base=site.base)


class TestBooted(BackendSuite):
    every = 3

    @pytest.fixture
    def subject(self, site: Site) -> LocalSubject:
        return LocalSubject(state=site.state, base=site.base, kind="booted")
