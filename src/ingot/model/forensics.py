"""What is seen of a machine that did not come up or was lost, and what it amounts to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ingot.model.units import Bytes, Seconds

Stage = Literal[
    "nothing",
    "firmware",
    "boot loader",
    "kernel",
    "initramfs",
    "root mounted",
    "systemd",
    "network",
    "sshd",
    "cloud-init",
    "login",
]
"""How far a boot came, in this order. `login`: its login prompt, or the target of which that is a part."""

Login = Literal["untried", "accepted", "refused", "other user", "other host key", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Port:
    """What the machine's SSH port does with a caller.

    `closed`: somebody says no, so the machine's network is up. `silent`: nobody answers. `greeted`: `greeting` is what
    the server said first, and `login` what became of ours, with the end of what OpenSSH's client said of it.
    """

    state: Literal["unknown", "closed", "silent", "greeted"] = "unknown"
    greeting: str = ""
    login: Login = "untried"
    said: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Disk:
    """What was read from the machine's disk after the machine was ended, or while its system ran."""

    size: Bytes
    free: Bytes
    files_free: int
    """How many more files the root file system takes; -1 where it has no such limit."""
    units: Mapping[str, str] = field(default_factory=dict)
    """What `systemctl is-enabled` says of units that logging in needs: `enabled`, `masked`, `not-found`, …"""

    @property
    def full(self) -> bool:
        """Whether there is no room for anything: what the file system keeps for root is counted as room."""
        return self.free < min(self.size // 1000, 2**20) or 0 <= self.files_free < 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """All that is known of one machine. Backends gather what they can; what they cannot see stays as it is here."""

    kind: Literal["booted", "vm", "instance"]
    console: str = ""
    """What it said on its console, without what only moves a cursor."""
    state: Literal["running", "paused", "ended"] = "running"
    status: str = ""
    """The hypervisor's own word for the state, such as QEMU's `io-error`."""
    exit_code: int | None = None
    """Of what ran the machine, once it ended: negative for a signal, None where nobody saw it."""
    seconds: Seconds = Seconds(0.0)
    """How long it was waited for."""
    idle: Seconds = Seconds(0.0)
    """For how long its console has said nothing new."""
    patience: Seconds = Seconds(60.0)
    """After so long with nothing new a boot no longer counts as going on."""
    user: str = "root"
    port: Port = Port()
    disk: Disk | None = None
    unread: str = ""
    """Why the disk was not read."""
    journal: str = ""
    """The journal of its last boot, `short-monotonic`."""
    logs: Mapping[str, str] = field(default_factory=dict)
    """Log files by name, their last part."""
    jobs: tuple[str, ...] = ()
    """Units that its start still waits for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cause:
    """What a machine's trouble comes down to: a name for programs, a sentence, and what to do next."""

    name: str
    sentence: str
    next: str
