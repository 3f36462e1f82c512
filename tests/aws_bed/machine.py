"""One instance's machine: a system booted from a raw disk, in namespaces of its own, that ends with the bed."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import ingot
from ingot.errors import BackendError
from ingot.model.units import Seconds
from ingot.system import process
from tests.aws_bed import user_data as user_datas
from tests.aws_bed.network import Card, Network
from tests.aws_bed.nursery import Nursery

_TESTS = Path(__file__).parent.parent.parent
_SOURCE = Path(ingot.__file__).parent.parent
_SPACES = ("--mount", "--mount-proc", "--net", "--pid", "--fork", "--kill-child", "--propagation", "private")
_FREEZE, _THAW = 0xC0045877, 0xC0045878  # FIFREEZE, FITHAW: linux/fs.h
_STOP = Seconds(30.0)
_MASKED = (
    "systemd-networkd-wait-online.service",
    "NetworkManager-wait-online.service",
    "networking.service",
    "systemd-remount-fs.service",
    "systemd-fsck-root.service",
    "systemd-firstboot.service",
    "systemd-timesyncd.service",
)
"""Units that make no sense without a kernel of the machine's own and a network card, and would fail."""
_UNIT = """\
[Unit]
Description=The user-data of this instance
ConditionPathExists=!/run/user-data/done
After=basic.target network.target ssh.service systemd-user-sessions.service
[Service]
Type=oneshot
ExecStart=/bin/sh /run/user-data/run
ExecStartPost=/usr/bin/touch /run/user-data/done
StandardOutput=journal+console
StandardError=journal+console
TimeoutStartSec=infinity
"""


def sweep() -> None:
    """Removes the empty cgroups of machines of beds that were killed."""
    for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        for group in Path(root).glob("aws-bed-*"):
            if not Path("/proc", group.name.split("-")[2]).exists():
                for folder, _, _ in os.walk(group, topdown=False):
                    with contextlib.suppress(OSError):
                        Path(folder).rmdir()


@dataclass(frozen=True, kw_only=True, slots=True)
class Login:
    """What a launch gives to the system: who may log in, and the user-data."""

    user: str
    keys: tuple[str, ...]
    user_data: bytes


@dataclass(kw_only=True, slots=True, eq=False)
class Machine:
    """The machine of one instance: on, or off."""

    name: str
    hostname: str
    disk: Path
    folder: Path
    address: str
    nursery: Nursery
    network: Network
    card: Card
    login: Login
    on_end: Callable[[], None]
    """Called from a thread of its own when the system has ended by itself."""
    _cell: subprocess.Popen[bytes] | None = None
    _helpers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _boots: int = 0
    _asked: subprocess.Popen[bytes] | None = None
    """The process whose end is our own wish."""

    @property
    def console(self) -> Path:
        """What the system has said since its first start."""
        return self.folder / "console.log"

    @property
    def on(self) -> bool:
        return self._cell is not None and self._cell.poll() is None

    def boot(self) -> None:
        """Starts the system; returns once its disk is mounted. Raises BackendError where that is not possible."""
        about = self._about()
        file = self.folder / "cell.json"
        argv = ["unshare", *_SPACES, *_python("tests.aws_bed.cell", str(file))]
        read, write = os.pipe()
        file.write_text(json.dumps({**about, "ready": write}))
        try:
            with self.console.open("ab") as console:
                self._cell = self.nursery.start(argv, console.fileno(), (write,))
            os.close(write)
            answer = os.read(read, 4096).decode()  # not to its end: unshare has it open as long as it lives
        finally:
            os.close(read)
        if answer != "ready":
            raise BackendError(f"{self.name} does not boot: {answer or 'its first process ended'}")
        self._boots += 1
        self.network.connect(self._cell.pid, self.card, public=self.address)
        with (self.folder / "helpers.log").open("ab") as log:
            self._helpers = [self.nursery.start(argv, log.fileno()) for argv in self._helper_argvs()]
        threading.Thread(target=self._watch, args=(self._cell,), daemon=True).start()

    def _about(self) -> dict[str, object]:
        self.folder.mkdir(parents=True, exist_ok=True)
        told = user_datas.read(self.login.user_data)
        first = self._boots == 0
        units, scripts, seed = (self.folder / name for name in ("units", "scripts", "seed"))
        for folder in (units / "multi-user.target.wants", scripts, seed):
            folder.mkdir(parents=True, exist_ok=True)
        if told.script:
            (scripts / "run").write_text(told.script)
            (units / "user-data.service").write_text(_UNIT)
            with contextlib.suppress(FileExistsError):
                (units / "multi-user.target.wants/user-data.service").symlink_to("../user-data.service")
        keys = (*self.login.keys, *told.keys)
        user_datas.write_seed(seed, name=self.name, keys=self.login.keys, text=self.login.user_data)
        if told.unknown and first:
            note = f"the bed's user-data runner does not know: {', '.join(told.unknown)}\n"
            with self.console.open("a") as console:
                console.write(note)
        files = [(path, mode, base64.b64encode(data).decode()) for path, mode, data in told.files]
        return {
            "name": self.name,
            "group": f"aws-bed-{os.getpid()}-{self.name}",
            "disk": str(self.disk),
            "root": str(self.folder / "root"),
            "first": first,
            "hostname": self.hostname,
            "user": self.login.user,
            "keys": keys,
            "host_keys": told.host_keys or _host_keys(self.folder),
            "files": files,
            "masked": _MASKED,
            "seed": str(seed),
            "units": str(units) if told.script else "",
            "scripts": str(scripts),
        }

    def _helper_argvs(self) -> list[list[str]]:
        assert self._cell
        relay = _python("tests.aws_bed.relay", str(self._cell.pid), self.address)
        slirp = ["slirp4netns", "--configure", "--mtu=65520", "--disable-host-loopback", "--netns-type=path"]
        return [relay, [*slirp, f"/proc/{self._cell.pid}/ns/net", "tap0"]]

    def _watch(self, cell: subprocess.Popen[bytes]) -> None:
        cell.wait()
        self._end_helpers()
        if self._asked is not cell:
            self.on_end()

    def _end_helpers(self) -> None:
        helpers, self._helpers = self._helpers, []
        for helper in helpers:
            process.end(helper, grace=Seconds(2.0))

    def power_off(self) -> None:
        """Presses the power button and waits; a system that takes longer than half a minute loses its power."""
        self._asked = cell = self._cell
        if not cell or cell.poll() is not None:
            return
        first = _only_child(cell.pid)
        if first:
            with contextlib.suppress(ProcessLookupError):
                os.kill(first, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            cell.wait(_STOP)
        self.cut_power()

    def cut_power(self) -> None:
        """Ends the machine at once, with nothing written that it had not written yet."""
        self._asked = self._cell
        if self._cell:
            self._cell.kill()
            self._cell.wait()
        self._end_helpers()

    def reboot(self) -> None:
        """Presses Ctrl-Alt-Del, which systemd takes for a wish to reboot."""
        leader = self.leader()
        if leader:
            os.kill(leader, signal.SIGINT)

    def leader(self) -> int:
        """The process id of the system's first process; 0 where it has not started or has ended."""
        found = self._cell.pid if self._cell else 0
        for _ in range(3):  # unshare → cell → systemd-nspawn → the system
            found = _only_child(found) if found else 0
        return found

    @contextmanager
    def still(self) -> Iterator[None]:
        """While it lasts the disk's file is whole: all is written, and nothing more is."""
        cell = _only_child(self._cell.pid) if self._cell and self.on else 0
        if not cell:
            yield
            return
        try:
            root = os.open(f"/proc/{cell}/root{self.folder}/root", os.O_RDONLY | os.O_DIRECTORY)
        except OSError:  # ended meanwhile
            yield
            return
        try:
            fcntl.ioctl(root, _FREEZE, 0)
            try:
                yield
            finally:
                fcntl.ioctl(root, _THAW, 0)
        finally:
            os.close(root)


def _python(module: str, *words: str) -> list[str]:
    start = f"import sys; sys.path[:0] = [{str(_SOURCE)!r}, {str(_TESTS)!r}]; from {module} import main; sys.exit(main(sys.argv[1:]))"
    return [sys.executable, "-I", "-S", "-c", start, *words]


def _host_keys(folder: Path) -> dict[str, str]:
    """A new host key, named as `ssh_keys` of cloud-init names it."""
    path = folder / "host_key"
    if not path.exists():
        process.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], timeout=_STOP)
    return {"ed25519_private": path.read_text(), "ed25519_public": path.with_suffix(".pub").read_text()}


def _only_child(pid: int) -> int:
    try:
        words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0
    return int(words[0]) if words else 0
