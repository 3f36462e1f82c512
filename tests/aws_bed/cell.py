"""Process 1 of an instance's own namespaces: mounts its disk, does what cloud-init would, boots the system on it.

`cell FILE`, started below `unshare`; FILE is JSON (`machine.Machine.boot` writes it). The descriptor `ready` says so, or
what went wrong, as soon as the disk is mounted. SIGTERM presses the power button. When the system has powered off the disk is
unmounted, so that its file is complete when this process ends. Standard library only.
"""

# Without pathlib, whose imports would cost a good part of the start-up time.
# ruff: noqa: T201, PTH106, PTH114, PTH101, PTH103, PTH107, PTH110, PTH112, PTH120, PTH123, PTH207

from __future__ import annotations

import base64
import contextlib
import glob
import json
import os
import pwd
import signal
import subprocess
import sys
from typing import Any

from ingot.backends.local import container, kernel, layout

_GROUPS = "/sys/fs/cgroup"
_REBOOTED = 133  # what systemd-nspawn with --keep-unit says, for its starter to start it again
_NAMESERVER = "nameserver 10.0.2.3\n"
_BEGIN = "-----BEGIN SSH HOST KEY KEYS-----"
_END = "-----END SSH HOST KEY KEYS-----"


def main(words: list[str]) -> int:
    """The exit code of systemd-nspawn: 0 for a system that powered off."""
    with open(words[0]) as file:
        about: dict[str, Any] = json.load(file)
    try:
        kernel.raise_loopback()
        container.prepare()
        _mount(about["disk"], about["root"])
        prepared = _inside(about)
    except (OSError, LookupError, ValueError, subprocess.SubprocessError) as error:
        os.write(about["ready"], f"{type(error).__name__}: {error}".encode())
        return 70
    os.write(about["ready"], prepared)
    os.close(about["ready"])
    if prepared != b"ready":
        return 70
    code = _REBOOTED
    while code == _REBOOTED:
        system = subprocess.Popen(_argv(about), stdin=subprocess.DEVNULL)
        code = _wait_for(system)
    kernel.unmount(about["root"])
    _remove_group(about["group"])
    return code


def _wait_for(system: subprocess.Popen[bytes]) -> int:
    """Waits as process 1 does: for its own child, and for whatever else is left to it meanwhile."""
    signal.signal(signal.SIGTERM, lambda *_: system.send_signal(signal.SIGTERM))
    while True:
        pid, status = os.wait()
        if pid == system.pid:
            system.returncode = os.waitstatus_to_exitcode(status)
            return system.returncode


def _mount(disk: str, root: str) -> None:
    size = os.stat(disk).st_size  # noqa: PTH116
    with open(disk, "rb") as file:
        found = []
        for part in layout.partitions(file.read(layout.HEAD), size):
            file.seek(part.start)
            found.append((part, layout.file_system(file.read(layout.HEAD))))
    place = layout.root_partition(tuple(found))
    if not place:
        raise ValueError("no partition of the root volume has a file system that could be mounted")
    part, kind = place
    os.makedirs(root, exist_ok=True)
    descriptor = os.open(disk, os.O_RDWR | os.O_CLOEXEC)
    held, device = kernel.loop_device(descriptor, part.start, part.size)
    kernel.mount(device, root, kind, flags=kernel.NO_ATIME, data="discard" if kind == "ext4" else "")
    os.close(held)  # the mount keeps it, and lets go of it
    os.close(descriptor)


def _inside(about: dict[str, Any]) -> bytes:
    """Does the part of cloud-init's work that comes before the system starts, in a child whose root is the disk."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.chroot(about["root"])
            os.chdir("/")
            _prepare(about)
            os.write(write, b"ready")
        except BaseException as error:  # told to whoever started us
            os.write(write, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


def _prepare(about: dict[str, Any]) -> None:
    if not os.path.islink("/etc/resolv.conf"):
        _write("/etc/resolv.conf", _NAMESERVER.encode(), 0o644)
    if about["seed"] and os.path.exists("/usr/bin/cloud-init"):
        return  # it does the rest itself
    if about["first"]:
        _name(about["hostname"])
        _host_keys(about["host_keys"])
        _log_in(about["user"], about["keys"])
        for path, mode, data in about["files"]:
            _write(path, base64.b64decode(data), mode)
    _tell_host_keys()


def _name(name: str) -> None:
    """The host name, that resolves too: `manage_etc_hosts`, which Debian's cloud images have on."""
    _write("/etc/hostname", f"{name}\n".encode(), 0o644)
    old = _read("/etc/hosts").splitlines() if os.path.exists("/etc/hosts") else ["127.0.0.1 localhost"]
    lines = [line for line in old if line.split()[:1] != ["127.0.1.1"]]
    _write("/etc/hosts", "\n".join([*lines, f"127.0.1.1 {name}", ""]).encode(), 0o644)


def _host_keys(given: dict[str, str]) -> None:
    """The instance's own host keys instead of the image's: `ssh_deletekeys` of cloud-init."""
    if not os.path.isdir("/etc/ssh"):
        return
    for path in glob.glob("/etc/ssh/ssh_host_*_key*"):
        os.remove(path)
    for name, text in given.items():
        kind, _, half = name.partition("_")
        path = f"/etc/ssh/ssh_host_{kind}_key{'.pub' if half == 'public' else ''}"
        _write(path, text.encode(), 0o644 if half == "public" else 0o600)


def _tell_host_keys() -> None:
    """What cloud-init writes to the console, from where users of EC2 learn an instance's host key."""
    paths = sorted(glob.glob("/etc/ssh/ssh_host_*_key.pub"))
    if paths:
        print("\n".join((_BEGIN, *(_read(path).strip() for path in paths), _END)), flush=True)


def _log_in(user: str, keys: list[str]) -> None:
    """Makes the image's user, if it is not there, who may become root and log in with the keys."""
    try:
        about = pwd.getpwnam(user)
    except KeyError:
        subprocess.run(["useradd", "-m", "-s", "/bin/bash", user], check=True, capture_output=True)
        about = pwd.getpwnam(user)
    if os.path.isdir("/etc/sudoers.d") and user != "root":
        _write("/etc/sudoers.d/90-cloud-init-users", f"{user} ALL=(ALL) NOPASSWD:ALL\n".encode(), 0o440)
    folder = f"{about.pw_dir}/.ssh"
    path = f"{folder}/authorized_keys"
    os.makedirs(folder, mode=0o700, exist_ok=True)
    old = _read(path).splitlines() if os.path.exists(path) else []
    text = "\n".join([*old, *(key for key in keys if key not in old)])
    _write(path, f"{text}\n".encode(), 0o600)
    for name in (folder, path):
        os.chown(name, about.pw_uid, about.pw_gid)


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()


def _write(path: str, data: bytes, mode: int) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, mode)


def _remove_group(name: str) -> None:
    for folder, _, _ in os.walk(f"{_GROUPS}/{name}", topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def _argv(about: dict[str, Any]) -> list[str]:
    group = f"{_GROUPS}/{about['group']}"
    os.makedirs(group, exist_ok=True)
    seeded = bool(about["seed"]) and os.path.exists(f"{about['root']}/usr/bin/cloud-init")
    told = [f"--bind-ro={about['seed']}:/run/cloud-seed"] if seeded else []
    if not seeded and about["units"]:
        told = [f"--bind={about['units']}:/run/systemd/system", f"--bind={about['scripts']}:/run/user-data"]
    return [
        *("sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', group),
        *("systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit"),
        *(f"--directory={about['root']}", f"--machine={about['name']}"),
        # Ours, made before: it stays the same when the system reboots.
        "--network-namespace-path=/proc/self/ns/net",
        *("--resolv-conf=off", "--timezone=off", "--link-journal=no", "--console=read-only"),
        *told,
        *(f"systemd.mask={unit}" for unit in about["masked"]),
        *(("ds=nocloud;s=/run/cloud-seed/", "network-config=disabled") if seeded else ()),
    ]


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main(sys.argv[1:]))
