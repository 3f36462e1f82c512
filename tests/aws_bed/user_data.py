"""What an instance does with its user-data where the disk has no cloud-init. Where it has, that does it all.

Understood as cloud-init documents it ("User-data formats", "Module reference"): a script (`#!`), and of `#cloud-config`
the keys `ssh_keys`, `ssh_authorized_keys`, `write_files` (path, content, permissions, encoding base64), `bootcmd`,
`runcmd`. Either may be compressed with gzip. Other keys are named in the console's log.
"""

from __future__ import annotations

import base64
import gzip
import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_KNOWN = {"ssh_keys", "ssh_authorized_keys", "write_files", "bootcmd", "runcmd"}


@dataclass(frozen=True, kw_only=True, slots=True)
class UserData:
    """What is to be done: keys and files before the system starts, a script (sh, as root) when it has."""

    keys: tuple[str, ...] = ()
    host_keys: dict[str, str]
    files: tuple[tuple[str, int, bytes], ...] = ()
    script: str = ""
    unknown: tuple[str, ...] = ()


def read(data: bytes) -> UserData:
    """What the text asks for; of a text of an unknown kind nothing, with the kind under `unknown`."""
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    text = data.decode(errors="replace")
    first = text.partition("\n")[0].strip()
    if not text.strip():
        return UserData(host_keys={})
    if first.startswith("#!"):
        quoted = shlex.quote(base64.b64encode(data).decode())
        script = f"f=$(mktemp)\necho {quoted} | base64 -d > $f\nchmod 700 $f\n$f\n"
        return UserData(host_keys={}, script=script)
    if first != "#cloud-config":
        return UserData(host_keys={}, unknown=(first[:60],))
    config: dict[str, Any] = yaml.safe_load(text) or {}
    commands = [*config.get("bootcmd", ()), *config.get("runcmd", ())]
    return UserData(
        keys=tuple(config.get("ssh_authorized_keys", ())),
        host_keys=dict(config.get("ssh_keys", {})),
        files=tuple(_file(about) for about in config.get("write_files", ())),
        script="\n".join(_command(command) for command in commands),
        unknown=tuple(sorted(config.keys() - _KNOWN)),
    )


def _command(command: str | list[str]) -> str:
    return command if isinstance(command, str) else shlex.join(str(word) for word in command)


def _file(about: dict[str, Any]) -> tuple[str, int, bytes]:
    content = str(about.get("content", "")).encode()
    if about.get("encoding") in ("b64", "base64"):
        content = base64.b64decode(content)
    return about["path"], int(str(about.get("permissions", "0644")), 8), content


def write_seed(folder: Path, *, name: str, keys: tuple[str, ...], text: bytes) -> None:
    """The files of a NoCloud seed that tells cloud-init what EC2's metadata service would."""
    meta = {"instance-id": name, "public-keys": list(keys)}
    (folder / "meta-data").write_text(json.dumps(meta))
    (folder / "user-data").write_bytes(text or b"#cloud-config\n{}\n")
    (folder / "vendor-data").write_text("#cloud-config\n{}\n")
