"""What applies steps to machines, and what reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ingot.model.events import Emit
from ingot.model.image import Package
from ingot.model.secret import Secret
from ingot.model.step import Step
from ingot.ports.basics import Cancel
from ingot.ports.machines import Machine


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
