"""What applies steps to a machine of the pretend cloud, and what reads it: both only write and read its small disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ingot.backends.memory.backend import Hook, MemoryBackend, no_hook
from ingot.model.events import Emit
from ingot.model.image import Package
from ingot.model.secret import Secret, reveal
from ingot.model.step import FilesStep, PackagesStep, SealStep, Step, describe
from ingot.ports import Cancel, Machine


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryProvisioner:
    """Implements `ports.Provisioner`: writes down what it was asked to do.

    `hook` is called with the step's description first, and may raise.
    """

    cloud: MemoryBackend
    hook: Hook = no_hook
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    applied: list[str] = field(default_factory=list)

    def expect(self, step: Step) -> None:
        """Nothing takes long to start."""

    def user_data(self, step: Step) -> Secret | None:
        """No machine here reads any."""
        return None

    def close(self) -> None:
        """Nothing was started."""

    def apply(self, step: Step, machine: Machine, *, subject: str, emit: Emit, cancel: Cancel) -> None:
        """Writes the step on the machine's disk."""
        name = describe(step)
        self.hook(name)
        cancel.check()
        self.applied.append(name)
        cancel.wait(self.cloud.habits.step)
        cancel.check()
        self.cloud.ask("step", lambda: self._write(step, name, machine), cancel=cancel)

    def _write(self, step: Step, name: str, machine: Machine) -> None:
        disk = self.cloud.disk_of(machine.ref)
        match step:
            case PackagesStep():
                disk["packages"] = sorted({*disk["packages"], *step.install} - {*step.remove})
            case FilesStep():
                disk["files"][step.dest] = reveal(step.text or "", self.secrets)
            case SealStep():
                disk["files"].pop("/etc/machine-id", None)
        disk["done"].append(name)
        self.cloud.write_disk(machine.ref, disk)


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryInventory:
    """Implements `ports.Inventory`."""

    cloud: MemoryBackend
    looked: list[str] = field(default_factory=list)

    def packages(self, machine: Machine) -> tuple[Package, ...]:
        """What package steps installed."""
        self.looked.append(machine.ref)
        return tuple(Package(name=name, version="1") for name in self.cloud.disk_of(machine.ref)["packages"])

    def os_release(self, machine: Machine) -> Mapping[str, str]:
        return {"ID": "memory"}

    def kernel(self, machine: Machine) -> str:
        return "6.1.0"
