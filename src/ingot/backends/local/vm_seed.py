"""The first thing a virtual machine learns: who may log in, and which host key it has, known before it answers.

An image with cloud-init is told through a NoCloud seed, a small FAT disk labelled CIDATA
(https://docs.cloud-init.io, "NoCloud"). One without it gets the keys, and a network if it has none, written into
the throw-away overlay, which takes root.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from ingot.model.units import Seconds
from ingot.system import process
from ingot.system.files import write_atomically
from ingot.system.ssh import make_key

_SEED_KIB = 1440
_NETWORK = """\
[Match]
Name=en* eth*

[Network]
DHCP=yes
"""
_MANAGERS = (
    "etc/netplan",
    "etc/NetworkManager/system-connections",
    "etc/systemd/network",
    "etc/network/interfaces.d",
    "etc/sysconfig/network-scripts",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Keys:
    """Keys made for one machine: `identity` opens it (private key's path), `host` is its own."""

    identity: Path
    public: str
    host: Path
    host_public: str


def make_keys(folder: Path, *, host: str = "host") -> Keys:
    """Fresh ed25519 keys in a folder, or those that are there; `host` names the file of the machine's own."""
    identity, host_key = folder / "id", folder / host
    return Keys(identity=identity, public=make_key(identity), host=host_key, host_public=make_key(host_key))


def write_seed(folder: Path, keys: Keys, *, instance: str, hostname: str, grows: bool = True) -> Path:
    """The seed disk in the machine's folder. cloud-init applies it as it would a cloud's user data.

    Unless it `grows`, the root file system is left as large as it is.
    """
    user_data: dict[str, object] = {
        "disable_root": False,
        "ssh_authorized_keys": [keys.public],
        "ssh_keys": {"ed25519_private": keys.host.read_text(), "ed25519_public": keys.host_public},
    }
    if not grows:
        user_data |= {"growpart": {"mode": "off"}, "resize_rootfs": False}
    files = {
        # JSON is YAML.
        "user-data": "#cloud-config\n" + json.dumps(user_data, indent=1) + "\n",
        "meta-data": json.dumps({"instance-id": instance, "local-hostname": hostname}) + "\n",
    }
    seed = folder / "seed"
    for name, text in files.items():
        write_atomically(folder / name, text, mode=0o600)
    words = ["mformat", "-C", "-f", str(_SEED_KIB), "-v", "CIDATA", "-i", str(seed), "::"]
    process.run(words, timeout=Seconds(30.0))
    sources = [str(folder / name) for name in files]
    process.run(["mcopy", "-i", str(seed), *sources, "::/"], timeout=Seconds(30.0))
    return seed


def has_cloud_init(root: Path) -> bool:
    """Whether cloud-init will act on the seed on the first boot of the system at `root`."""
    there = any((root / name).exists() for name in ("usr/bin/cloud-init", "usr/local/bin/cloud-init"))
    return there and not (root / "etc/cloud/cloud-init.disabled").exists()


def write_into(root: Path, keys: Keys) -> None:
    """Writes the keys into an image without cloud-init, mounted at `root`; and asks for an address where nothing does."""
    folder = _folder(root, "root/.ssh", mode=0o700)
    _write(folder / "authorized_keys", f"{keys.public}\n", mode=0o600)
    folder = _folder(root, "etc/ssh", mode=0o755)
    _write(folder / "ssh_host_ed25519_key", keys.host.read_text(), mode=0o600)
    _write(folder / "ssh_host_ed25519_key.pub", f"{keys.host_public}\n", mode=0o644)
    if (root / "usr/lib/systemd/systemd-networkd").exists() and not _has_network(root):
        _write(_folder(root, "etc/systemd/network", mode=0o755) / "99-ingot.network", _NETWORK, mode=0o644)
        wants = _folder(root, "etc/systemd/system/multi-user.target.wants", mode=0o755)
        unit = wants / "systemd-networkd.service"
        if not unit.is_symlink():
            unit.symlink_to("/lib/systemd/system/systemd-networkd.service")


def _has_network(root: Path) -> bool:
    interfaces = root / "etc/network/interfaces"
    plain = interfaces.is_file() and "inet" in interfaces.read_text(errors="replace").replace(
        "inet loopback", ""
    )
    manager = (root / "usr/sbin/NetworkManager").exists()
    return (
        plain
        or manager
        or any(
            path.is_file() for name in _MANAGERS for path in (root / name).glob("*") if path.name != "README"
        )
    )


def _folder(root: Path, name: str, *, mode: int) -> Path:
    """The folder, made where it is missing; refuses to go through a link, which could lead out of `root`."""
    path = root
    for part in Path(name).parts:
        path = path / part
        if path.is_symlink():
            raise OSError(f"{path} is a link")
        if not path.exists():
            path.mkdir(mode=mode)
    return path


def _write(path: Path, text: str, *, mode: int) -> None:
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(fd, "w") as file:
        file.write(text)
