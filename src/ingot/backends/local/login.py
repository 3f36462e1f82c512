"""How a chroot machine is logged into: sshd run by `enter` for each connection, with files in the machine's /run."""

from __future__ import annotations

import hashlib
import os
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ingot.backends.local.holder import python_argv
from ingot.errors import BackendError
from ingot.ports import SshAccess
from ingot.system import files, ssh

_SSHD = "/usr/sbin/sshd"
_FOLDER = "/run/ingot"

CHROOT_ENVIRONMENT = {
    # Without these two, systemctl and Ansible inside a pid namespace do not see that nothing is booted.
    "SYSTEMD_OFFLINE": "1",
    "debian_chroot": "ingot",
    "DEBIAN_FRONTEND": "noninteractive",
}


BOOTED_ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive"}


def sshd_config(environment: Mapping[str, str], *, pam: bool) -> str:
    """The whole configuration of the machine's sshd; `environment` is what every login gets."""
    pairs = " ".join(f"{name}={value}" for name, value in sorted(environment.items()))
    return (
        f"HostKey {_FOLDER}/host_key\n"
        f"AuthorizedKeysFile {_FOLDER}/authorized_keys\n"
        "StrictModes no\n"
        "PermitRootLogin prohibit-password\n"
        "PasswordAuthentication no\n"
        "KbdInteractiveAuthentication no\n"
        # PAM would ask a name server who is calling, and wait for a dead one.
        f"UsePAM {'yes' if pam else 'no'}\n"
        "UseDNS no\n"
        # Post-quantum key exchange doubles the time of a login, and this connection is a pair of pipes.
        "KexAlgorithms curve25519-sha256,ecdh-sha2-nistp256\n"
        "PrintMotd no\n"
        "PrintLastLog no\n"
        "PidFile none\n"
        "MaxSessions 100\n"
        "AcceptEnv LANG LC_*\n"
        f"SetEnv {pairs}\n"
        "Subsystem sftp internal-sftp\n"
    )


def needs_pam(shadow: str) -> bool:
    """Whether root's password is locked (`!`): without PAM sshd refuses such an account whatever key it has."""
    words = next((line.split(":") for line in shadow.splitlines() if line.startswith("root:")), [])
    return len(words) > 1 and words[1].startswith("!")


def run_files(
    keys: Path, name: str, environment: Mapping[str, str], *, pam: bool
) -> list[tuple[str, str, int]]:
    """What a login needs, as files for the machine's /run; keys are made in `keys`, the run's folder for them."""
    public = ssh.make_key(keys / "id")
    ssh.make_key(keys / f"{name}-host")
    return [
        (f"{_FOLDER}/authorized_keys", public + "\n", 0o600),
        (f"{_FOLDER}/host_key", (keys / f"{name}-host").read_text(), 0o600),
        (f"{_FOLDER}/sshd_config", sshd_config(environment, pam=pam), 0o600),
    ]


def write_access(keys: Path, name: str, init: int, *, sockets: Path) -> SshAccess:
    """The entry for OpenSSH's client; `init` is the machine's process 1 as the builder counts it."""
    space = Path(f"/proc/{init}/ns/pid").stat().st_ino
    daemon = [_SSHD, "-i", "-f", f"{_FOLDER}/sshd_config", "-E", f"{_FOLDER}/sshd.log"]
    proxy = shlex.join([*python_argv("ingot.backends.local.enter"), str(init), str(space), *daemon])
    make_socket_folder(sockets)
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
            f"the disk has no {_SSHD}, so its machine cannot be reached",
            hint="the base needs the packages openssh-server, python3 and sudo",
        )


def socket_folder(work: Path) -> Path:
    """Where a machine's shared connections have their sockets: short, and found again from its work folder."""
    above = "/run/ingot" if os.geteuid() == 0 else f"{tempfile.gettempdir()}/ingot-{os.geteuid()}"
    return Path(above) / hashlib.sha256(str(work).encode()).hexdigest()[:12]


def make_socket_folder(path: Path) -> None:
    """Makes the folder, for its owner alone."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_uid != os.geteuid():
        raise BackendError(f"{path} belongs to somebody else", hint="remove it")


def clear_sockets(path: Path) -> None:
    """Removes what ended connections left."""
    if path.is_dir():
        for left in path.iterdir():
            files.remove(left)
