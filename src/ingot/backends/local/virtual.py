"""A virtual machine of the local backend: QEMU on a throw-away overlay, with leases on the layers below."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from ingot.backends.local import login, vm
from ingot.backends.local.records import Record
from ingot.backends.local.store import NewLayer, Store
from ingot.errors import NotFoundError, RefusedError
from ingot.model.events import Emit
from ingot.ports import Cancel, Finding, Machine, MachineSpec, Needle, Token
from ingot.system import files, locks, ssh


class Virtual:
    """One virtual machine, from its start to its end. What it writes is never kept."""

    parent: Record | None = None

    def __init__(self, folder: Path, spec: MachineSpec, *, store: Store, state: Path) -> None:
        self._folder = folder
        self._spec = spec
        self._store = store
        self._state = state
        self._mine = ExitStack()
        self._resource = vm.VmResource(folder=folder.parent, state=state)
        self._machine: vm.VmMachine | None = None

    def create(self) -> None:
        """Starts it; it is not up yet."""
        content = self._spec.parent.content
        records = self._store.chain(content) or self._store.verify(content)
        self._folder.mkdir(parents=True, mode=0o700)
        self._mine.enter_context(locks.lock(self._folder / "lock"))
        self._mine.enter_context(self._store.lease(records))
        self._resource = vm.VmResource(
            folder=self._folder.parent, state=self._state, files=self._store.files(records), spec=self._spec
        )
        self._resource.create(Token(self._folder.name))

    def adopt(self) -> None:
        raise NotFoundError("a throw-away machine ends with its process", hint="start another one")

    def put_by(self) -> None:
        raise RefusedError(
            "a throw-away machine is not kept", hint="it shows nothing that its image does not"
        )

    def attach(self, *, emit: Emit, cancel: Cancel) -> Machine:
        """Waits until it answers over SSH."""
        if not self._machine:
            sockets = login.socket_folder(self._folder)
            login.make_socket_folder(sockets)
            self._machine = vm.attach_vm(
                self._folder.parent, self._folder.name, sockets=sockets, emit=emit, cancel=cancel
            )
        return self._machine

    def freeze(self, new: NewLayer, *, final: bool) -> Record:
        raise RefusedError("a throw-away machine is never frozen", hint="open one for building")

    def scan(self, needles: Sequence[Needle], *, cancel: Cancel) -> tuple[Finding, ...]:
        raise RefusedError("a virtual machine's disk is not scanned", hint="scan before the disk is booted")

    def close(self) -> None:
        """Ends it at once and removes all that was its own."""
        if self._machine:
            ssh.close(self._machine.ssh)
        self._resource.delete(self._folder.name)
        files.remove(login.socket_folder(self._folder))
        self._mine.close()


def remove_virtual(folder: Path, *, state: Path) -> None:
    """Removes the virtual machine that a dead process left."""
    vm.VmResource(folder=folder.parent, state=state).delete(folder.name)
    files.remove(login.socket_folder(folder))
