"""Whether a running machine that only SSH reaches is sealed: `seal.verify` on a copy of what it looks at.

The copy is made of names, kinds and emptiness, and of what a few small files hold: no key and no log leaves the machine.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from ingot.disk.machine import Entry, list_paths
from ingot.model.units import Seconds
from ingot.ports import Cancel, Finding, SshAccess
from ingot.provision import seal


def verify_machine(access: SshAccess, *, cancel: Cancel, timeout: Seconds) -> tuple[Finding, ...]:
    """What of a sealed image is missing on the machine's own disks, as `seal.verify` says of a mounted one.

    What is mounted from elsewhere is no part of the image. Raises ProvisionError where the machine was lost.
    """
    read = ["etc/passwd"]
    users = list_paths(access, read, contents=read, cancel=cancel, timeout=timeout)
    passwd = "".join(entry.data.decode(errors="replace") for entry in users)
    entries = list_paths(access, seal.looked_at(passwd), contents=seal.READS, cancel=cancel, timeout=timeout)
    with tempfile.TemporaryDirectory(prefix="ingot-") as folder:
        copy(entries, Path(folder))
        return seal.verify(Path(folder) / "root")


def copy(entries: Iterable[Entry], folder: Path) -> None:
    """Makes `root` in the folder, with these entries. What lies behind a link is left out, and so is content unasked for.

    Links lead to something of the kind that theirs lead to, beside `root`.
    """
    root = folder / "root"
    for place in (root, folder / "folder"):
        place.mkdir()
    (folder / "file").touch()
    links: set[Path] = set()
    for entry in sorted(entries, key=lambda entry: entry.path):
        path = root / entry.path.lstrip("/")
        # The names come from a machine that need not be trusted with this computer's files.
        if ".." in path.parts or path in links or not links.isdisjoint(path.parents):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if entry.kind == "link":
            path.symlink_to(folder / (entry.to if entry.to in ("file", "folder") else "nothing"))
            links.add(path)
        elif entry.kind == "folder":
            path.mkdir(exist_ok=True)
        else:
            path.write_bytes(entry.data or (b"x" if entry.size else b""))
