"""How an instance is logged into: as the AMI's own user, and from there as root.

The user that an AMI lets in is seldom root, and what provisions wants to be. So there are two connections: one to the
instance's SSH server, whose host key is taken when first seen and then pinned, and inside of it one to an sshd that `sudo`
runs for it alone. What that one needs lies in the machine's /run, and is made anew after a reboot.
"""

from __future__ import annotations

import base64
import shlex
from dataclasses import dataclass
from pathlib import Path

from ingot.errors import BackendError, TransientError
from ingot.model.units import Seconds
from ingot.ports import SshAccess
from ingot.system import ssh, sshd

_TRY = Seconds(25.0)
_ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Door:
    """Where an instance is reached, as whom, and by which way."""

    address: str
    user: str
    keys: Path
    """The folder of the run's key, where what OpenSSH reads is written."""
    proxy_command: str = ""
    proxy_jump: str = ""


def own_key(keys: Path) -> str:
    """The public half of the run's key, which is made if it is not there."""
    return ssh.make_key(keys / "id")


def outer(name: str, door: Door) -> SshAccess:
    """The connection as the AMI's own user."""
    sockets = ssh.socket_folder(door.keys / name)
    ssh.make_socket_folder(sockets)
    entry = ssh.HostEntry(
        alias=f"{name}-login" if door.user != "root" else name,
        identity=door.keys / "id",
        hostname=door.address,
        user=door.user,
        proxy_command=door.proxy_command,
        proxy_jump=door.proxy_jump,
    )
    return ssh.write_entry(door.keys, entry, sockets=sockets)


def refuse_silence(access: SshAccess) -> bool:
    """True once it can be logged into. Raises TransientError, with what OpenSSH's client says, as long as it cannot."""
    done = ssh.run(access, ["true"], timeout=_TRY, check=False)
    if done.code:
        raise TransientError(done.tail[-1] if done.tail else f"ssh exited with {done.code}")
    return True


def root(name: str, door: Door, through: SshAccess) -> SshAccess:
    """The connection as root. Raises BackendError where the AMI's user may not become root without a password."""
    if door.user == "root":
        return through
    remote = f"sudo -n sh -c {shlex.quote(_server(own_key(door.keys)))}"
    proxy = shlex.join(["ssh", "-F", str(through.config), "-T", through.host, remote])
    entry = ssh.HostEntry(
        alias=name,
        trust="any",  # it is at the other end of a connection whose host key is pinned
        identity=door.keys / "id",
        proxy_command=proxy.replace("%", "%%"),
    )
    access = ssh.write_entry(door.keys, entry, sockets=ssh.socket_folder(door.keys / name))
    done = ssh.run(access, ["true"], timeout=_TRY, check=False)
    if done.code:
        why = done.tail[-1] if done.tail else f"ssh exited with {done.code}"
        raise BackendError(
            f"{door.user} logs in at {door.address} but does not become root: {why}",
            hint="the source AMI needs `sudo` without a password for that user, and openssh-server; or name another `user`",
        )
    return access


def _server(public: str) -> str:
    """The script that runs sshd on its standard input and output, with a host key and a configuration made when missing."""
    config = base64.b64encode(sshd.config(_ENVIRONMENT, pam=True).encode()).decode()
    folder = sshd.FOLDER
    return (
        f"test -e {folder}/host_key || {{ umask 077 && mkdir -p {folder} && mkdir -p /run/sshd && "
        f"echo {shlex.quote(public)} > {folder}/authorized_keys && echo {config} | base64 -d > {folder}/sshd_config && "
        f"ssh-keygen -q -t ed25519 -N '' -f {folder}/host_key; }} && "
        f"exec {sshd.PROGRAM} -i -f {folder}/sshd_config -E {folder}/sshd.log"
    )


def forget(name: str, keys: Path) -> None:
    """Removes what its connections left on this computer."""
    from ingot.system import files

    files.remove(ssh.socket_folder(keys / name))
