"""Looking at a virtual machine that does not answer, or no longer does: from outside, and then at its disk.

The machine is ended on the way, for its disk can be read only then.
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ingot.backends.local import disk_look, vm, vm_qemu
from ingot.backends.local.progress import Watch
from ingot.errors import BackendError, DeadlineError, IngotError, TransientError
from ingot.forensics import console
from ingot.model.forensics import Evidence, Login, Port
from ingot.model.units import Seconds
from ingot.ports import SshAccess
from ingot.system import process
from ingot.system.waits import Flag, poll

_GREETING = 15.0
_LOGIN = Seconds(60.0)
_LINES = 15
_SYNC = ("alt", "sysrq", "s")
_SYNCED = "Emergency Sync complete"
_SAID: tuple[tuple[Login, str], ...] = (
    ("other host key", r"HOST IDENTIFICATION HAS CHANGED|Host key verification failed"),
    ("other user", r"Please login as the user"),
    ("refused", r"Permission denied|Too many authentication failures"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """A machine as it is looked at: its folder, the files of its disk, how it is reached, how its QEMU ended."""

    home: Path
    files: Sequence[Path]
    """The chain, the machine's own overlay last."""
    access: SshAccess | None
    exit_code: int | None
    watch: Watch


def look(seen: Seen) -> Evidence | None:
    """All that can be known; None for a machine that runs and lets us in. Takes up to three minutes."""
    state, status = _state(seen)
    port = probe(seen.home, seen.access) if state == "running" else Port()
    if state == "running" and port.login == "accepted" and not _fatal(seen):
        return None
    evidence = Evidence(
        kind="vm",
        console=console.plain(seen.watch.read()),
        state=state,
        status=status,
        exit_code=seen.exit_code,
        seconds=seen.watch.seconds,
        idle=seen.watch.idle,
        patience=seen.watch.patience,
        port=port,
    )
    if console.stage_of(evidence.console) in ("nothing", "firmware", "boot loader", "kernel", "initramfs"):
        return replace(evidence, unread="its system had not started")
    if state != "ended":
        with contextlib.suppress(IngotError):
            _end(seen)
    read = disk_look.read_ended(seen.files, seen.home / "look")
    return replace(evidence, disk=read.disk, journal=read.journal, logs=read.logs, unread=read.unread)


def probe(home: Path, access: SshAccess | None) -> Port:
    """What the forwarded port does with a caller, and what becomes of a login.

    QEMU takes every call for the guest. It hangs up at once where the guest's kernel refuses, and says nothing
    where nobody answers in the guest's network.
    """
    try:
        with socket.create_connection(("127.0.0.1", vm_qemu.forwarded_port(home)), timeout=_GREETING) as link:
            heard = link.recv(255)
    except TimeoutError:
        return Port(state="silent")
    except OSError:
        return Port(state="closed")
    except (TransientError, BackendError):
        return Port()
    if not heard.startswith(b"SSH-"):
        return Port(state="closed")
    greeting = heard.split(b"\r\n")[0].decode(errors="replace").strip()
    greeted = Port(state="greeted", greeting=greeting)
    return _logged_in(greeted, access) if access else greeted


def _logged_in(port: Port, access: SshAccess) -> Port:
    options = ["-o", "LogLevel=DEBUG1", "-o", "ControlMaster=no", "-o", "ControlPath=none"]
    words = ["ssh", "-F", str(access.config), *options, "-T", access.host, "true"]
    try:
        done = process.run(words, timeout=_LOGIN, check=False)
    except DeadlineError:
        return replace(port, login="failed", said=(f"ssh did not end within {_LOGIN:.0f} s",))
    said = tuple(line.strip() for line in done.tail if line.strip())[-_LINES:]
    if done.code == 0:
        return replace(port, login="accepted")
    whole = "\n".join(done.tail)
    login = next((name for name, pattern in _SAID if re.search(pattern, whole)), "failed")
    return replace(port, login=login, said=said)  # type: ignore[arg-type]


def _fatal(seen: Seen) -> bool:
    return console.diagnose(seen.watch.read(), fatal_only=True) != ""


def _state(seen: Seen) -> tuple[Literal["running", "paused", "ended"], str]:
    if not vm.is_running(seen.home):
        log = seen.home / "qemu.log"
        lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
        # That it got a signal says the exit code too.
        return "ended", "" if not lines or "terminating on signal" in lines[-1] else lines[-1]
    try:
        status = str(vm_qemu.control(seen.home, "query-status")["status"])
    except (TransientError, BackendError):
        return "running", ""
    # A panicked or suspended guest runs as far as QEMU goes; the console tells.
    return ("paused" if status in ("io-error", "internal-error", "paused") else "running"), status


def _end(seen: Seen) -> None:
    """Ends QEMU, after the guest's kernel has written to its disk what it had in memory, if it still can."""
    keys = [{"type": "qcode", "data": key} for key in _SYNC]
    before = seen.watch.read().count(_SYNCED.encode())
    with contextlib.suppress(TransientError, BackendError, DeadlineError):
        vm_qemu.control(seen.home, "send-key", keys=keys)
        poll(
            lambda: True if seen.watch.read().count(_SYNCED.encode()) > before else None,
            what="the guest's sync",
            every=Seconds(0.2),
            deadline=Seconds(20.0),
            cancel=Flag(),
        )
    with contextlib.suppress(TransientError, BackendError, DeadlineError):
        vm_qemu.control(seen.home, "quit")
        poll(
            lambda: None if vm.is_running(seen.home) else True,
            what="QEMU's end",
            every=Seconds(0.1),
            deadline=Seconds(20.0),
            cancel=Flag(),
        )
    vm.end_left_over(seen.home, seen.home.name)
