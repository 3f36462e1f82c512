"""Virtual machines: a disk of the store booted in QEMU, on a throw-away overlay, for checks and for a look.

Everything of a machine is in one folder named by its token: overlay, keys, seed, console, QEMU's control socket.
QEMU runs in that folder and dies with the thread that started it, so a SIGKILL of Ingot leaves the folder alone,
which `VmResource.delete` removes. No root is needed, but for an image without cloud-init.

How a backend serves machines of kind `vm` with it:

    resource = VmResource(folder=work, state=state, files=store.files(layer), spec=spec)   # for `hosts.machine`
    machine = attach_vm(work, ref, sockets=sockets, emit=emit, cancel=cancel)              # for `hosts.attach`
    VmResource(folder=work, state=state)                                                   # for `resource("local.vm")`
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ingot.backends.local import chain, holder, progress, vm_qemu, vm_seed
from ingot.backends.local.progress import Watch
from ingot.errors import BackendError, DeadlineError, TransientError
from ingot.forensics import console as consoles
from ingot.model.events import Emit, Warned
from ingot.model.units import Bytes, Seconds
from ingot.ports import Cancel, MachineSpec, SshAccess, Token
from ingot.system import files as system_files
from ingot.system import process, ssh
from ingot.system.waits import Flag, poll

KIND = "local.vm"
_SHUTDOWN_DEADLINE = Seconds(90.0)
_LOGIN_TIMEOUT = Seconds(30.0)
BOOT_TIMEOUT = Seconds(600.0)
"""Debian comes up in software emulation in half a minute; a busy builder took ten times that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VmMachine:
    """A virtual machine that answers. `about` is what it runs on: `qemu tcg` or `qemu kvm`."""

    ref: str
    ssh: SshAccess
    console: Path
    about: str
    kind: Literal["chroot", "booted", "vm", "instance"] = "vm"


class VmResource:
    """Virtual machines as a resource: `create` starts one on an overlay over `files` (base first)."""

    kind = KIND

    def __init__(
        self,
        *,
        folder: Path,
        state: Path,
        files: Sequence[Path] = (),
        spec: MachineSpec | None = None,
        firmware: vm_qemu.Firmware = "bios",
        hostname: str = "localhost",
    ) -> None:
        self._folder, self._state = folder, state
        self._files, self._spec = tuple(files), spec
        self._firmware: vm_qemu.Firmware = firmware
        self._hostname = hostname
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def create(self, token: Token) -> str:
        """Starts the machine; it is not up yet. Raises BackendError where QEMU does not start."""
        spec = self._spec
        assert spec and self._files, "a machine is made of a layer"
        _refuse_foreign_architecture(spec.arch)
        self._state.mkdir(parents=True, exist_ok=True)
        home = self._folder / token
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Whoever finds the folder alone tells by this that it is a virtual machine's.
        (home / "console").touch()
        overlay = home / "disk.qcow2"
        below = chain.read_header(self._files[-1]).size
        chain.create(overlay, Bytes(max(below, spec.disk or 0)))
        keys = vm_seed.make_keys(home)
        files = [*self._files, overlay]
        vm_seed.write_seed(home, keys, instance=token, hostname=self._hostname)
        tell_disk(home, files, keys)
        self._processes[token] = launch(home, files, state=self._state, spec=spec, firmware=self._firmware)
        return str(token)

    def exit_code(self, ref: str) -> int | None:
        """How the machine's QEMU ended; None while it runs, and where another process started it."""
        started = self._processes.get(ref)
        return started.poll() if started else None

    def find(self, token: Token) -> str | None:
        return str(token) if (self._folder / token).exists() else None

    def delete(self, ref: str) -> None:
        """Ends the machine at once and removes all that was its own."""
        home = self._folder / ref
        started = self._processes.pop(ref, None)
        if started:
            process.end(started, grace=Seconds(5.0))
        elif home.exists():
            end_left_over(home, ref)
        system_files.remove(home)


def tell_disk(home: Path, files: Sequence[Path], keys: vm_seed.Keys) -> None:
    """Writes the keys into the disk (base first, its overlay last) where cloud-init would not; that takes root."""
    if os.geteuid() != 0:
        return
    with holder.hold(home / "held") as held:
        held.export(files, writable=True)
        held.mount()
        root = held.outside(held.root)
        if not vm_seed.has_cloud_init(root):
            vm_seed.write_into(root, keys)
        held.unmount(trim=False)
        held.unexport()


def launch(
    home: Path,
    files: Sequence[Path],
    *,
    state: Path,
    spec: MachineSpec,
    firmware: vm_qemu.Firmware = "bios",
) -> subprocess.Popen[bytes]:
    """QEMU in the machine's folder, which is named by its token; what the machine writes goes to the last file."""
    accelerator = vm_qemu.choose_accelerator(state)
    if firmware == "uefi":
        vm_qemu.copy_uefi_variables(home)
    words = vm_qemu.machine_argv(
        [path.resolve() for path in files],
        accelerator=accelerator,
        firmware=firmware,
        memory=spec.memory,
        cpus=spec.cpus,
        token=home.name,
    )
    with (home / "qemu.log").open("wb") as log:
        started = process.spawn(words, cwd=home, stdout=log, stderr=log)
    about = {"pid": started.pid, "accelerator": accelerator}
    system_files.write_atomically(home / "machine.json", json.dumps(about))
    return started


def attach_vm(
    folder: Path,
    ref: str,
    *,
    sockets: Path,
    emit: Emit,
    cancel: Cancel,
    subject: str = "",
    timeout: Seconds = BOOT_TIMEOUT,
    watch: Watch | None = None,
    keys: vm_seed.Keys | None = None,
) -> VmMachine:
    """The machine `ref` of `folder`, once a command runs on it over SSH. `sockets`: a folder with a short path.

    `keys` are those in its own folder unless given; how it is reached is written beside its host key.

    Raises BackendError as soon as it is known that it will not come up, DeadlineError when `timeout` ran out and its
    console has nothing new to say; both say what the console tells, and name it in `console`. `watch` has limits of
    its own.
    """
    home = folder / ref
    console = home / "console"
    facts = json.loads((home / "machine.json").read_text())
    access: list[SshAccess] = []
    watch = watch or Watch(console, timeout=timeout)
    again = _Again(home, watch, emit=emit, subject=subject)

    def probe() -> SshAccess | None:
        _raise_if_lost(home, facts["pid"])
        watch.look()
        watch.has_read(vm_qemu.bytes_read(home))
        again.if_stood_still()
        if not access:
            access.append(access_to(home, keys or vm_seed.make_keys(home), sockets))
        return access[0] if _answers(access[0], home, watch, cancel) else None

    try:
        reached = poll(
            probe,
            what="an answer of the virtual machine over SSH",
            every=Seconds(0.3),
            deadline=watch.limit,
            cancel=cancel,
            emit=emit,
            subject=subject,
        )
    except DeadlineError as error:
        raise _unanswered(home) from error
    return VmMachine(ref=ref, ssh=reached, console=console, about=f"qemu {facts['accelerator']}")


class _Again:
    """Starts a machine once more whose emulated clock stands still: that is the emulator's fault, not the image's."""

    def __init__(self, home: Path, watch: Watch, *, emit: Emit, subject: str) -> None:
        self._home, self._watch, self._emit, self._subject = home, watch, emit, subject
        self._done = False

    def if_stood_still(self) -> None:
        """Looks at the console; resets the machine at most once."""
        if self._done or not consoles.stood_still(self._watch.read()):
            return
        vm_qemu.control(self._home, "system_reset")  # a TransientError where QEMU does not listen yet
        self._done = True
        self._watch.moved()
        message = "the virtual machine's emulated clock stood still; it was started again"
        hint = "that happens on busy computers; with KVM it does not"
        self._emit(Warned(subject=self._subject, message=message, hint=hint))


def _unanswered(home: Path) -> DeadlineError:
    said = _console(home)
    reason = consoles.diagnose(said) or f"the last line of its console is {consoles.last_line(said)!r}"
    return DeadlineError(
        f"the virtual machine did not answer over SSH in time: {reason}",
        hint=f"all that it said is in {home / 'console'}; an image without cloud-init needs root to be booted",
        console=str(home / "console"),
    )


def power_down(folder: Path, ref: str, *, cancel: Cancel, timeout: Seconds = _SHUTDOWN_DEADLINE) -> None:
    """Asks the machine to shut down, as its power button would, and waits until it is off."""
    home = folder / ref
    pid = json.loads((home / "machine.json").read_text())["pid"]
    vm_qemu.control(home, "system_powerdown")
    poll(
        lambda: None if _runs(pid, ref) else True,
        what="the virtual machine's shutdown",
        every=Seconds(0.2),
        deadline=timeout,
        cancel=cancel,
    )


def is_running(home: Path) -> bool:
    """Whether the QEMU of the machine in this folder is there."""
    try:
        return _runs(json.loads((home / "machine.json").read_text())["pid"], home.name)
    except (OSError, ValueError):
        return False


def access_to(home: Path, keys: vm_seed.Keys, sockets: Path) -> SshAccess:
    """How the machine is reached. Raises TransientError where its QEMU does not answer."""
    entry = ssh.HostEntry(
        alias=home.name,
        host_key=keys.host_public,
        identity=keys.identity,
        port=vm_qemu.forwarded_port(home),
    )
    return ssh.write_entry(keys.host.parent, entry, sockets=sockets)


def try_access(home: Path, keys: vm_seed.Keys, sockets: Path) -> SshAccess | None:
    """The same; None where its QEMU does not answer."""
    try:
        return access_to(home, keys, sockets)
    except TransientError:
        return None


def watch_boot(home: Path, spec: MachineSpec) -> Watch:
    """Follows the boot of the machine in this folder from now on."""
    timeout = Seconds(min(BOOT_TIMEOUT, spec.boot_limit))
    return Watch(home / "console", timeout=timeout, limit=spec.boot_limit, patience=progress.PATIENCE)


def _answers(access: SshAccess, home: Path, watch: Watch, cancel: Cancel) -> bool:
    """Whether a command runs on the machine. QEMU accepts connections for it from the start: a greeting comes first."""
    port = vm_qemu.forwarded_port(home)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as link:
            if not link.recv(16).startswith(b"SSH-"):
                watch.moved("the port is closed")
                return False
    except OSError:
        return False
    watch.moved("the port greets")
    try:
        done = ssh.run(access, ["true"], timeout=_LOGIN_TIMEOUT, cancel=cancel, check=False)
    except DeadlineError as error:
        watch.moved()  # a guest that is slow, not one that does nothing
        raise TransientError(error.message) from error
    if done.code:
        raise TransientError(done.tail[-1] if done.tail else f"ssh exited with {done.code}")
    return True


def _raise_if_lost(home: Path, pid: int) -> None:
    """Raises BackendError for a machine that will never answer."""
    if not _runs(pid, home.name):
        said = (home / "qemu.log").read_text(errors="replace").strip().splitlines()
        raise BackendError(
            f"the virtual machine ended before it answered: {said[-1] if said else 'it powered itself off'}",
            hint=f"all that its console said is in {home / 'console'}",
            console=str(home / "console"),
        )
    reason = consoles.diagnose(_console(home), fatal_only=True)
    if reason:
        raise BackendError(
            f"the virtual machine did not come up: {reason}",
            hint=f"all that its console said is in {home / 'console'}",
            console=str(home / "console"),
        )


def _console(home: Path) -> bytes:
    console = home / "console"
    return console.read_bytes() if console.exists() else b""


def _runs(pid: int, ref: str) -> bool:
    """Whether the process is still that machine's QEMU: a number alone may have come to mean another process."""
    try:
        words = poll(
            lambda: _words(pid),
            what=f"the command line of process {pid}",
            every=Seconds(0.01),
            deadline=Seconds(10.0),
            cancel=Flag(),
        )
    except DeadlineError:
        return False
    return ref.encode() in words


def _words(pid: int) -> list[bytes] | None:
    """A process's command line, empty for one that has ended; None for one just becoming another program."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[:2]
    except OSError:
        return []
    # One on its way from `setpriv` to QEMU, which has to be read from the disk first, has none for a moment; one that
    # has ended, and one of the kernel, has none for good.
    return line.split(b"\0") if line or state in "ZX" or parent in "02" else None


def end_left_over(home: Path, ref: str) -> None:
    """Ends a machine that another process, or an earlier resource of this one, started."""
    try:
        facts: dict[str, Any] = json.loads((home / "machine.json").read_text())
    except (OSError, ValueError):
        return
    if _runs(facts["pid"], ref):
        with contextlib.suppress(ProcessLookupError):
            os.kill(facts["pid"], signal.SIGKILL)
        poll(
            lambda: None if _runs(facts["pid"], ref) else True,
            what=f"the end of QEMU's process {facts['pid']}",
            every=Seconds(0.05),
            deadline=Seconds(30.0),
            cancel=Flag(),
        )


def _refuse_foreign_architecture(arch: str) -> None:
    here = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    if arch != here or arch != "x86_64":
        raise BackendError(
            f"a machine of architecture {arch} cannot be started on this {here} computer",
            hint="build and check it on a computer of its own architecture (virtual machines here are x86_64)",
        )
