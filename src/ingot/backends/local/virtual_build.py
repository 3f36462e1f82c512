"""A virtual machine that builds: QEMU on the overlay that becomes the next layer.

Between two layers that it makes it keeps running: what steps started is ended, its file systems are held still, and
QEMU goes on in a new overlay. Before another kind of machine goes on it is shut down in its own order.
(`docs/decisions/0011`.)
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from ingot.backends.local import (
    chain,
    network,
    rootless,
    scans,
    vm,
    vm_guest,
    vm_look,
    vm_qemu,
    vm_seed,
)
from ingot.backends.local.around import Surroundings
from ingot.backends.local.overlay import BY, Overlay
from ingot.backends.local.records import Record
from ingot.backends.local.store import NewLayer, Store
from ingot.errors import BackendError, IngotError
from ingot.model.events import Emit
from ingot.model.forensics import Evidence
from ingot.model.units import Seconds
from ingot.ports import Cancel, Finding, Machine, MachineSpec, Needle
from ingot.system import files, process, ssh
from ingot.system.waits import Flag, poll

_SHUTDOWN = Seconds(180.0)


class VirtualBuild:
    """One machine, from the making of its work folder to its end. For one thread at a time."""

    def __init__(
        self, folder: Path, spec: MachineSpec, *, store: Store, state: Path, around: Surroundings
    ) -> None:
        self._folder = folder
        self._spec = spec
        self._state = state
        self._around = around
        self._overlay = Overlay(folder, spec, store=store)
        self._qemu: subprocess.Popen[bytes] | None = None
        self._machine: vm.VmMachine | None = None
        self._prepared = False
        self._keys: vm_seed.Keys | None = None
        self._watch = vm.watch_boot(folder, spec)
        self._session = ExitStack()  # what is there while QEMU runs
        self._downloads = ""
        self._numbers = itertools.count(2)
        self._node = vm_qemu.DISK

    def create(self) -> None:
        """Makes the work folder; takes leases on the layers below. Raises NotFoundError where one is damaged."""
        self._overlay.create()
        (self._folder / "console").touch()  # by this whoever finds the folder alone knows what it is of

    def attach(self, *, emit: Emit, cancel: Cancel) -> Machine:
        """The machine, once it answers over SSH and knows what it must of the builder."""
        self._overlay.refuse_lost()
        if not self._machine:
            with self._overlay.whole_or_lost():
                self._machine = self._boot(emit, cancel)
        if not self._prepared:
            vm_guest.prepare(
                self._machine.ssh, self._around.environment, downloads=self._downloads, cancel=cancel
            )
            self._prepared = True
        return self._machine

    def examine(self) -> Evidence | None:
        """What can be seen of it, which ends it; None for one that answers, and for one that was never booted."""
        if not self._qemu or not self._keys:
            return None
        sockets = ssh.socket_folder(self._folder)
        access = self._machine.ssh if self._machine else vm.try_access(self._folder, self._keys, sockets)
        return vm_look.look(
            vm_look.Seen(
                home=self._folder,
                files=self._overlay.files(),
                access=access,
                exit_code=self._qemu.poll(),
                watch=self._watch,
            )
        )

    def adopt(self) -> None:
        """Takes over a work folder that another process has put by."""
        self._overlay.adopt()

    def put_by(self) -> None:
        """Ends the machine with its disk as it is, whole, and leaves its work folder for another process."""
        self._overlay.files()
        if self._qemu and self._qemu.poll() is not None:
            self._qemu = None
            self._end_session()
        if self._machine and self._qemu:
            with contextlib.ExitStack() as stack:
                with contextlib.suppress(IngotError):  # one that does not answer has its journal
                    stack.enter_context(vm_guest.held_still(self._machine.ssh))
                self._quit()
        self._overlay.put_by()
        files.remove(ssh.socket_folder(self._folder))

    @property
    def parent(self) -> Record | None:
        """The layer that the next one will stand on; None where that one will be flat."""
        return self._overlay.parent

    def freeze(self, new: NewLayer, *, final: bool) -> Record:
        """Makes a layer of what was written and stands the machine on it, running unless `final`."""
        self._overlay.refuse_keeping()
        with self._overlay.whole_or_lost():
            written = None
            if self._machine:
                self._tidy()
                if final or self._overlay.too_long:
                    self._shut_down()
                else:
                    written = self._switch()
        made_by = {**new.labels, BY: "vm"}
        return self._overlay.keep(replace(new, labels=made_by), written=written)

    def scan(self, needles: Sequence[Needle], *, cancel: Cancel) -> tuple[Finding, ...]:
        """What the disk must not hold. The machine is ended for it at once: shutting down would write to a sealed disk."""
        with self._overlay.whole_or_lost():
            if self._machine:
                self._tidy()
                with vm_guest.held_still(self._machine.ssh):
                    self._quit()
        paths = self._overlay.files()
        rootless.clear_free(paths, self._folder / "cleared", cancel=cancel)
        records = (*self._overlay.chain, None)
        parts = [scans.Part(file=path, record=record) for path, record in zip(paths, records, strict=True)]
        notes = scans.Notes(self._state / "scans", needles)
        with rootless.shown(paths, self._folder / "shown", cancel=cancel) as (raw, tree):
            return scans.scan({"": tree}, raw, parts, needles, notes=notes, cancel=cancel)

    def close(self) -> None:
        """Ends the machine at once and removes its folder."""
        with contextlib.suppress(IngotError):
            self._end_session()
        if self._qemu:
            process.end(self._qemu, grace=Seconds(0.0))
        self._overlay.close()
        files.remove(ssh.socket_folder(self._folder))
        files.remove(self._folder)

    def _boot(self, emit: Emit, cancel: Cancel) -> vm.VmMachine:
        paths = self._overlay.files()
        self._keys = keys = vm_seed.make_keys(self._around.keys, host=f"{self._folder.name}-host")
        # Growing is a layer of its own, which with root is made without booting.
        vm_seed.write_seed(
            self._folder, keys, instance=self._folder.name, hostname="localhost", grows=os.geteuid() != 0
        )
        vm.tell_disk(self._folder, paths, keys)
        self._serve_downloads()
        self._node = vm_qemu.DISK
        self._qemu = vm.launch(self._folder, paths, state=self._state, spec=self._spec)
        sockets = ssh.socket_folder(self._folder)
        ssh.make_socket_folder(sockets)
        ssh.clear_sockets(sockets)
        self._watch = vm.watch_boot(self._folder, self._spec)
        return vm.attach_vm(
            self._folder.parent,
            self._folder.name,
            sockets=sockets,
            emit=emit,
            cancel=cancel,
            watch=self._watch,
            keys=keys,
        )

    def _serve_downloads(self) -> None:
        service = self._around.downloads
        if not service:
            return
        listener = self._session.enter_context(socket.create_server(("127.0.0.1", 0)))
        instead = network.mirrors_of(self._overlay.chain[-1].labels)
        self._session.enter_context(service.serve(listener, instead=instead))
        self._downloads = f"http://{vm_guest.BUILDER}:{listener.getsockname()[1]}"

    def _tidy(self) -> None:
        assert self._machine
        vm_guest.tidy(self._machine.ssh)
        self._prepared = False

    def _switch(self) -> Path:
        """Has QEMU go on in a new overlay; returns the file that holds all that was written before."""
        assert self._machine
        before = self._overlay.file
        number = next(self._numbers)
        after, node = before.with_name(f"disk-{number}.qcow2"), f"{vm_qemu.DISK}{number}"
        chain.create(after, self._overlay.size)
        with vm_guest.held_still(self._machine.ssh):
            vm_qemu.go_on_in(self._folder, after, node=node, instead_of=self._node)
        self._overlay.file, self._node = after, node
        return before

    def _shut_down(self) -> None:
        """Lets the system end in its own order; QEMU has closed the overlay then."""
        assert self._machine and self._qemu
        vm_guest.power_off(self._machine.ssh)
        self._await_end("the virtual machine's shutdown")

    def _quit(self) -> None:
        """Ends QEMU at once, with its files closed in order."""
        vm_qemu.control(self._folder, "quit")
        self._await_end("QEMU's end")

    def _await_end(self, what: str) -> None:
        assert self._qemu
        qemu = self._qemu
        poll(
            lambda: True if qemu.poll() is not None else None,
            what=what,
            every=Seconds(0.05),
            deadline=_SHUTDOWN,
            cancel=Flag(),
        )
        self._qemu = None
        self._end_session()
        if qemu.returncode:
            raise BackendError(
                f"QEMU ended with {qemu.returncode}",
                hint=f"what it said is in {self._folder / 'qemu.log'}",
            )

    def _end_session(self) -> None:
        if self._machine:
            ssh.close(self._machine.ssh)
            ssh.clear_sockets(ssh.socket_folder(self._folder))
        self._machine, self._prepared = None, False
        self._session.close()
