"""What runs on a chroot machine cannot touch the builder."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from ingot.model.units import Seconds
from ingot.ports import Machine
from ingot.system import process
from tests.local_fixtures import Site, cached_base, sh, site

__all__ = ["cached_base", "site"]
pytestmark = pytest.mark.local

ATTEMPTS = {
    "make a device": "mknod /tmp/disk b 7 0",
    "make a device on the disk": "mknod /root/disk b 7 0",
    "mount a file system": "mount -t tmpfs none /mnt",
    "mount what hides the rest": "mount -t proc none /mnt",
    "bind a folder": "mount --bind /etc /mnt",
    "make system settings writable": "mount -o remount,rw /proc/sys",
    "take a lid off /proc": "umount /proc/sys",
    "set a system setting": "echo ingot > /proc/sys/kernel/hostname",
    "name a core handler": "echo '|/tmp/x' > /proc/sys/kernel/core_pattern",
    "press a magic key": "echo h > /proc/sysrq-trigger",
    "write to sysfs": "echo 1 > /sys/kernel/mm/ksm/run",
    "find a control group": "test -e /sys/fs/cgroup/cgroup.procs",
    "set the clock": "date -s 2001-01-01",
    "name an interface": "ip link add name probe type dummy",
    "take an address": "ip address add 192.0.2.77/24 dev lo",
    "open init's root": "ls /proc/1/root/",
    "open init's program": "cat /proc/1/exe > /dev/null",
    "read init's memory": "cat /proc/1/maps",
    "open init's files": "cat /proc/1/fd/0",
    "enter init's namespaces": "nsenter -t 1 -m true",
    "make a user namespace": "unshare --user true",
    "make a mount namespace": "unshare --mount true",
    "read the kernel's memory": "test -s /proc/kcore",
    "end init": "kill -9 1 && ! kill -0 1",
}

KEYRING = """python3 - <<'END'
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
assert libc.syscall(250, 0, -4, 0) == -1 and ctypes.get_errno() == 1, 'the keyring of the user'
assert libc.syscall(248, b'user', b'ingot', b'x', 1, -4) == -1, 'add_key'
assert libc.syscall(321, 0, 0, 0) == -1 and ctypes.get_errno() == 1, 'bpf'
assert libc.syscall(304, 0, 0, 0) == -1 and ctypes.get_errno() == 1, 'open_by_handle_at'
assert libc.syscall(0x40000000 + 250, 0, -4, 0) == -1 and ctypes.get_errno() == 38, 'another ABI'
END
"""

ESCAPE = """python3 - <<'END'
import os
os.mkdir('/root/inner')
here = os.open('/', os.O_RDONLY)
os.chroot('/root/inner')
os.fchdir(here)
for _ in range(64):
    os.chdir('..')
os.chroot('.')
print(*sorted(os.listdir('/')))
print(os.path.exists('CANARY'))
END
"""


@pytest.fixture(scope="module")
def machine(site: Site) -> Iterator[Machine]:
    with site.machine() as opened:
        yield opened


@pytest.mark.parametrize("attempt", list(ATTEMPTS))
def test_is_refused(machine: Machine, attempt: str) -> None:
    done = sh(machine, ATTEMPTS[attempt], check=False)
    assert done.code != 0, done.stdout
    assert done.code != 127, f"the attempt itself is broken: {done.tail}"
    sh(machine, "true")


def test_keyrings_and_odd_calls_are_refused(machine: Machine) -> None:
    sh(machine, KEYRING)


def test_second_chroot_leads_nowhere(machine: Machine, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("x")
    names, found = sh(machine, ESCAPE.replace("CANARY", str(canary))).stdout.splitlines()
    assert {"etc", "usr", "proc"} <= set(names.split()) and found == "False"
    assert names.split() == sorted(sh(machine, "ls -A /").stdout.split())


def test_builder_root_is_not_mounted(machine: Machine) -> None:
    mounts = sh(machine, "cat /proc/self/mountinfo").stdout.splitlines()
    kinds = {line.split(" - ")[1].split()[0] for line in mounts}
    assert kinds == {"ext4", "proc", "sysfs", "tmpfs", "devpts"}
    assert [line for line in mounts if " ext4 " in line and line.split()[4] != "/"] == []


@contextmanager
def loop_device(folder: Path) -> Iterator[tuple[Path, Path]]:
    """A loop device on a file of canaries."""
    file = folder / "canary.img"
    file.write_bytes(b"canary!\n" * 131072)
    device = Path(
        process.run(["losetup", "--find", "--show", str(file)], timeout=Seconds(30.0)).stdout.strip()
    )
    try:
        yield device, file
    finally:
        process.run(["losetup", "--detach", str(device)], timeout=Seconds(30.0))


def test_block_devices_are_out_of_reach(machine: Machine, tmp_path: Path) -> None:
    with loop_device(tmp_path) as (device, file):
        number = device.stat().st_rdev
        script = f"""
            for place in /dev /root /run /tmp; do
                mknod $place/canary b {os.major(number)} {os.minor(number)} && echo made
                dd if=/dev/zero of=$place/canary bs=4096 count=1 conv=notrunc 2>/dev/null
            done
            dd if=/dev/zero of={device} bs=4096 count=1 2>/dev/null
            ls -l /dev/disk /dev/loop* /dev/vd* /dev/sd* 2>/dev/null | grep '^b' && echo seen
            rm -f /dev/canary /root/canary /run/canary /tmp/canary {device}
            true
        """
        done = sh(machine, "set +e\n" + script)
        assert "made" not in done.stdout and "seen" not in done.stdout
        os.sync()
        assert file.read_bytes() == b"canary!\n" * 131072
        assert device.read_bytes()[:8] == b"canary!\n"


def test_device_files_of_the_disk_are_dead(site: Site, tmp_path: Path) -> None:
    """A base may carry device files; the disk is mounted without them."""
    with site.machine("ingot-nodev-1") as machine:
        options = sh(machine, "grep ' / ' /proc/self/mounts").stdout.split()[3].split(",")
        assert "nodev" in options


def test_killing_everything_ends_only_the_machine_own(site: Site) -> None:
    bystander = subprocess.Popen(["sleep", "60"])
    with site.machine("ingot-kill-1") as machine:
        sh(machine, "setsid sleep 300 >/dev/null 2>&1 &\nkill -9 -1", check=False)
        assert bystander.poll() is None
        assert "sleep" not in sh(machine, "ps -eo comm").stdout.split()
        sh(machine, "echo kept > /root/kept; test -e /root/kept")
        layer = site.freeze(machine, "after-kill")
    bystander.kill()
    bystander.wait()
    with site.machine("ingot-kill-2", layer) as machine:
        assert sh(machine, "cat /root/kept").stdout == "kept\n"


def test_only_own_processes_are_seen(machine: Machine) -> None:
    mark = f"4711.{os.getpid()}"
    other = process.spawn(["sleep", mark])
    try:
        seen = sh(
            machine, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '; echo; ls /proc | grep -c '^[0-9]'"
        ).stdout
    finally:
        process.end(other)
    assert mark not in seen and "sshd" in seen
    assert int(seen.split()[-1]) < 12


def test_builder_services_are_out_of_reach(machine: Machine) -> None:
    """Neither the builder's 127.0.0.1, nor that of slirp's gateway, nor its abstract sockets."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        port = server.getsockname()[1]
        abstract.bind("\0ingot-canary")
        abstract.listen()
        for host in ("127.0.0.1", "10.0.2.2"):
            done = sh(machine, f"timeout 3 bash -c 'echo > /dev/tcp/{host}/{port}'", check=False)
            assert done.code != 0
        reach = "import socket; socket.socket(socket.AF_UNIX).connect('\\0ingot-canary')"
        assert sh(machine, f'python3 -c "{reach}"', check=False).code != 0
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.accept()


def test_what_listens_on_the_machine_does_not_on_the_builder(machine: Machine) -> None:
    port = 45917
    serve = f"import socket, time; s = socket.create_server(('0.0.0.0', {port})); time.sleep(60)"
    sh(machine, f'setsid python3 -c "{serve}" >/dev/null 2>&1 &\nsleep 0.5; ss -Hltn | grep -q :{port}')
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=2)


def test_filling_tmp_is_bounded_and_gone(site: Site) -> None:
    free = os.statvfs(site.state)
    with site.machine("ingot-fill-1") as machine:
        done = sh(
            machine, "fallocate -l 64G /tmp/full || fallocate -l 64G /run/full || true; df -k /tmp | tail -1"
        )
        assert int(done.stdout.split()[1]) <= 8 * 2**20
        assert sh(machine, "head -c 1M /dev/zero > /tmp/more", check=False).code in (0, 1)
        layer = site.freeze(machine, "after-fill")
        assert layer.size < 64 * 2**20
        site.attach(machine)
        assert sh(machine, "ls -A /tmp").stdout == ""
    assert os.statvfs(site.state).f_bavail > free.f_bavail - 2**20


def test_daemons_end_with_the_layer(site: Site) -> None:
    with site.machine("ingot-daemon-1") as machine:
        sh(machine, "touch /run/mine; setsid sh -c 'trap \"\" TERM HUP; sleep 300' >/dev/null 2>&1 &")
        site.freeze(machine, "after-daemon")
        site.attach(machine)
        assert "sleep" not in sh(machine, "ps -eo comm").stdout.split()
        assert sh(machine, "test -e /run/mine", check=False).code == 1


def test_services_do_not_start(site: Site) -> None:
    """Neither through systemctl nor, as Debian's scripts do, through invoke-rc.d and policy-rc.d."""
    with site.machine("ingot-service-1") as machine:
        sh(
            machine,
            "systemctl restart ssh; systemctl enable --now ssh; invoke-rc.d ssh restart; true",
            check=False,
        )
        processes = sh(machine, "ps -eo args").stdout
        assert "sshd: /usr/sbin/sshd -D" not in processes and "[listener]" not in processes
        assert sh(machine, "readlink /etc/systemd/system/multi-user.target.wants/ssh.service").stdout


def listeners() -> set[str]:
    """Addresses of the builder where an SSH server listens."""
    found = psutil.net_connections("tcp")
    return {str(one.laddr) for one in found if one.status == psutil.CONN_LISTEN and one.laddr[1:] == (22,)}


def test_service_restarted_by_ansible_does_not_start_on_the_builder(site: Site) -> None:
    """Ansible may run the init script itself, policy-rc.d or not; in a plain chroot that took the builder's port 22.

    Here it listens in the machine's own network at most, and ends with the layer.
    """
    before = listeners()
    ansible = Path(sys.executable).with_name("ansible")
    with site.machine("ingot-ansible") as opened:
        common = f"-F {opened.ssh.config}"
        done = process.run(
            [str(ansible), "all", "-i", f"{opened.ssh.host},", "-m", "service", "-a", "name=ssh state=restarted",
             "--ssh-common-args", common, "-e", "ansible_python_interpreter=/usr/bin/python3"],
            timeout=Seconds(120.0), env=process.environment({"ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCALHOST_WARNING": "0"}),
        )  # fmt: skip
        assert "SUCCESS" in done.stdout or "CHANGED" in done.stdout
        assert listeners() == before
        site.freeze(opened, "after-ansible")
        assert sh(site.attach(opened), "ss -Hltn | grep -v 3142", check=False).stdout == ""
