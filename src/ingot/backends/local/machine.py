"""A chroot machine: a work folder with an overlay, mounted and running while it is attached.

Beside what every machine's work folder holds (`overlay`), its own has

    holder    process id and start time of the worker, while there is one
    ns/       the mount point, empty on this side
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ingot.backends.local import booted, container, login, network, scans
from ingot.backends.local.around import Surroundings
from ingot.backends.local.grow import clear_free, grow_file_system, grow_partition
from ingot.backends.local.holder import HeldDisk, hold
from ingot.backends.local.overlay import Overlay
from ingot.backends.local.progress import Watch
from ingot.backends.local.records import Record
from ingot.backends.local.store import NewLayer, Store
from ingot.backends.local.visitors import visitors
from ingot.errors import IngotError
from ingot.model.events import Emit
from ingot.model.forensics import Evidence
from ingot.model.units import Seconds
from ingot.ports import Cancel, Finding, MachineSpec, Needle, SshAccess
from ingot.system import files, ssh, sshd
from ingot.system.waits import Flag, poll


@dataclass(frozen=True, kw_only=True, slots=True)
class ChrootMachine:
    """Implements `ports.Machine`."""

    ref: str
    ssh: SshAccess
    kind: Literal["chroot", "booted"] = "chroot"
    console: Path | None = None
    """What a booted system said while it started."""


class Chroot:
    """One machine, from the making of its work folder to its end. For one thread at a time."""

    def __init__(self, folder: Path, spec: MachineSpec, *, store: Store, around: Surroundings) -> None:
        self._folder = folder
        self._spec = spec
        self._overlay = Overlay(folder, spec, store=store)
        self._around = around
        self._mine = ExitStack()  # the worker: until the machine ends
        self._session = ExitStack()  # what is there while it is attached
        self._held: HeldDisk | None = None
        self._access: SshAccess | None = None
        self._init = 0
        self._starting: tuple[SshAccess, Watch] | None = None  # of a booted system, whether or not it came up

    def create(self) -> None:
        """Makes the work folder; takes leases on the layers below. Raises NotFoundError where one is damaged."""
        self._overlay.create()

    def attach(self, *, emit: Emit, cancel: Cancel) -> ChrootMachine:
        """Mounts the disk and starts the machine, if that is not so already."""
        if not self._access:
            self._access = self._run(emit, cancel)
        if not self._boots:
            return ChrootMachine(ref=self._folder.name, ssh=self._access)
        return ChrootMachine(ref=self._folder.name, ssh=self._access, kind="booted", console=self._console)

    @property
    def _console(self) -> Path:
        return self._folder / booted.CONSOLE

    @property
    def _boots(self) -> bool:
        return self._spec.kind == "booted"

    def _run(self, emit: Emit, cancel: Cancel) -> SshAccess:
        held = self._open(cancel)
        with self._overlay.whole_or_lost():
            self._mount(held, cancel)
            shadow, daemon, *system = held.read("/etc/shadow", sshd.PROGRAM, *booted.SYSTEMS)
            login.refuse_without_sshd(daemon is not None)
            if self._boots:
                booted.refuse_without_system(any(system))
            access = self._start(held, pam=sshd.needs_pam(shadow or ""), cancel=cancel)
            if self._boots:
                watch = booted.watch_start(self._console, limit=self._spec.boot_limit)
                self._starting = access, watch
                begun = self._spec.user_data is not None
                booted.wait_until_up(access, self._init, watch=watch, begun=begun, emit=emit, cancel=cancel)
            return access

    def examine(self) -> Evidence | None:
        """What can be seen of a booted system; None for one that answers, and for what was never booted."""
        if not self._held or not self._starting:
            return None
        access, watch = self._starting
        return booted.look(self._held, access, self._init, watch=watch)

    def detach(self, *, trim: bool) -> None:
        """Ends what runs on the machine and unmounts; its file is complete then. Detached already is fine."""
        if not self._held or not self._held.exported:
            return
        with self._overlay.whole_or_lost():
            self._end_session()
            self._held.stop()
            self._held.unmount(trim=trim)
            self._held.unexport()

    def freeze(self, new: NewLayer, *, final: bool) -> Record:
        """Makes a layer of what was written and stands the machine, detached, on it, `final` or not."""
        self._overlay.refuse_keeping()
        self._overlay.files()
        self.detach(trim=True)
        return self._overlay.keep(new)

    def adopt(self) -> None:
        """Takes over a work folder that another process has put by."""
        self._overlay.adopt()

    def put_by(self) -> None:
        """Ends what runs on the machine and leaves its work folder for another process."""
        self._overlay.files()
        self.detach(trim=False)
        self._mine.close()
        files.remove(self._folder / "holder")
        files.remove(ssh.socket_folder(self._folder))
        self._overlay.put_by()

    @property
    def parent(self) -> Record | None:
        """The layer that the next one will stand on; None where that one will be flat."""
        return self._overlay.parent

    def scan(self, needles: Sequence[Needle], *, cancel: Cancel) -> tuple[Finding, ...]:
        """What the disk must not hold: in files and blocks that no earlier scan found clean. Nothing runs on it then.

        Read on the mount that the machine had, for the kernel knows much of the disk by now.
        """
        held = self._settle(cancel)
        paths = self._overlay.files()
        try:
            records = (*self._overlay.chain, None)
            parts = [
                scans.Part(file=path, record=record) for path, record in zip(paths, records, strict=True)
            ]
            notes = scans.Notes(self._folder.parent.parent / "scans", needles)
            raw = held.outside(held.raw)
            trees = {name: held.outside(held.root / name) for name in ("", *held.below)}
            return scans.scan(trees, raw, parts, needles, notes=notes, cancel=cancel)
        finally:
            held.unmount(trim=False)
            held.unexport()

    def _settle(self, cancel: Cancel) -> HeldDisk:
        """The disk, mounted, with nothing that writes to it."""
        held = self._open(cancel)
        with self._overlay.whole_or_lost():
            if not held.exported:
                self._mount(held, cancel)
            self._end_session()
            held.stop()
            held.settle()
        return held

    def close(self) -> None:
        """Ends the machine with all it holds, and removes its folder."""
        with contextlib.suppress(IngotError):
            self._end_session()
        self._held = self._access = None
        self._mine.close()
        self._overlay.close()
        remove_work(self._folder)

    def _open(self, cancel: Cancel) -> HeldDisk:
        cancel.check()
        self._overlay.refuse_lost()
        if not self._held:
            self._held = self._mine.enter_context(hold(self._folder / "ns"))
            _write_holder(self._folder / "holder", self._held.pid)
        return self._held

    def _mount(self, held: HeldDisk, cancel: Cancel) -> None:
        grows, cleared = self._overlay.grows, self._overlay.holds_freed
        paths = self._overlay.files()
        held.export(paths, writable=True, cancel=cancel)
        if grows:
            grow_partition(held, paths, cancel=cancel)
        if cleared:
            clear_free(held, cancel=cancel)
        devices = held.mount()
        files.write_atomically(self._folder / "loop", "".join(f"{_loop(device)}\n" for device in devices))
        if grows:
            grow_file_system(held)

    def _start(self, held: HeldDisk, *, pam: bool, cancel: Cancel) -> SshAccess:
        around = self._around
        proxies = network.proxy_environment(around.environment)
        own = login.BOOTED_ENVIRONMENT if self._boots else login.CHROOT_ENVIRONMENT
        environment = {**own, **proxies}
        apt = network.apt_conf(proxies, downloads=network.DOWNLOADS_URL if around.downloads else "")
        name = self._folder.name
        run_files = [
            *login.run_files(around.keys, name, environment, pam=pam),
            *network.certificate_files(around.environment),
            ("/run/ingot/apt.conf", apt, 0o644),
        ]
        placed = visitors(booted=self._boots)
        if self._boots:
            told = self._spec.user_data
            init = held.boot(
                visitors=placed,
                run_files=run_files,
                name=name,
                console=self._console,
                seed=booted.seed(told, instance=name) if told else None,
                cancel=cancel,
            )
        else:
            init = held.start(visitors=placed, run_files=run_files, sizes=_sizes(), cancel=cancel)
        self._init = init
        sockets = ssh.socket_folder(self._folder)
        ssh.clear_sockets(sockets)
        access = login.write_access(around.keys, name, init, sockets=sockets)
        if around.downloads:
            mirrors = network.mirrors_of(self._overlay.chain[-1].labels)
            self._session.enter_context(network.hand_in(around.downloads, init, instead=mirrors))
        return access

    def _end_session(self) -> None:
        if self._access:
            ssh.close(self._access)
            ssh.clear_sockets(ssh.socket_folder(self._folder))
        self._access = None
        self._session.close()


def _sizes() -> dict[str, int]:
    """The sizes of a machine's memory-backed folders: a quarter of the builder's memory for /tmp, 8 GiB at most."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"tmp": min(8 * 2**30, memory // 4), "run": min(256 * 2**20, memory // 16), "shm": memory // 16}


def remove_work(folder: Path) -> None:
    """Removes a work folder, whoever made it: its processes end first, then files go, then sockets.

    When this returns the loop device is gone too. One already gone is fine. DeadlineError where it stays in use.
    """
    _end_holder(folder / "holder")
    for device in _read(folder / "loop").splitlines():
        poll(
            lambda: None if _loop(device.split()[0]) == device else True,  # noqa: B023 - polled before the next
            what=f"the release of {device.split()[0]}",
            every=Seconds(0.02),
            deadline=Seconds(60.0),
            cancel=Flag(),
        )
    poll(
        lambda: container.remove_group(folder.name) or None,
        what=f"the end of all processes of {folder.name}",
        every=Seconds(0.02),
        deadline=Seconds(60.0),
        cancel=Flag(),
    )
    files.remove(ssh.socket_folder(folder))
    files.remove(folder)


def _loop(device: str) -> str:
    """A loop device in use, told from its later uses by the kernel's number for this one; "" if it is free."""
    state = Path("/sys/block") / Path(device).name
    return f"{device} {_read(state / 'diskseq')}" if (state / "loop").exists() else ""


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _write_holder(path: Path, pid: int) -> None:
    files.write_atomically(path, f"{pid} {_start_time(pid)}\n")


def _end_holder(path: Path) -> None:
    """Ends the worker that a dead process left, if it is still the process that the file tells of."""
    try:
        pid, started = _read(path).split()
    except ValueError:
        return
    if _start_time(int(pid)) == started:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def _start_time(pid: int) -> str:
    words = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return words[19] if words else ""
