"""How a chroot machine is logged into: sshd run by `enter` for each connection, with files in the machine's /run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from ingot.backends.local.holder import python_argv
from ingot.errors import BackendError
from ingot.ports import SshAccess
from ingot.system import ssh, sshd

_FOLDER = sshd.FOLDER

CHROOT_ENVIRONMENT = {
    # Without these two, systemctl and Ansible inside a pid namespace do not see that nothing is booted.
    "SYSTEMD_OFFLINE": "1",
    "debian_chroot": "ingot",
    "DEBIAN_FRONTEND": "noninteractive",
}


BOOTED_ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive"}


def run_files(
    keys: Path, name: str, environment: Mapping[str, str], *, pam: bool
) -> list[tuple[str, str, int]]:
    """What a login needs, as files for the machine's /run; keys are made in `keys`, the run's folder for them."""
    public = ssh.make_key(keys / "id")
    ssh.make_key(keys / f"{name}-host")
    return [
        (f"{_FOLDER}/authorized_keys", public + "\n", 0o600),
        (f"{_FOLDER}/host_key", (keys / f"{name}-host").read_text(), 0o600),
        (f"{_FOLDER}/sshd_config", sshd.config(environment, pam=pam), 0o600),
    ]


def write_access(keys: Path, name: str, init: int, *, sockets: Path) -> SshAccess:
    """The entry for OpenSSH's client; `init` is the machine's process 1 as the builder counts it."""
    space = Path(f"/proc/{init}/ns/pid").stat().st_ino
    daemon = [sshd.PROGRAM, "-i", "-f", f"{_FOLDER}/sshd_config", "-E", f"{_FOLDER}/sshd.log"]
    proxy = shlex.join([*python_argv("ingot.backends.local.enter"), str(init), str(space), *daemon])
    ssh.make_socket_folder(sockets)
    entry = ssh.HostEntry(
        alias=name,
        host_key=(keys / f"{name}-host.pub").read_text(),
        identity=keys / "id",
        # ssh_config expands % in a ProxyCommand.
        proxy_command=proxy.replace("%", "%%"),
    )
    return ssh.write_entry(keys, entry, sockets=sockets)


def refuse_without_sshd(present: bool) -> None:
    """Raises BackendError for a disk that nobody could log into."""
    if not present:
        raise BackendError(
            f"the disk has no {sshd.PROGRAM}, so its machine cannot be reached",
            hint="the base needs the packages openssh-server, python3 and sudo",
        )
