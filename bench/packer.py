"""Packer's QEMU builder as the peer: a disk booted, provisioned with Ansible over SSH, and shut down.

It is Debian 12's package, unpacked beside the bench and not installed. What it is measured with is what makes it quick: an overlay on the base and no copy, a cache that never waits for the disk, no wait before it
connects, the seed and host key that Ingot's own machines get, SSH connections shared and Ansible's pipelining on.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.measure import CACHE, command
from ingot.backends.local import vm_seed
from ingot.ports import MachineSpec
from ingot.system import files

ROOT = CACHE / "packer"
_PACKAGE = "http://deb.debian.org/debian/pool/main/p/packer/packer_1.6.6+ds2-1+b1_amd64.deb"
_SHA256 = "7b690f62b30ba76e14769c4d40a2b883e1be6807c95f7fca22190c6f319c18c5"
_FILE = ROOT / "packer.deb"
_PROGRAM = ROOT / "usr/bin/packer"


@dataclass(frozen=True, kw_only=True, slots=True)
class Packer:
    """A project folder with a `packer.json`, and the variables that it is built with."""

    folder: Path
    variables: Mapping[str, str]

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
    """Why Packer cannot be measured here, or nothing. Fetches its package where it is not there yet."""
    if not _FILE.exists():
        ROOT.mkdir(parents=True, exist_ok=True)
        try:
            with urllib.request.urlopen(_PACKAGE, timeout=60) as answer:
                _FILE.write_bytes(answer.read())
        except OSError as error:
            return f"its package cannot be fetched: {error}"
    if files.file_digest(_FILE) != f"sha256:{_SHA256}":
        _FILE.unlink()
        return "its package has another checksum"
    return ""


def prepare(folder: Path, *, sha256: str, accelerator: str, proxy: str) -> Packer:
    """Unpacks it, for a machine as Ingot makes them: processors, memory, seed. `proxy` is as guests reach it."""
    command(["dpkg-deb", "--extract", str(_FILE), str(ROOT)])
    usual: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(MachineSpec)}
    home = ROOT / "machine"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    keys = vm_seed.make_keys(home)
    seed = vm_seed.write_seed(home, keys, instance="packer", hostname="localhost")
    variables = {
        "accelerator": accelerator,
        "ansible": str(Path(sys.executable).parent / "ansible-playbook"),
        "cpus": str(usual["cpus"]),
        "memory": str(usual["memory"] // 2**20),
        "key": str(keys.identity),
        "proxy": proxy,
        "seed": str(seed),
        "sha256": sha256,
    }
    return Packer(folder=folder, variables=variables)
