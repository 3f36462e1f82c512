"""A virtual machine of the local backend: QEMU on a throw-away overlay, with leases on the layers below."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from ingot.backends.local import vm, vm_look, vm_seed
from ingot.backends.local.records import Record
from ingot.backends.local.store import NewLayer, Store
from ingot.errors import NotFoundError, RefusedError
from ingot.model.events import Emit
from ingot.model.forensics import Evidence
from ingot.ports import Cancel, Finding, Machine, MachineSpec, Needle, SshAccess, Token
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
        self._watch = vm.watch_boot(folder, spec)

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
            sockets = ssh.socket_folder(self._folder)
            ssh.make_socket_folder(sockets)
            self._watch = vm.watch_boot(self._folder, self._spec)
            self._machine = vm.attach_vm(
                self._folder.parent,
                self._folder.name,
                sockets=sockets,
                emit=emit,
                cancel=cancel,
                watch=self._watch,
            )
        return self._machine

    def examine(self) -> Evidence | None:
        """What can be seen of it, which ends it; None for one that answers."""
        records = self._store.chain(self._spec.parent.content) or ()
        return vm_look.look(
            vm_look.Seen(
                home=self._folder,
                files=[*self._store.files(records), self._folder / "disk.qcow2"],
                access=self._access(),
                exit_code=self._resource.exit_code(self._folder.name),
                watch=self._watch,
            )
        )

    def _access(self) -> SshAccess | None:
        if self._machine:
            return self._machine.ssh
        return vm.try_access(self._folder, vm_seed.make_keys(self._folder), ssh.socket_folder(self._folder))

    def freeze(self, new: NewLayer, *, final: bool) -> Record:
        raise RefusedError("a throw-away machine is never frozen", hint="open one for building")

    def scan(self, needles: Sequence[Needle], *, cancel: Cancel) -> tuple[Finding, ...]:
        raise RefusedError("a virtual machine's disk is not scanned", hint="scan before the disk is booted")

    def close(self) -> None:
        """Ends it at once and removes all that was its own."""
        if self._machine:
            ssh.close(self._machine.ssh)
        self._resource.delete(self._folder.name)
        files.remove(ssh.socket_folder(self._folder))
        self._mine.close()


def remove_virtual(folder: Path, *, state: Path) -> None:
    """Removes the virtual machine that a dead process left."""
    vm.VmResource(folder=folder.parent, state=state).delete(folder.name)
    files.remove(ssh.socket_folder(folder))
