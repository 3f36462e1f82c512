"""Packer's QEMU builder as the peer: a disk booted, provisioned with Ansible over SSH, and shut down.

It is Debian 12's package, the last that Debian has, unpacked beside the bench and not installed. What it is measured with
is what makes it quick: an overlay on the base and no copy, a cache that never waits for the disk, no wait before it
connects, the seed and host key that Ingot's own machines get, SSH connections shared and Ansible's pipelining on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import platform
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.measure import CACHE, command
from ingot.backends.local import vm_qemu, vm_seed
from ingot.ports import MachineSpec

ROOT = CACHE / "packer"
_PACKAGE = "http://deb.debian.org/debian/pool/main/p/packer/packer_1.6.6+ds2-1+b1_amd64.deb"
_SHA256 = "7b690f62b30ba76e14769c4d40a2b883e1be6807c95f7fca22190c6f319c18c5"
_PROGRAM = ROOT / "usr/bin/packer"
_HOST = "10.0.2.2"
"""This computer's 127.0.0.1, as a guest of QEMU's user network reaches it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Packer:
    """A project folder with a `packer.json`, and the variables that it is built with."""

    folder: Path
    variables: Mapping[str, str]

    @property
    def accelerator(self) -> str:
        """What its machine runs on: `tcg` or `kvm`."""
        return self.variables["accelerator"]

    def build(self) -> float:
        """Seconds for a build. Nothing is kept from one to the next, so a changed role costs as much as the first."""
        shutil.rmtree(self.folder / "output", ignore_errors=True)
        words = [f"-var={name}={value}" for name, value in self.variables.items()]
        environment = {
            "CHECKPOINT_DISABLE": "1",
            "PACKER_CACHE_DIR": str(ROOT / "cache"),
            "PACKER_CONFIG_DIR": str(ROOT / "config"),
        }
        return command(
            [str(_PROGRAM), "build", "-color=false", *words, "packer.json"],
            environment=environment,
            cwd=self.folder,
        )


def unavailable() -> str:
    """Why Packer cannot be measured here, or nothing. Fetches it where it is not there yet."""
    if platform.machine() != "x86_64":
        return "the package is for x86_64"
    if not shutil.which("qemu-system-x86_64"):
        return "QEMU is not installed"
    if _PROGRAM.exists():
        return ""
    try:
        with urllib.request.urlopen(_PACKAGE, timeout=60) as answer:
            package: bytes = answer.read()
    except (urllib.error.URLError, OSError) as error:
        return f"its package cannot be fetched: {error}"
    if hashlib.sha256(package).hexdigest() != _SHA256:
        return "its package has another checksum"
    ROOT.mkdir(parents=True, exist_ok=True)
    file = ROOT / "packer.deb"
    file.write_bytes(package)
    command(["dpkg-deb", "--extract", str(file), str(ROOT)])
    return ""


def prepare(folder: Path, *, sha256: str, proxy: str) -> Packer:
    """Packer on a machine as Ingot makes them: accelerator, processors, memory, seed. `proxy`: a port of 127.0.0.1."""
    machine = {field.name: field.default for field in dataclasses.fields(MachineSpec)}
    home = ROOT / "machine"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    keys = vm_seed.make_keys(home)
    seed = vm_seed.write_seed(home, keys, instance="packer", hostname="localhost")
    variables = {
        "accelerator": vm_qemu.choose_accelerator(ROOT),
        "ansible": str(Path(sys.executable).parent / "ansible-playbook"),
        "cpus": str(machine["cpus"]),
        "memory": str(int(str(machine["memory"])) // 2**20),
        "key": str(keys.identity),
        "proxy": f"http://{_HOST}:{proxy}",
        "seed": str(seed),
        "sha256": sha256,
    }
    return Packer(folder=folder, variables=variables)
