"""A full system on a mounted disk: systemd-nspawn, which boots it as the root of a user namespace of its own.

Its root is nobody on the builder: with the rights that a system's init needs, and without user namespaces, what runs
there could mount and make whatever it liked. Files keep their owners on the disk, for its mount is id-mapped.
Runs in the worker; standard library only.
"""

# Without pathlib, whose imports would cost a good part of the start-up time.
# ruff: noqa: PTH103, PTH106, PTH108, PTH112, PTH115, PTH116, PTH119, PTH123

from __future__ import annotations

import contextlib
import os
import signal
import zlib
from typing import Any

from ingot.backends.local import kernel
from ingot.backends.local.chroot import write

POWER_OFF = signal.SIGRTMIN + 4  # systemd(1)
_POINTLESS = (
    # The network is there before the system is, and nothing in it manages it: these wait for two minutes, and fail.
    "systemd-networkd-wait-online.service",
    "NetworkManager-wait-online.service",
    # The file system is mounted by the builder.
    "systemd-remount-fs.service",
    "systemd-fsck-root.service",
)
"""Units that make no sense where a disk is booted without its kernel; masked for this boot alone."""
_SEED = "/run/ingot-seed"
_INSTANCES = "/var/lib/cloud/instances"
"""Where cloud-init keeps what it was told, with every secret in it: in memory, for freed blocks tell too."""
_OVERLAYS = ("/var/lib/containers/storage/overlay", "/var/lib/docker/overlay2")
"""Where podman and docker keep the layers of container images."""
_OPAQUE = "user.overlay.opaque"
_STATE = "/run/systemd/nspawn"
_GROUPS = "/sys/fs/cgroup"
_RANGE = 65536
_FIRST, _RANGES = 8, 28000  # as many whole ranges as systemd-nspawn itself picks from, see --private-users


def prepare() -> None:
    """Gives this mount namespace what systemd-nspawn keeps in common with others: its state, and pure cgroups."""
    os.makedirs(_STATE, exist_ok=True)
    kernel.mount("ingot", _STATE, "tmpfs", data="mode=0755,size=1m")
    kernel.mount("ingot", _GROUPS, "cgroup2")


def argv(name: str, root: str, seed: str = "") -> list[str]:
    """The command that boots a disk, in a cgroup and a network of its own. `seed`: a folder that cloud-init reads."""
    group = f"{_GROUPS}/{name}"
    os.makedirs(group, exist_ok=True)
    first = _first_user(name)
    told = (f"--bind-ro={seed}:{_SEED}", f"--tmpfs={_INSTANCES}:mode=0755") if seed else ()
    return [
        *("sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', group),
        *("systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit"),
        *(f"--directory={root}", f"--machine={name}", "--hostname=localhost"),
        *("--private-network", f"--private-users={first}:{_RANGE}", "--private-users-ownership=map"),
        *("--resolv-conf=off", "--timezone=off", "--link-journal=no", "--console=read-only"),
        *told,
        *(f"systemd.mask={unit}" for unit in _POINTLESS),
        # In a container cloud-init takes these words for the kernel's command line.
        *((f"ds=nocloud;s={_SEED}/", "network-config=disabled") if seed else ()),
    ]


def write_seed(name: str, folder: str, files: dict[str, str]) -> str:
    """A folder in memory with the files of a NoCloud seed, which only the root of the machine of this name may read."""
    seed, owner = f"{folder}/seed", _first_user(name)
    os.makedirs(seed, mode=0o700, exist_ok=True)
    os.chown(seed, owner, owner)
    for file, text in files.items():
        path = f"{seed}/{file}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        write(path, text, 0o600)
        os.chown(path, owner, owner)
    return seed


def make_instances() -> None:
    """The mount point for what cloud-init keeps: one that systemd-nspawn makes would be nobody's. Root is the disk."""
    os.makedirs(_INSTANCES, exist_ok=True)


def trust_overlays() -> None:
    """Makes marks of overlay file systems what the real root would have written. Root is the disk.

    Who unpacks container images in a user namespace may mark a folder as hiding those below it by `user.overlay.opaque`
    alone, and a kernel that mounts the layers for the real root does not look at that.
    """
    for store in _OVERLAYS:
        for folder, _, _ in os.walk(store):
            try:
                value = os.getxattr(folder, _OPAQUE, follow_symlinks=False)
            except OSError:
                continue
            os.setxattr(folder, f"trusted{_OPAQUE.removeprefix('user')}", value, follow_symlinks=False)
            os.removexattr(folder, _OPAQUE, follow_symlinks=False)


def _first_user(name: str) -> int:
    """The builder's number of the user that is a machine's root."""
    return (_FIRST + zlib.crc32(name.encode()) % _RANGES) * _RANGE


def find_leader(container: int) -> int:
    """The process that is the system's first one, among the children of systemd-nspawn; 0 while there is none.

    Only once it runs the system's own program: before, it may still be in namespaces of the builder's, and what is
    done to its network would be done to the builder's.
    """
    try:
        with open(f"/proc/{container}/task/{container}/children") as file:
            children = file.read().split()
        for child in children:
            with open(f"/proc/{child}/status") as file:
                inside = next(line for line in file if line.startswith("NSpid:")).split()
            own = os.path.basename(os.readlink(f"/proc/{child}/exe")) != "systemd-nspawn"
            apart = all(_space(child, name) != _space("self", name) for name in ("net", "mnt", "user"))
            if own and apart and inside[-1] == "1":
                return int(child)
    except (OSError, StopIteration):
        pass
    return 0


def _space(process: str, name: str) -> int:
    return os.stat(f"/proc/{process}/ns/{name}").st_ino


def write_files(leader: int, files: list[Any]) -> None:
    """Writes files (path, text, mode) into the system's memory-backed folders. For a process of its own."""
    user, mounts = (os.open(f"/proc/{leader}/ns/{name}", os.O_RDONLY) for name in ("user", "mnt"))
    kernel.enter(user, kernel.NEW_USER)
    kernel.enter(mounts, kernel.NEW_NAMESPACE)
    kernel.become_root()
    os.umask(0o022)
    for folder in ("/run/sshd", "/run/ingot"):
        os.makedirs(folder, exist_ok=True)
    for path, text, mode in files:
        write(path, text, mode)


def remove_group(name: str) -> bool:
    """Removes the cgroup of a machine, wherever this mount namespace shows it; whether it is gone.

    It stays for as long as one of the machine's processes is there.
    """
    with open("/proc/self/mountinfo") as file:
        places = [line.split(" ")[4] for line in file if " - cgroup2 " in line]
    groups = [f"{place}/{name}" for place in dict.fromkeys(places)]
    for group in groups:
        for folder, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
    return not any(os.path.isdir(group) for group in groups)
