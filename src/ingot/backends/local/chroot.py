"""The inside of a chroot machine: its file systems, its init, and the files that visit its disk during a build.

Runs in the worker's children, standard library only. `become_init` never returns.
"""

# Without pathlib, whose imports would cost a good part of the start-up time.
# ruff: noqa: PTH101, PTH102, PTH108, PTH110, PTH112, PTH115, PTH120, PTH123, PTH211

from __future__ import annotations

import contextlib
import os
import signal
import stat
from typing import Any

from ingot.backends.local import kernel

Saved = dict[str, Any]
"""A file placed on the disk (`path`, and `text` or `link`) and what was there before (`was`, None for nothing)."""

_NODES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)
_READ_ONLY = ("sys", "sysrq-trigger", "bus", "fs", "irq", "acpi", "scsi", "mtrr")
_MASKED = ("kcore", "keys", "key-users", "kmsg", "timer_list", "sched_debug", "latency_stats", "kallsyms")
_SAFE = kernel.NO_SUID | kernel.NO_DEV


def become_init(root: str, control: int, run_files: list[Any], sizes: dict[str, int]) -> None:
    """Process 1 of a machine: makes `root` the only file system there is, reports, and reaps until it is killed."""
    try:
        kernel.mount("", "/", flags=kernel.RECURSIVE | kernel.PRIVATE)
        kernel.change_root(root)
        os.umask(0o022)
        _mount_all(sizes)
        _write_run(run_files)
        # Every disk's /etc/hosts knows this name, so that sudo does not wait for a name server.
        kernel.set_hostname("localhost")
        kernel.raise_loopback()
        # Ansible goes by this name: `init` makes it look whether the disk is systemd's; any other is taken as the manager.
        kernel.hide("init")
        report = b'{"init": true}'
    except OSError as error:
        report = f'{{"init": false, "error": "{str(error).translate({34: 39, 92: 47})}"}}'.encode()
    os.write(control, report)
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.closerange(3, 65536)
    # A process 1 is spared the signals that it does not handle; Python handles SIGINT.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        signal.sigwait({signal.SIGCHLD})
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _mount_all(sizes: dict[str, int]) -> None:
    for name in ("proc", "sys", "dev", "run", "tmp"):
        # A disk without one of these could not boot either; the folder belongs on it.
        with contextlib.suppress(FileExistsError):
            os.mkdir(f"/{name}")
    kernel.mount("proc", "/proc", "proc", flags=_SAFE | kernel.NO_EXEC)
    kernel.mount("sysfs", "/sys", "sysfs", flags=_SAFE | kernel.NO_EXEC | kernel.READ_ONLY)
    kernel.mount("tmpfs", "/dev", "tmpfs", flags=kernel.NO_SUID, data="mode=0755,size=1m,nr_inodes=1k")
    _make_dev()
    kernel.mount("tmpfs", "/dev/shm", "tmpfs", flags=_SAFE, data=f"mode=1777,size={sizes['shm']}")
    kernel.mount("tmpfs", "/run", "tmpfs", flags=_SAFE, data=f"mode=0755,size={sizes['run']},nr_inodes=64k")
    kernel.mount("tmpfs", "/tmp", "tmpfs", flags=_SAFE, data=f"mode=1777,size={sizes['tmp']},nr_inodes=1m")
    for name in _MASKED:
        if os.path.exists(f"/proc/{name}"):
            kernel.mount("/dev/null", f"/proc/{name}", flags=kernel.BIND)
    for name in _READ_ONLY:
        if os.path.exists(f"/proc/{name}"):
            _bind_read_only(f"/proc/{name}")
    for path in ("/sys/firmware", "/sys/kernel/security"):
        if os.path.isdir(path):
            kernel.mount("tmpfs", path, "tmpfs", flags=_SAFE | kernel.READ_ONLY, data="size=0,mode=0555")


def _bind_read_only(path: str) -> None:
    kernel.mount(path, path, flags=kernel.BIND)
    kernel.mount("", path, flags=kernel.BIND | kernel.REMOUNT | kernel.READ_ONLY | _SAFE | kernel.NO_EXEC)


def _make_dev() -> None:
    mask = os.umask(0)
    for name, major, minor in _NODES:
        os.mknod(f"/dev/{name}", stat.S_IFCHR | 0o666, os.makedev(major, minor))
    os.umask(mask)
    for name, target in _LINKS:
        os.symlink(target, f"/dev/{name}")
    os.mkdir("/dev/pts")
    os.mkdir("/dev/shm")
    kernel.mount(
        "devpts",
        "/dev/pts",
        "devpts",
        flags=kernel.NO_SUID | kernel.NO_EXEC,
        data="newinstance,gid=5,mode=620,ptmxmode=666",
    )


def _write_run(files: list[Any]) -> None:
    for folder, mode in (("/run/lock", 0o1777), ("/run/sshd", 0o755), ("/run/ingot", 0o755)):
        os.mkdir(folder)
        os.chmod(folder, mode)
    for path, text, mode in files:
        write(path, text, mode)


def place(visitors: list[Any]) -> list[Saved]:
    """Puts files on the disk for the time of a build; what was in their place comes back. Root is the disk."""
    saved: list[Saved] = []
    for visitor in visitors:
        path = visitor["path"]
        folder = os.path.dirname(path)
        if not os.path.isdir(folder):
            continue
        was = _state(path)
        if was and ("other" in was or visitor.get("only_if_missing")):
            continue
        if was:
            os.unlink(path)
        _put(visitor, path)
        saved.append({**visitor, "was": was})
    return saved


def take_back(saved: list[Saved]) -> None:
    """Removes what was placed and restores what was there, unless somebody put something else in its place."""
    for visitor in saved:
        path, was = visitor["path"], visitor["was"]
        now = _state(path)
        ours = {"link": visitor["link"]} if "link" in visitor else {"text": visitor["text"]}
        if not now or any(now.get(name) != value for name, value in ours.items()):
            continue
        os.unlink(path)
        if was:
            _put(was, path)
            if "owner" in was:
                os.chown(path, *was["owner"])


def _state(path: str) -> Saved | None:
    """What is at a path: a link, the text of a file (bytes as Latin-1), or something `other`."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    if stat.S_ISLNK(found.st_mode):
        return {"link": os.readlink(path)}
    if not stat.S_ISREG(found.st_mode):
        return {"other": True}
    with open(path, "rb") as file:
        text = file.read().decode("latin-1")
    return {"text": text, "mode": stat.S_IMODE(found.st_mode), "owner": [found.st_uid, found.st_gid]}


def head(path: str, size: int = 16384) -> str | None:
    """The beginning of a file, bytes as Latin-1; None for what is not one."""
    try:
        with open(path, "rb") as file:
            return file.read(size).decode("latin-1")
    except OSError:
        return None


def _put(what: Saved, path: str) -> None:
    if "link" in what:
        os.symlink(what["link"], path)
    else:
        write(path, what["text"], what["mode"])


def write(path: str, text: str, mode: int) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        os.fchmod(file, mode)
        data = text.encode("latin-1")
        while data:
            data = data[os.write(file, data) :]
    finally:
        os.close(file)
