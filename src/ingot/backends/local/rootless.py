"""A disk at rest, shown without root: in a user namespace of its own, through FUSE alone.

What root would loop-mount, `fuse2fs` reads. When the holding process ends, however it ends, the kernel clears all of it
away. Files are reached through /proc from outside; FUSE lets nobody else in.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ingot.backends.local import chain, layout
from ingot.errors import BackendError
from ingot.model.units import Seconds
from ingot.ports import Cancel
from ingot.system import process
from ingot.system.waits import Flag, poll

_PATIENCE = Seconds(60.0)
_LONG = Seconds(1800.0)
_APART = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child"]
_FIRST = ["sh", "-c", "sleep infinity & while :; do wait; done"]
"""The namespaces' first process, which buries daemons that have ended."""


@contextmanager
def shown(files: Sequence[Path], folder: Path, *, cancel: Cancel) -> Iterator[tuple[Path, Path]]:
    """The disk that these files are (base first) as one raw file, and the tree of its root file system; to be read only.

    `folder` is made for it. Raises BackendError where this computer, or the disk's file system, does not allow it.
    """
    with _exported(files, folder, writable=False, cancel=cancel) as (enter, raw, start):
        tree = folder / "root"
        tree.mkdir()
        mount = ["fuse2fs", "-o", f"ro,norecovery,offset={start}", str(folder / "disk"), str(tree)]
        process.run([*enter, *mount], timeout=_PATIENCE, cancel=cancel)
        yield raw, raw.with_name("root")


def clear_free(files: Sequence[Path], folder: Path, *, cancel: Cancel) -> None:
    """Overwrites what was deleted from the disk's root file system with zeros, which take no room in the last file."""
    with _exported(files, folder, writable=True, cancel=cancel) as (enter, _, start):
        disk = f"{folder / 'disk'}?offset={start}"
        process.run([*enter, "zerofree", disk], timeout=_LONG, cancel=cancel)


@contextmanager
def _exported(
    files: Sequence[Path], folder: Path, *, writable: bool, cancel: Cancel
) -> Iterator[tuple[list[str], Path, int]]:
    """How commands enter the namespace, the raw disk as it is seen from here, and where its root file system begins."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "disk").touch()
    pid_file = folder / "daemon"
    holder = process.spawn([*_APART, *_FIRST], stderr=subprocess.PIPE)
    try:
        inside = _inside(holder, cancel)
        enter = [
            "nsenter",
            f"--target={inside}",
            "--user",
            "--preserve-credentials",
            "--mount",
            "--pid",
            "--",
        ]
        chained = [path.resolve() for path in files]
        export = chain.export_argv(chained, folder / "disk", writable=writable, others=False)
        daemon = [*enter, *export, "--daemonize", "--pidfile", str(pid_file)]
        process.run(daemon, timeout=_PATIENCE, cancel=cancel)
        raw = Path(f"/proc/{inside}/root") / (folder / "disk").relative_to("/")
        yield enter, raw, _root_start(raw)
        if writable:
            _close_in_order(enter, raw, pid_file)
    finally:
        process.end(holder, grace=Seconds(0.0))


def _close_in_order(enter: Sequence[str], raw: Path, pid_file: Path) -> None:
    """Has the daemon write all that it holds into the chain's last file, and waits for its end."""
    with raw.open("r+b") as disk:
        os.fsync(disk.fileno())
    pid = pid_file.read_text().strip()
    # The shell's own `kill`: as a program it is part of a package that a small system lacks.
    process.run([*enter, "sh", "-c", f"kill -TERM {pid}"], timeout=_PATIENCE)
    gone = [*enter, "sh", "-c", f"kill -0 {pid}"]
    poll(
        lambda: process.run(gone, timeout=_PATIENCE, check=False).code or None,
        what="the end of the disk's export",
        every=Seconds(0.02),
        deadline=_PATIENCE,
        cancel=Flag(),
    )


def _inside(holder: subprocess.Popen[bytes], cancel: Cancel) -> int:
    """The process id of the namespaces' first process."""

    def first() -> int | None:
        if holder.poll() is not None:
            assert holder.stderr
            said = holder.stderr.read().decode(errors="replace").strip()
            raise BackendError(
                f"this user may not make a user namespace: {said or 'no reason given'}",
                hint="build as root, or allow it: `sysctl kernel.unprivileged_userns_clone=1`",
            )
        children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()
        found = int(children[0]) if children else None
        # It is there before it has become what it runs, with its mounts its own.
        return found if found and Path(f"/proc/{found}/comm").read_text().strip() == _FIRST[0] else None

    return poll(first, what="a user namespace", every=Seconds(0.01), deadline=_PATIENCE, cancel=cancel)


def _root_start(raw: Path) -> int:
    """Where the root file system begins. Raises BackendError for one that cannot be read without root."""
    size = raw.stat().st_size
    with raw.open("rb") as disk:
        parts = layout.partitions(disk.read(layout.HEAD), size)
        kinds = []
        for part in parts:
            disk.seek(part.start)
            kinds.append(layout.file_system(disk.read(layout.HEAD)))
    found = layout.root_partition(tuple(zip(parts, kinds, strict=True)))
    if not found or found[1] != "ext4":
        raise BackendError(
            f"the disk's root file system is {found[1] if found else 'none that is known'}; without root only ext4 can be "
            "searched for leaks",
            hint="build as root, or on a base with ext4",
        )
    return found[0].start
