"""A mounted disk: a qcow2 chain exported through FUSE and loop-mounted in namespaces that end with this process.

`hold` starts the worker as process 1 of a pid namespace with a mount namespace of its own; it gets SIGKILL when
the thread that started it ends, however it ends, and the kernel clears away the rest: processes, mounts, loop
device, export. Nothing of it is seen in the builder's own mount namespace.

    with hold(folder) as held:
        disk = held.export([base, overlay], writable=True)
        held.mount()
        held.run(["mmdebstrap", ..., str(held.root)], timeout=..., cancel=cancel)
        held.unmount(trim=True)
        held.unexport()
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ingot
from ingot.backends.local import chain, layout
from ingot.errors import BackendError, DeadlineError
from ingot.model.units import Bytes, Seconds
from ingot.ports import Cancel
from ingot.system import process

_SOURCE = Path(ingot.__file__).parent.parent
_SEND_BUFFER = 32  # SO_SNDBUFFORCE: beyond the limit for ordinary users
_LARGEST = 1 << 22
_PATIENCE = Seconds(60.0)
_CREDENTIALS = struct.Struct("iII")
_OPTIONS = {"ext4": (), "xfs": ("nouuid",), "btrfs": ()}


def python_argv(module: str, *words: str) -> list[str]:
    """The `main` of a module of ours, run with nothing that slows its start: no site packages, no environment."""
    start = f"import sys; sys.path.insert(0, {str(_SOURCE)!r}); from {module} import main; sys.exit(main(sys.argv[1:]))"
    return [sys.executable, "-I", "-S", "-c", start, *words]


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """An exported disk: its size, and its partitions with their file systems ("" where not a known one)."""

    size: Bytes
    partitions: tuple[tuple[layout.Partition, str], ...]

    @property
    def root(self) -> tuple[layout.Partition, str]:
        """The partition of the root file system with the file system's kind. Raises BackendError without one."""
        found = layout.root_partition(self.partitions)
        if not found:
            raise BackendError(
                "the disk has no partition with an ext4, xfs or btrfs file system",
                hint="`sfdisk --list` on the base image tells what is in it",
            )
        return found


class HeldDisk:
    """One disk in the worker's hands. Not for several threads at once. Paths are those inside its namespaces."""

    def __init__(self, worker: subprocess.Popen[bytes], control: socket.socket, folder: Path) -> None:
        self._worker = worker
        self._control = control
        self.pid = 0
        """The worker's process id on the builder."""
        self.raw = folder / "export" / "disk"
        """The whole disk as a file, once exported."""
        self.root = folder / "root"
        """Where the root file system is mounted, once it is."""
        self.exported: Exported | None = None
        self.below: tuple[str, ...] = ()
        """Folders of the root on which another partition of the disk is mounted."""

    def outside(self, path: Path) -> Path:
        """The path, seen from this process. Links on the disk are the reader's own care."""
        return Path(f"/proc/{self.pid}/root{path}")

    def export(self, files: Sequence[Path], *, writable: bool, cancel: Cancel | None = None) -> Exported:
        """Shows a chain (base first) as `raw`. With `writable` the last file takes what is written."""
        argv = chain.export_argv(files, self.raw, writable=writable)
        answer = self.ask("export", argv=argv, writable=writable, cancel=cancel)
        found = tuple((layout.Partition(*part[:4]), part[4]) for part in answer["partitions"])
        self.exported = Exported(size=Bytes(answer["size"]), partitions=found)
        return self.exported

    def mount(
        self, where: tuple[layout.Partition, str] | None = None, *, read_only: bool = False
    ) -> tuple[str, ...]:
        """Mounts the root partition on `root`, and on its /boot the one that its fstab says; returns the loop devices.

        With `where` that partition alone. No device files on any.
        """
        assert self.exported, "export comes first"
        root = where or self.exported.root
        devices = [self._mount(root, "", read_only=read_only)]
        self.below = ()
        if boot := None if where else self._find_boot(root[0]):
            devices.append(self._mount(boot, "boot", read_only=read_only))
            self.below = ("boot",)
        return tuple(devices)

    def _mount(self, which: tuple[layout.Partition, str], below: str, *, read_only: bool) -> str:
        part, kind = which
        options = ["nodev", "noatime", "ro" if read_only else "rw", *_OPTIONS.get(kind, ())]
        if kind == "ext4":
            # What is freed is given back at once. (FITRIM on a disk just mounted goes through all that was ever free,
            # and the layer's tables then tell of each cluster: 0.4 s and 2 MiB on 8 GiB.)
            options.append("noload" if read_only else "discard")
        answer = self.ask("mount", start=part.start, size=part.size, options=options, below=below)
        return str(answer["device"])

    def _find_boot(self, root: layout.Partition) -> tuple[layout.Partition, str] | None:
        assert self.exported
        others = [(part, kind) for part, kind in self.exported.partitions if kind and part != root]
        wanted = layout.boot_source(self.read("/etc/fstab")[0] or "") if others else None
        if not wanted:
            return None
        tag, value = wanted
        for part, kind in others:
            if self._tag(part, tag).lower() == value.lower():
                return part, kind
        raise BackendError(
            f"the disk's /etc/fstab mounts {tag}={value} on /boot, and no partition with a file system is that",
            hint="`blkid` on the base image tells what its partitions are",
        )

    def _tag(self, part: layout.Partition, tag: str) -> str:
        if tag == "PARTUUID":
            return self.tool(["sfdisk", "--part-uuid", str(self.raw), str(part.number)])
        window = ["-O", str(part.start), "-S", str(part.size)]
        return self.tool(["blkid", "-p", "-s", tag, "-o", "value", *window, str(self.raw)], accept=(2,))

    def unmount(self, *, trim: bool) -> None:
        """Unmounts; with `trim` free blocks are given back first. All is written then.

        Raises BackendError where something written was lost: the builder's disk is full, as a rule.
        """
        self.ask("unmount", trim=trim, seconds=Seconds(600.0))

    def settle(self) -> None:
        """Stops all writing to the mounted disk: free blocks are given back, all else is in the chain's last file.

        The mount, read-only then, keeps what the kernel has in memory of it. Raises BackendError as `unmount` does.
        """
        self.ask("settle", seconds=Seconds(600.0))

    def unexport(self) -> None:
        """Ends the export; the chain's files are complete then, though not yet durable."""
        self.ask("unexport", seconds=Seconds(150.0))
        self.exported = None

    def read(self, *paths: str) -> list[str | None]:
        """The first 16 KiB of files on the mounted disk (Latin-1), its links followed within it; None for no file."""
        return list(self.ask("read", paths=list(paths))["texts"])

    def tool(
        self,
        argv: Sequence[str],
        *,
        text: str = "",
        accept: Sequence[int] = (),
        cancel: Cancel | None = None,
    ) -> str:
        """The output of a short-lived tool of the builder, run in the disk's namespaces, which reads `text`.

        Raises BackendError for an exit code that is neither 0 nor one to `accept`.
        """
        about = {"argv": list(argv), "text": text, "accept": list(accept)}
        answer = self.ask("run", seconds=Seconds(600.0), cancel=cancel, **about)
        return str(answer["output"])

    def argv(self, *words: str) -> list[str]:
        """A command of the builder, to be run in the disk's namespaces: it ends with them, whatever it starts."""
        return ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--", *words]

    def run(self, argv: Sequence[str], *, timeout: Seconds, **options: Any) -> process.Completed:
        """`system.process.run` in the disk's namespaces, with its options."""
        return process.run(self.argv(*argv), timeout=timeout, **options)

    def start(
        self,
        *,
        visitors: Sequence[Mapping[str, object]],
        run_files: Sequence[tuple[str, str, int]],
        sizes: Mapping[str, int],
        network: bool = True,
        cancel: Cancel | None = None,
    ) -> int:
        """Starts a machine whose root is the mounted disk; returns the process id of its init on the builder."""
        self._send(
            "start", visitors=list(visitors), run_files=list(run_files), sizes=dict(sizes), network=network
        )
        answers = [self._receive(_PATIENCE, cancel) for _ in range(2)]
        init = next((pid for answer, pid in answers if answer.get("init")), 0)
        problem = next((answer["error"] for answer, _ in answers if "error" in answer), "")
        if problem or not init:
            raise BackendError(f"the machine did not start: {problem}", hint="`dmesg` may tell more")
        return init

    def boot(
        self,
        *,
        visitors: Sequence[Mapping[str, object]],
        run_files: Sequence[tuple[str, str, int]],
        name: str,
        console: Path,
        seed: Mapping[str, str] | None = None,
        cancel: Cancel | None = None,
    ) -> int:
        """Boots the system on the mounted disk; returns the process id of its init on the builder.

        `console` gets what it says meanwhile, `name` is that of its cgroup. `seed`: files of a NoCloud seed (Latin-1).
        """
        answer = self.ask(
            "boot",
            seconds=Seconds(120.0),
            cancel=cancel,
            visitors=list(visitors),
            run_files=list(run_files),
            name=name,
            console=str(console),
            seed=dict(seed or {}),
        )
        found = _first_in(int(answer["space"]))
        if not found:
            raise BackendError("the booted system ended at once", hint=f"{console} has what it said")
        return found

    def stop(self, *, cancel: Cancel | None = None) -> None:
        """Ends whatever runs on the machine; the disk stays mounted."""
        self.ask("stop", seconds=Seconds(120.0), cancel=cancel)

    def ask(
        self, do: str, *, seconds: Seconds = _PATIENCE, cancel: Cancel | None = None, **what: object
    ) -> dict[str, Any]:
        """One message to the worker and its answer. Raises BackendError with what the worker says went wrong."""
        self._send(do, **what)
        answer, _ = self._receive(seconds, cancel)
        if "error" in answer:
            raise BackendError(str(answer["error"]), errno=answer.get("errno"))
        return answer

    def _send(self, do: str, **what: object) -> None:
        try:
            self._control.send(json.dumps({"do": do, **what}).encode())
        except BrokenPipeError as error:
            raise self._lost() from error

    def _receive(self, seconds: Seconds, cancel: Cancel | None) -> tuple[dict[str, Any], int]:
        deadline = time.monotonic() + seconds
        while not select.select([self._control], [], [], 0.2)[0]:
            if cancel:
                cancel.check()
            if time.monotonic() > deadline:
                raise DeadlineError("the process that holds the disk did not answer within its time limit")
        size = socket.CMSG_SPACE(_CREDENTIALS.size)
        try:
            message, extra, _, _ = self._control.recvmsg(_LARGEST, size)
        except ConnectionResetError as error:
            raise self._lost() from error
        if not message:
            raise self._lost()
        # The kernel gives the sender's process id as we see it, whatever it is in the sender's namespace.
        pid = next(
            (_CREDENTIALS.unpack(data)[0] for _, kind, data in extra if kind == socket.SCM_CREDENTIALS), 0
        )
        return json.loads(message), pid

    def _lost(self) -> BackendError:
        said = b""
        with contextlib.suppress(subprocess.TimeoutExpired):
            said = self._worker.communicate(timeout=5.0)[1] or b""
        last = said.decode(errors="replace").strip().splitlines()[-1:] or ["no reason given"]
        return BackendError(f"the process that holds the disk ended: {last[0]}")

    def begin(self) -> None:
        """Waits for the worker's first word."""
        _, self.pid = self._receive(_PATIENCE, None)


@contextmanager
def hold(folder: Path) -> Iterator[HeldDisk]:
    """A worker for one disk, ended with everything that it holds. `folder`: its mount point, made if missing.

    Raises BackendError without root.
    """
    refuse_without_root()
    folder.mkdir(parents=True, exist_ok=True)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, _SEND_BUFFER, _LARGEST)  # a bundle of certificates is one message
    argv = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
    worker = process.spawn(
        [*argv, *python_argv("ingot.backends.local.worker", str(theirs.fileno()), str(folder))],
        stderr=subprocess.PIPE,
        pass_fds=[theirs.fileno()],
    )
    theirs.close()
    held = HeldDisk(worker, ours, folder)
    try:
        held.begin()
        yield held
    finally:
        worker.kill()
        worker.wait()
        _await_end(held.pid)
        ours.close()
        if worker.stderr:
            worker.stderr.close()


def _first_in(space: int) -> int:
    """The first process of a pid namespace, as the builder counts it; 0 for none."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, StopIteration):
            if (folder / "ns/pid").stat().st_ino == space:
                lines = (folder / "status").read_text().splitlines()
                if next(line for line in lines if line.startswith("NSpid:")).split()[-1] == "1":
                    return int(folder.name)
    return 0


def _await_end(pid: int) -> None:
    """Waits until a process that was sent SIGKILL, and with it its pid namespace, is gone."""
    if not pid:
        return
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([watched], [], [], 60.0)
    finally:
        os.close(watched)


@contextmanager
def mounted(
    files: Sequence[Path],
    folder: Path,
    *,
    writable: bool = True,
    where: Callable[[Exported], tuple[layout.Partition, str]] | None = None,
    cancel: Cancel | None = None,
) -> Iterator[HeldDisk]:
    """A chain with its root file system mounted. Left without an error, it is trimmed, complete and unmounted."""
    with hold(folder) as held:
        exported = held.export(files, writable=writable, cancel=cancel)
        held.mount(where(exported) if where else None, read_only=not writable)
        yield held
        held.unmount(trim=writable)
        held.unexport()


def refuse_without_root() -> None:
    """Raises BackendError unless this process may make namespaces and mounts."""
    if os.geteuid() != 0:
        raise BackendError(
            "chroot machines need root, and this process runs as an ordinary user",
            hint="run as root (`sudo -E ingot …`), or use a cloud image as base and `vm` machines",
        )
