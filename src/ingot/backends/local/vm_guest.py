"""What is done inside a virtual machine that builds, over SSH: told of the builder, tidied up, its disk held still."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from ingot.backends.local import network
from ingot.errors import BackendError
from ingot.model.units import Seconds
from ingot.ports import Cancel, SshAccess
from ingot.system import process, ssh
from ingot.system.waits import Flag, poll

BUILDER = "10.0.2.2"
"""The builder's 127.0.0.1 as QEMU's user network shows it to the machine."""
_PATIENCE = Seconds(300.0)
_FOLDER = "/var/lib/ingot-build"
_BUNDLE = f"{_FOLDER}/ca-certificates.crt"
_END = "END-OF-INGOT-FILE"

# What is freed is given back at once from now on; what was freed since the last boot, by cloud-init above all, now.
_GIVE_BACK = """
while read -r device folder kind options rest; do
  case $device,$kind,$options in
    *,discard | *,discard,*) ;;
    /dev/*,ext4,* | /dev/*,xfs,*) mount -o remount,discard "$folder" && fstrim "$folder" || : ;;
  esac
done </proc/self/mounts
"""

# The files lie on the disk, for /run does not outlive a reboot; TIDY takes them away before a layer is made of it.
_PREPARE = (
    f"""
set -eu
# A login is possible before all is started: what cloud-init and others still write would come on top of what steps do.
timeout 240 systemctl is-system-running --wait >/dev/null 2>&1 || :
mkdir -p {_FOLDER}
cat >{_FOLDER}/apt.conf <<'{_END}'
%(apt)s{_END}
if [ -d /etc/apt/apt.conf.d ]; then cp {_FOLDER}/apt.conf /etc/apt/apt.conf.d/zz-ingot-build; fi
cat >{_FOLDER}/environment <<'{_END}'
%(environment)s{_END}
if [ -s {_FOLDER}/environment ] && ! grep -q '^# ingot build' /etc/environment 2>/dev/null; then
  {{ echo '# ingot build'; cat {_FOLDER}/environment; echo '# end of ingot build'; }} >>/etc/environment
fi
%(files)s
"""
    + _GIVE_BACK
)

# What a step started is ended, as at every layer's edge: units that the system itself would not start, and whatever
# a login left behind. The sshd that this comes through, and what it came from, stay.
_TIDY = (
    f"""
set -u
rm -rf {_FOLDER} /etc/apt/apt.conf.d/zz-ingot-build
if grep -q '^# ingot build' /etc/environment 2>/dev/null; then
  sed -i '/^# ingot build/,/^# end of ingot build/d' /etc/environment
  [ -s /etc/environment ] || rm -f /etc/environment
fi
started=$(
  {{ systemctl show '*.service' --property=Id,ActiveState,UnitFileState; echo; }} | while IFS='=' read -r name value; do
    case $name,$value in
      Id,*) unit=$value ;;
      ActiveState,*) active=$value ;;
      UnitFileState,*) known=$value ;;
      *) case $active,$known in active,disabled | active,transient) echo "$unit" ;; esac; unit= active= known= ;;
    esac
  done
)
[ -z "$started" ] || systemctl stop $started
mine=" "; process=$$
while [ "$process" -gt 1 ]; do
  mine="$mine$process "
  process=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$process/status")
done
group=$(sed -n 's/^0:://p' /proc/self/cgroup)
if [ "${{group:-/}}" != / ]; then
  for process in $(cat "/sys/fs/cgroup$group/cgroup.procs"); do
    case $mine in *" $process "*) continue ;; esac
    case $(cat "/proc/$process/comm" 2>/dev/null) in sshd*) ;; *) kill -KILL "$process" 2>/dev/null ;; esac
  done
fi
find /tmp /var/tmp -xdev -mindepth 1 -maxdepth 1 ! -name 'systemd-private-*' ! -name '.*-unix' -exec rm -rf {{}} +
"""
    + _GIVE_BACK
    + "sync\n:\n"
)

_HOLD = """
folders= seen= held=
thaw() { for folder in $held; do fsfreeze --unfreeze "$folder"; done; }
while read -r device folder kind rest; do
  case $device,$kind in /dev/*,ext[234] | /dev/*,xfs | /dev/*,btrfs) ;; *) continue ;; esac
  case " $seen " in *" $device "*) continue ;; esac
  seen="$seen $device" folders="$folder $folders"
done </proc/self/mounts
sync
trap thaw EXIT
for folder in $folders; do
  fsfreeze --freeze "$folder" || exit 1
  held="$folder $held"
done
echo held
read -r go
"""


def prepare(
    access: SshAccess, environment: Mapping[str, str], *, downloads: str, cancel: Cancel | None = None
) -> None:
    """Tells the machine of the builder's proxies, certificates and package cache (its URL), and to give back what is freed."""
    proxies = network.proxy_environment(environment, bundle=_BUNDLE)
    files = "".join(
        f"cat >{path} <<'{_END}'\n{text.rstrip()}\n{_END}\n"
        for path, text, _ in network.certificate_files(environment, bundle=_BUNDLE)
    )
    script = _PREPARE % {
        "apt": network.apt_conf(proxies, downloads=downloads),
        "environment": "".join(f"{name}={value}\n" for name, value in sorted(proxies.items())),
        "files": files,
    }
    _run(access, script, cancel=cancel)


def tidy(access: SshAccess, *, cancel: Cancel | None = None) -> None:
    """Takes back what `prepare` said, ends what steps started, and empties /tmp."""
    _run(access, _TIDY, cancel=cancel)


def power_off(access: SshAccess) -> None:
    """Asks the system to shut down in its own order; returns at once."""
    ssh.run(access, ["systemctl", "poweroff", "--no-block"], timeout=_PATIENCE, check=False)


@contextmanager
def held_still(access: SshAccess) -> Iterator[None]:
    """While inside, nothing reaches the machine's disk, and the disk is whole: file systems are as if unmounted.

    They go on by themselves should the connection be lost.
    """
    started = process.start(ssh.argv(access, "sh", "-c", _HOLD))
    try:
        _wait_for_word(started)
        yield
    finally:
        _let_go(started)


def _wait_for_word(started: subprocess.Popen[bytes]) -> None:
    assert started.stdout and started.stderr
    os.set_blocking(started.stdout.fileno(), False)

    def said() -> bool | None:
        assert started.stdout and started.stderr
        if b"held" in (started.stdout.read() or b""):
            return True
        if started.poll() is not None:
            why = started.stderr.read().decode(errors="replace").strip().splitlines()
            raise BackendError(
                f"the machine's file systems could not be held still: {why[-1] if why else 'no reason given'}",
                hint="the image needs `fsfreeze` of util-linux, or a layer that is made in a `chroot`",
            )
        return None

    poll(said, what="the machine's disk to be still", every=Seconds(0.02), deadline=_PATIENCE, cancel=Flag())


def _let_go(started: subprocess.Popen[bytes]) -> None:
    assert started.stdin
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        started.stdin.close()
        started.wait(_PATIENCE)
    process.end(started)


def _run(access: SshAccess, script: str, *, cancel: Cancel | None) -> None:
    words: Sequence[str] = ["sh", "-s"]
    ssh.run(access, words, timeout=_PATIENCE, input=script.encode(), cancel=cancel)
