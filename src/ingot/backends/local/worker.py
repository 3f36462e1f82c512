"""Process 1 of a mounted disk's own pid and mount namespaces: exports, mounts and unmounts it, starts machines on it.

Started by `holder`, told what to do by JSON messages over a socket that keeps their edges, one answer each. When
it ends, for whatever reason, the kernel ends every process in its pid namespace, and with the last of them the
mount namespace, the loop device and the export are gone. Standard library only, and little of it: it starts quickly.

Paths of the disk are never resolved from here, for links on it may point anywhere: `_inside` changes root first.
"""

# Without pathlib, whose imports would cost a good part of the start-up time.
# ruff: noqa: PTH102, PTH112, PTH119, PTH120, PTH123, PTH116

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import stat
from typing import Any

from ingot.backends.local import container, forks, kernel, layout
from ingot.backends.local.chroot import Saved, become_init, head, place, take_back
from ingot.backends.local.forks import WorkerError

Answer = dict[str, Any]

_SETTLED = kernel.REMOUNT | kernel.READ_ONLY | kernel.NO_DEV | kernel.NO_ATIME


class Worker:
    """One disk: exported or not, mounted or not, with a machine running on it or not."""

    def __init__(self, control: int, folder: str) -> None:
        self.control = control
        self.disk = f"{folder}/export/disk"
        self.root = f"{folder}/root"
        self._daemon = 0
        self._writable = False
        # Mount points, each held open so that lost writes are told to us, and whether free blocks are to be trimmed.
        self._mounted: list[tuple[str, int, bool]] = []
        self._init = 0
        self._leader = 0  # of a booted system: its own first process, a child of the one that boots it
        self._network = 0
        self._group = ""
        self._saved: list[Saved] = []
        self._ended: dict[int, int] = {}

    def export(self, argv: list[str], writable: bool) -> Answer:
        """Starts the storage daemon, which shows the disk as a raw file."""
        pid_file = f"{self.disk}.pid"
        # In a mount namespace of its own, made before the disk is mounted: were the daemon the last process of the
        # one with the mount, it would unmount as it exits, and wait for itself to answer. What it mounts below
        # `export` is seen here, for that is shared; no longer than that, or who unmounts it in a copy of these
        # namespaces unmounts it here too. (slirp4netns does, which shuts itself in.)
        folder = os.path.dirname(self.disk)
        kernel.mount("", folder, flags=kernel.SHARED)
        apart = ["unshare", "--mount", "--propagation", "unchanged"]
        self.run([*apart, *argv, "--pidfile", pid_file, "--daemonize"])
        kernel.mount("", folder, flags=kernel.PRIVATE)
        self._daemon = int(forks.read(pid_file))
        self._writable = writable
        with open(self.disk, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            found = layout.partitions(file.read(layout.HEAD), size)
            kinds = []
            for part in found:
                file.seek(part.start)
                kinds.append(layout.file_system(file.read(layout.HEAD)))
        return {"size": size, "partitions": [[*part, kind] for part, kind in zip(found, kinds, strict=True)]}

    def unexport(self) -> Answer:
        """Ends the storage daemon after it has written everything out."""
        if self._daemon:
            # The daemon would end with success whether or not its last tables found room; this tells.
            self._write_out()
            kernel.unmount(self.disk)
            os.kill(self._daemon, signal.SIGTERM)
            status = self._wait(self._daemon, 120.0)
            self._daemon = 0
            if status:
                raise WorkerError(f"the storage daemon ended with status {status}")
        return {}

    def _write_out(self) -> None:
        """Makes the daemon write all that it holds, its tables too, into the disk's file."""
        file = os.open(self.disk, os.O_RDWR if self._writable else os.O_RDONLY)
        try:
            os.fsync(file)
        except OSError as error:
            raise WorkerError(f"what was written to the disk could not be kept: {error.strerror}") from error
        finally:
            os.close(file)

    def resize(self, start: int, size: int) -> Answer:
        """Makes an unmounted ext4 file system as large as its partition."""
        file = os.open(self.disk, os.O_RDWR | os.O_CLOEXEC)
        try:
            # A device, for resize2fs cuts a plain file off where the file system ends.
            held, device = kernel.loop_device(file, start, size)
            use = _use(device)
        finally:
            os.close(file)
        try:
            self.run(["e2fsck", "-f", "-p", device], accept=(1,))
            return self.run(["resize2fs", device])
        finally:
            os.close(held)
            self._await_release(device, use)

    def mount(self, start: int, size: int, options: list[str], below: str) -> Answer:
        """Mounts a partition, on the root or on a folder of it; its loop device goes with the mount (autoclear)."""
        place = f"{self.root}/{below}" if below else self.root
        if not stat.S_ISDIR(os.lstat(place).st_mode):
            raise WorkerError(f"/{below} of the disk is no folder, though a partition belongs there")
        window = [f"loop,offset={start},sizelimit={size}", *options]
        self.run(["mount", "-o", ",".join(window), self.disk, place])
        folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._mounted.append((place, folder, "discard" not in options))
        return {"device": _device(place)}

    def unmount(self, trim: bool) -> Answer:
        """Gives free blocks back if asked to, writes everything out and unmounts; fails where a write was lost."""
        while self._mounted:
            place, folder, trims = self._mounted.pop()
            device = _device(place)
            use = _use(device)
            try:
                if trim and trims:
                    _trim(folder)
                kernel.sync(folder)
            except OSError as error:
                raise WorkerError(
                    f"what was written to the disk could not be kept: {error.strerror}"
                ) from error
            finally:
                os.close(folder)
            kernel.unmount(place)
            # The device is let go of when nothing, in whatever namespace, has the file system mounted any more.
            self._await_release(device, use)
        return {}

    def settle(self) -> Answer:
        """Gives free blocks back and writes everything out; from then on the disk is mounted read-only."""
        for mounted, folder, trims in self._mounted:
            try:
                if trims:
                    _trim(folder)
                kernel.sync(folder)
                kernel.mount("", mounted, flags=_SETTLED)
            except OSError as error:
                raise WorkerError(
                    f"what was written to the disk could not be kept: {error.strerror}"
                ) from error
        self._write_out()
        return {}

    def _await_release(self, device: str, use: str) -> None:
        forks.until(lambda: _use(device) != use, 30.0, f"{device} stayed in use")

    def start(
        self, visitors: list[Any], run_files: list[Any], sizes: dict[str, int], network: bool
    ) -> Answer:
        """Starts a machine: namespaces of its own with the disk as root. Its init reports itself on the socket."""
        self._saved = forks.inside(self.root, lambda: place(visitors))
        read, write = os.pipe()
        child = os.fork()
        if not child:
            forks.or_die(lambda: self._fork_init(write, run_files, sizes))
        os.close(write)
        with os.fdopen(read) as pipe:
            text = pipe.read()
        self._wait(child, 10.0)
        if not text.isdigit():
            raise WorkerError(text or "the machine's namespaces could not be made")
        self._init = int(text)
        if network:
            self._start_network(self._init)
        return {}

    def boot(
        self, visitors: list[Any], run_files: list[Any], name: str, console: str, seed: dict[str, str]
    ) -> Answer:
        """Boots the system that is on the disk. The answer tells its pid namespace, by the number of its inode."""
        if not self._group:
            container.prepare()
        self._group = name
        self._saved = forks.inside(self.root, lambda: place(visitors))
        output = os.open(console, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        place_of_seed = ""
        if seed:
            place_of_seed = container.write_seed(name, os.path.dirname(self.root), seed)
            forks.inside(self.root, container.make_instances)
        self._init = forks.spawn(container.argv(name, self.root, place_of_seed), output=output)
        os.close(output)

        def started() -> bool:
            self._reap()
            if self._init in self._ended:
                status, self._init = self._ended.pop(self._init), 0
                raise WorkerError(f"systemd-nspawn ended with status {status}: {forks.tail(console)}")
            self._leader = container.find_leader(self._init)
            return bool(self._leader)

        forks.until(started, 60.0, "the system's first process did not start")
        # Its user namespace owns its network, so it is there only now.
        self._start_network(self._leader)
        forks.apart(lambda: container.write_files(self._leader, run_files))
        return {"space": os.stat(f"/proc/{self._leader}/ns/pid").st_ino}

    def _fork_init(self, write: int, run_files: list[Any], sizes: dict[str, int]) -> None:
        # A pid namespace begins with the next child, and that child is to be ours: hence two forks.
        try:
            kernel.unshare(
                kernel.NEW_NAMESPACE | kernel.NEW_IPC | kernel.NEW_UTS | kernel.NEW_NET | kernel.NEW_PID
            )
            kernel.unshare(kernel.NEW_CGROUP)
        except OSError as error:
            os.write(write, str(error).encode())
            return
        init = os.fork()
        if init:
            os.write(write, str(init).encode())
        else:
            become_init(self.root, self.control, run_files, sizes)

    def _start_network(self, pid: int) -> None:
        read, write = os.pipe()
        os.set_inheritable(write, True)
        options = [
            "--configure",
            "--mtu=65520",
            "--disable-host-loopback",
            "--enable-sandbox",
            "--enable-seccomp",
        ]
        argv = ["slirp4netns", *options, f"--ready-fd={write}", "--netns-type=path"]
        said = os.memfd_create("said")
        self._network = forks.spawn([*argv, f"/proc/{pid}/ns/net", "tap0"], output=said)
        os.close(write)
        with os.fdopen(read, "rb") as pipe, os.fdopen(said, "rb") as words:
            if pipe.read(1) != b"1":
                words.seek(0)
                why = " ".join(words.read(400).decode(errors="replace").split())
                raise WorkerError(
                    f"slirp4netns could not give the machine a network: {why or 'it does not say why'}"
                )

    def stop(self) -> Answer:
        """Ends whatever runs on the machine, and takes back the files that were placed on its disk."""
        self._power_off()
        for pid in (self._init, self._network):
            if pid:
                os.kill(pid, signal.SIGKILL)
                self._wait(pid, 60.0)
        self._init = self._network = 0
        if self._group:
            forks.until(
                lambda: container.remove_group(self._group), 30.0, "the machine's cgroup stayed in use"
            )
            forks.inside(self.root, container.trust_overlays)
        if self._saved:
            saved, self._saved = self._saved, []
            forks.inside(self.root, lambda: take_back(saved))
        return {}

    def _power_off(self) -> None:
        """Has a booted system end its services and itself; after half a minute it is ended anyway."""
        leader, self._leader = self._leader, 0
        if not leader:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(leader, container.POWER_OFF)
        try:
            self._wait(self._init, 30.0)
            self._init = 0
        except WorkerError:
            with contextlib.suppress(ProcessLookupError):
                os.kill(leader, signal.SIGKILL)

    def read(self, paths: list[str]) -> Answer:
        """The beginnings of files on the mounted disk, as Latin-1; None for what is not a file."""
        return {"texts": forks.inside(self.root, lambda: [head(path) for path in paths])}

    def run(self, argv: list[str], text: str = "", accept: tuple[int, ...] = ()) -> Answer:
        """Runs a short-lived tool of this computer in these namespaces; its output is in the answer."""
        output = os.memfd_create("output")
        given = os.memfd_create("input")
        os.write(given, text.encode())
        os.lseek(given, 0, os.SEEK_SET)
        pid = forks.spawn(argv, output=output, given=given)
        status = self._wait(pid, 600.0)
        os.lseek(output, 0, os.SEEK_SET)
        with os.fdopen(output, errors="replace") as file:
            said = file.read(32768).strip()
        os.close(given)
        if status and status not in accept:
            raise WorkerError(
                f"`{argv[0]}` failed: {' '.join(said.split())[-400:] if said else f'status {status}'}"
            )
        return {"output": said}

    def serve(self) -> None:
        """Answers messages until the socket ends."""
        while message := os.read(self.control, 1 << 22):
            asked = json.loads(message)
            try:
                answer = getattr(self, asked.pop("do"))(**asked)
            except (OSError, WorkerError) as error:
                answer = {"error": str(error), "errno": getattr(error, "errno", None)}
            os.write(self.control, json.dumps(answer).encode())
            self._reap()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self._ended[pid] = os.waitstatus_to_exitcode(status)

    def _wait(self, pid: int, seconds: float) -> int:
        def ended() -> bool:
            self._reap()
            return pid in self._ended

        forks.until(ended, seconds, f"process {pid} did not end")
        return self._ended.pop(pid)


def _trim(folder: int) -> None:
    """Gives a mounted file system's free blocks back."""
    try:
        kernel.trim(folder)
    except OSError as error:
        # A partition that does not begin at a whole block: the layer is larger then, and the leak scan reads more.
        if error.errno != errno.EOPNOTSUPP:
            raise


def _device(place: str) -> str:
    """The device that is mounted on a place."""
    for line in forks.read("/proc/self/mountinfo").splitlines():
        words = line.split(" ")
        if words[4] == place:
            return words[words.index("-") + 2]
    raise WorkerError("the disk is not mounted")


def _use(device: str) -> str:
    """What tells this use of a loop device from the next one; "" once it is free."""
    state = f"/sys/block/{os.path.basename(device)}"
    if not os.path.isdir(f"{state}/loop"):
        return ""
    try:
        return forks.read(f"{state}/diskseq").strip()
    except FileNotFoundError:  # before Linux 5.15
        return "in use"


def main(words: list[str]) -> None:
    """Serves one disk. The words: the socket's number, and an empty folder that is used as a mount point only."""
    control, folder = int(words[0]), words[1]
    os.set_inheritable(control, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    kernel.mount("proc", "/proc", "proc", flags=kernel.NO_SUID | kernel.NO_DEV | kernel.NO_EXEC)
    kernel.mount("ingot", folder, "tmpfs", data="mode=0700,size=4m")
    worker = Worker(control, folder)
    os.mkdir(worker.root)
    export = os.path.dirname(worker.disk)
    os.mkdir(export)
    kernel.mount("ingot", export, "tmpfs", data="mode=0700,size=1m")
    os.close(os.open(worker.disk, os.O_CREAT | os.O_WRONLY, 0o600))
    os.write(control, b'{"ready": true}')
    worker.serve()
