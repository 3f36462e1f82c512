"""What a disk tells of the last boot of its system: room, units, the journal, log files. Nothing of it is run."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ingot.backends.local import chain
from ingot.backends.local.holder import HeldDisk, hold, python_argv
from ingot.errors import IngotError
from ingot.model.forensics import Disk
from ingot.model.units import Bytes, Seconds
from ingot.system import files, process

_PATIENCE = Seconds(60.0)
_LINES = 4000
_LONGEST = 128 * 2**10
_LOGS = (
    "/var/log/cloud-init.log",
    "/var/log/cloud-init-output.log",
    "/var/log/auth.log",
    "/var/log/secure",
    "/var/lib/cloud/data/status.json",
)
_UNITS = (
    "ssh.service", "sshd.service", "ssh.socket", "sshd.socket",
    "systemd-networkd.service", "NetworkManager.service", "networking.service",
    "cloud-init.service", "cloud-init-main.service",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Read:
    """What was read, or why it was not."""

    disk: Disk | None = None
    journal: str = ""
    logs: dict[str, str] = field(default_factory=dict)
    unread: str = ""


def read_ended(chain_files: Sequence[Path], folder: Path) -> Read:
    """What the disk of an ended machine tells. `folder` gets what is needed for that, and loses it again.

    The disk is not written to: what mounting it writes (the file system was not unmounted) goes to a file of its own.
    """
    if os.geteuid() != 0:
        return Read(unread="that takes root")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        above = folder / "above.qcow2"
        chain.create(above, chain.read_header(chain_files[-1]).size)
        with hold(folder / "disk") as held:
            held.export([*chain_files, above], writable=True)
            held.mount()
            found = read_mounted(held)
            held.unmount(trim=False)
            held.unexport()
            return found
    except (IngotError, OSError) as error:
        return Read(unread=str(error))
    finally:
        files.remove(folder)


def read_mounted(held: HeldDisk) -> Read:
    """What a mounted disk tells."""
    room = os.statvfs(held.outside(held.root))
    disk = Disk(
        size=Bytes(room.f_blocks * room.f_frsize),
        free=Bytes(room.f_bfree * room.f_frsize),
        files_free=room.f_ffree if room.f_files else -1,
        units=_units(held),
    )
    return Read(disk=disk, journal=_journal(held), logs=_logs(held))


def _units(held: HeldDisk) -> dict[str, str]:
    if not process.have("systemctl"):
        return {}
    found = {}
    for unit in _UNITS:
        words = ["systemctl", f"--root={held.root}", "is-enabled", unit]
        said = held.run(words, timeout=_PATIENCE, check=False).stdout.split()
        found[unit] = said[0] if said else "not-found"
    return found


def _journal(held: HeldDisk) -> str:
    if not process.have("journalctl"):
        return ""
    words = ["journalctl", f"--root={held.root}", "--boot", f"--lines={_LINES}", "--no-pager", "--quiet"]
    return held.run([*words, "--output=short-monotonic"], timeout=_PATIENCE, check=False).stdout


def _logs(held: HeldDisk) -> dict[str, str]:
    words = python_argv("ingot.backends.local.tails", str(held.root), str(_LONGEST), *_LOGS)
    done = held.run(words, timeout=_PATIENCE, check=False)
    found: dict[str, str] = json.loads(done.stdout or "{}")
    return {Path(path).name: text for path, text in found.items()}
