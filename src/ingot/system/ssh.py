"""OpenSSH's own client, for every machine: one config file a run, one Host entry a machine.

Nobody's `~/.ssh` is read or written. Connections are shared (ControlMaster) over a socket in a short folder of
its own, for a socket's path may not exceed 107 bytes.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ingot.errors import BackendError
from ingot.model.units import Seconds
from ingot.ports import Cancel, SshAccess
from ingot.system import files, process

_MAKING = threading.Lock()  # builds side by side share the run's key


@dataclass(frozen=True, kw_only=True, slots=True)
class HostEntry:
    """What OpenSSH must know of one machine. `host_key` is a public key line; it is the only one accepted.

    Without one, `trust` says what is: the key that it shows `first`, from then on that one alone; or `any`, where the
    way to it is through another machine that is known.
    """

    alias: str
    host_key: str = ""
    trust: Literal["first", "any"] = "first"
    identity: Path
    hostname: str = "127.0.0.1"
    port: int = 22
    user: str = "root"
    proxy_command: str = ""
    proxy_jump: str = ""


def write_entry(folder: Path, entry: HostEntry, *, sockets: Path) -> SshAccess:
    """Writes the entry into `folder` (config, known_hosts) and returns how to reach it.

    The config is complete in itself: `ssh -F <config> <alias>` works for people and for Ansible alike.
    """
    known = folder / f"{entry.alias}.known_hosts"
    if entry.host_key:
        files.write_atomically(known, f"{entry.alias} {entry.host_key.strip()}\n", mode=0o600)
    strict = "yes" if entry.host_key else "accept-new" if entry.trust == "first" else "no"
    options = {
        "HostName": entry.hostname,
        "Port": str(entry.port),
        "User": entry.user,
        "IdentityFile": str(entry.identity),
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "HostKeyAlias": entry.alias,
        "UserKnownHostsFile": "/dev/null" if strict == "no" else str(known),
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": strict,
        "UpdateHostKeys": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "BatchMode": "yes",
        "LogLevel": "ERROR",
        "ControlMaster": "auto",
        "ControlPath": str(sockets / "%C"),
        "ControlPersist": "60s",
        "ServerAliveInterval": "15",
        "ServerAliveCountMax": "8",
        "ConnectTimeout": "15",
        "Compression": "no",
        "SendEnv": "none",
    }
    if entry.proxy_command:
        options["ProxyCommand"] = entry.proxy_command
    if entry.proxy_jump:
        options["ProxyJump"] = entry.proxy_jump
    text = f"Host {entry.alias}\n" + "".join(f"  {name} {value}\n" for name, value in options.items())
    config = folder / f"{entry.alias}.config"
    files.write_atomically(config, text, mode=0o600)
    return SshAccess(config=config, host=entry.alias)


def make_key(path: Path) -> str:
    """An ed25519 key pair at `path` and `path.pub`, made for one run; returns the public line."""
    with _MAKING:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ingot", "-f", str(path)]
            process.run(words, timeout=Seconds(30.0))
    return path.with_name(path.name + ".pub").read_text().strip()


def argv(access: SshAccess, *words: str, terminal: bool = False) -> list[str]:
    """The ssh command line; `words` are the remote command's, quoted here for the remote shell."""
    flags = ["-t"] if terminal else ["-T"]
    remote = [shlex.join(words)] if words else []
    return ["ssh", "-F", str(access.config), *flags, access.host, *remote]


def run(
    access: SshAccess,
    words: Sequence[str],
    *,
    timeout: Seconds,
    cancel: Cancel | None = None,
    input: bytes | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    on_line: Callable[[str, str], None] | None = None,
    check: bool = True,
    kept: bool = True,
) -> process.Completed:
    """Runs a command on the machine. Exit code 255 is OpenSSH's own: the machine was not reached or was lost."""
    remote = [*(["env", *(f"{name}={value}" for name, value in env.items())] if env else []), *words]
    return process.run(
        argv(access, *remote),
        timeout=timeout,
        cancel=cancel,
        input=input,
        log=log,
        on_line=on_line,
        check=check,
        kept=kept,
    )


def close(access: SshAccess) -> None:
    """Ends the shared connection, if there is one."""
    process.run(
        ["ssh", "-F", str(access.config), "-O", "exit", access.host], timeout=Seconds(10.0), check=False
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
