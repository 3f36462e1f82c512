"""A machine to provision: a small Debian root, reached by `sshd -i` in network, pid and mount namespaces of its own."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ingot.errors import TransientError
from ingot.model.units import Seconds
from ingot.ports import SshAccess
from ingot.system import process, ssh, waits

_INIT = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs {work}
mkdir {work}/upper {work}/work {work}/root
mount -t overlay -o lowerdir={base},upperdir={work}/upper,workdir={work}/work overlay {work}/root
cd {work}/root
mount -t proc proc proc
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
chmod 1777 tmp
mount -t tmpfs tmpfs dev
for name in null zero full random urandom tty; do touch dev/$name; mount --bind /dev/$name dev/$name; done
mkdir -p dev/pts dev/shm run/sshd root/.ssh
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ip link set lo up
printf 'nameserver 10.0.2.3\\n' > etc/resolv.conf
printf '#!/bin/sh\\nexit 101\\n' > usr/sbin/policy-rc.d
chmod 755 usr/sbin/policy-rc.d
chmod 700 root/.ssh
cp {key}.pub root/.ssh/authorized_keys
touch run/ready
# Ansible takes process 1's name for the service manager's, unless it is `init` or a shell's.
ln -s /usr/bin/sleep {work}/init
exec {work}/init infinity
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChrootMachine:
    ref: str
    ssh: SshAccess
    kind: Literal["chroot", "booted", "vm", "instance"] = "chroot"


@contextmanager
def chroot_machine(base: Path, folder: Path, *, network: bool = False) -> Iterator[ChrootMachine]:
    """A fresh machine on `base`, which it leaves as it was."""
    work, sockets = folder / "work", folder / "s"
    work.mkdir(parents=True)
    sockets.mkdir()
    key = folder / "key"
    ssh.make_key(key)
    # Without a network, nobody is to wait for package lists.
    lists = "" if network else "touch var/lib/apt/lists/none_Packages\n"
    init = _INIT.format(base=base, work=work, key=key).replace(
        "touch run/ready\n", f"{lists}touch run/ready\n"
    )
    holder = process.spawn(
        ["unshare", "--net", "--pid", "--mount", "--ipc", "--uts", "--fork", "--kill-child", "sh", "-c", init]
    )
    try:
        pid = waits.poll(
            lambda: _child(holder, work),
            what="the machine's start",
            every=Seconds(0.01),
            deadline=Seconds(20.0),
            cancel=waits.Flag(),
        )
        slirp = _slirp(pid) if network else None
        try:
            yield ChrootMachine(ref=str(pid), ssh=_entry(base, folder, key, pid, sockets))
        finally:
            if slirp:
                process.end(slirp)
    finally:
        process.end(holder, grace=Seconds(0.1))


def _child(holder: subprocess.Popen[bytes], work: Path) -> int | None:
    if holder.poll() is not None:
        raise AssertionError("the machine's first process ended")
    children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()
    if not children:
        raise TransientError("no process yet")
    return int(children[0]) if Path(f"/proc/{children[0]}/root{work}/root/run/ready").exists() else None


def _slirp(pid: int) -> subprocess.Popen[bytes]:
    return process.spawn(["slirp4netns", "--configure", "--disable-host-loopback", str(pid), "tap0"])


def _entry(base: Path, folder: Path, key: Path, pid: int, sockets: Path) -> SshAccess:
    root = folder / "work" / "root"
    inner = f"chroot {root} /usr/sbin/sshd -i -e -o UseDNS=no"
    chrooted = "-o 'SetEnv=SYSTEMD_OFFLINE=1 debian_chroot=ingot'"
    command = f"nsenter -t {pid} -m -u -i -n -p -- {inner} {chrooted}"
    host_key = (base / "etc/ssh/ssh_host_ed25519_key.pub").read_text()
    return ssh.write_entry(
        folder,
        ssh.HostEntry(alias="machine", host_key=host_key, identity=key, proxy_command=command),
        sockets=sockets,
    )


def make_base(base: Path) -> None:
    """Debian 12 with what a machine needs to be reached and provisioned."""
    include = "python3,python3-apt,openssh-server,sudo,systemd-sysv,udev,procps,iproute2,ca-certificates"
    os.makedirs(base.parent, exist_ok=True)  # noqa: PTH103
    process.run(
        ["mmdebstrap", "--variant=minbase", f"--include={shlex.quote(include)}", "bookworm", str(base)],
        timeout=Seconds(600.0),
    )
