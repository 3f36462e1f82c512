"""The whole program over the backend in memory: real definitions, plans, engine, catalog and screens; no disks.

Run as a program (`python -m tests.cli.world build …`), it is `ingot` in a process of its own. What a step is called
decides how it goes: see `Steps`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ingot import backends
from ingot.api import adapters
from ingot.api.workspace import Workspace
from ingot.backends.memory.backend import MemoryBackend
from ingot.backends.memory.steps import MemoryInventory, MemoryProvisioner
from ingot.engine.run import Run
from ingot.errors import ProvisionError
from ingot.model.events import Emit, Output, TaskFinished
from ingot.model.secret import Secret
from ingot.model.step import Step, describe
from ingot.model.units import Seconds
from ingot.ports import BackendSettings, Cancel, Machine

DEFINITION = """\
name: acme
variables:
  greeting: {type: string, default: hello}
targets:
  local: {backend: local, disk: 1 GiB}
bases:
  tiny:
    local: {image: base.img}
images:
  node:
    base: tiny
    targets: [local]
    steps:
      - packages: [htop, tmux]
      - files: {text: "${greeting}", dest: /etc/motd}
  big-node:
    from: node
    steps:
      - packages: [hwloc]
"""


def memory(state: Path) -> MemoryBackend:
    """The backend of a state folder."""
    return MemoryBackend(root=state / "memory")


def open_memory(settings: BackendSettings) -> MemoryBackend:
    """`ports.OpenBackend`."""
    return memory(settings.state)


@dataclass(frozen=True, kw_only=True, slots=True)
class Steps:
    """A provisioner: packages named `broken` fail as Ansible's tasks do, `endless` waits until it is stopped."""

    inner: MemoryProvisioner
    directory: Path

    def expect(self, step: Step) -> None:
        self.inner.expect(step)

    def user_data(self, step: Step) -> Secret | None:
        return self.inner.user_data(step)

    def close(self) -> None:
        self.inner.close()

    def apply(self, step: Step, machine: Machine, *, subject: str, emit: Emit, cancel: Cancel) -> None:
        name = describe(step)
        emit(Output(subject=subject, text=f"doing {name}"))
        if "broken" in name:
            task = TaskFinished(
                subject=subject,
                task="Install broken",
                outcome="failed",
                seconds=0.5,
                message="no such package",
            )
            emit(task)
            log = self.directory / "step.log"
            log.write_text("Reading package lists...\nE: Unable to locate package broken\n")
            raise ProvisionError(
                'task "Install broken" failed: no such package',
                hint="look for its name on the mirror",
                task="Install broken",
                file="roles/broken/tasks/main.yml",
                line=3,
                log=str(log),
                tail=("Reading package lists...", "E: Unable to locate package broken"),
            )
        while "endless" in name:
            cancel.check()
            cancel.wait(Seconds(0.05))
        self.inner.apply(step, machine, subject=subject, emit=emit, cancel=cancel)


def provisioner(workspace: Workspace, run: Run) -> Steps:
    store = memory(workspace.state.root)
    inner = MemoryProvisioner(cloud=store, secrets=workspace.loaded.secrets)
    return Steps(inner=inner, directory=run.directory)


@contextmanager
def world(state: Path) -> Iterator[None]:
    """Puts the memory backend where the local one is."""
    with pytest.MonkeyPatch.context() as patch:
        here = f"{open_memory.__module__}:open_memory"
        patch.setattr(backends, "KNOWN", dict.fromkeys(("local", "memory"), here))
        patch.setattr(adapters, "provisioner", provisioner)
        patch.setattr(adapters, "inventory", lambda workspace: MemoryInventory(cloud=memory(state)))
        patch.setenv("INGOT_STATE", str(state))
        yield


def write_project(folder: Path, definition: str = DEFINITION) -> Path:
    """A project on a base that is a file, so that nothing is looked up outside."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ingot.yaml").write_text(definition)
    (folder / "base.img").write_bytes(b"a disk")
    return folder


if __name__ == "__main__":
    import os

    from ingot.cli.main import run

    with world(Path(os.environ["INGOT_STATE"])):
        code = run(sys.argv[1:])
    sys.exit(code)
