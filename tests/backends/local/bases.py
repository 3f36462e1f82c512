"""Real bases for tests, made once for each state of the code that makes them and kept below `.cache/`."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ingot.backends.local.base import make_base
from ingot.model.definition import DebootstrapBase, DiskImageBase
from ingot.model.events import ignore
from ingot.model.plan import Base, base_key
from ingot.model.units import Bytes
from ingot.ports import BackendSettings
from ingot.system import files, locks
from ingot.system.waits import Flag

ROOT = Path(__file__).parents[3]
CACHE = ROOT / ".cache"
_CODE = ("src/ingot/disk/layout.py", "src/ingot/disk/bootloader.py", "src/ingot/backends/local/archive.py",
         "src/ingot/backends/local/debootstrap.py", "src/ingot/backends/local/assembly/*")  # fmt: skip
SIZE = Bytes(4 * 2**30)


def plan(source: DebootstrapBase | DiskImageBase, disk: int = SIZE) -> Base:
    """A pinned base of this source."""
    key = base_key(source, arch="x86_64", disk=disk, pins={})
    return Base(name="base", source=source, arch="x86_64", disk=Bytes(disk), key=key)


def settings(state: Path, root: Path | None = None) -> BackendSettings:
    """Settings of a backend below a folder, for a project at `root`."""
    return BackendSettings(state=state, directory=state / "run", root=root or state)


def debian(suite: str) -> Path:
    """The disk of a Debian base, made now if it is not kept. Never written to."""
    mark = hashlib.sha256(suite.encode())
    for path in sorted(path for pattern in _CODE for path in ROOT.glob(pattern)):
        mark.update(path.read_bytes())
    kept = CACHE / f"base-{suite}-{mark.hexdigest()[:12]}.qcow2"
    with locks.lock(CACHE / f"base-{suite}.lock"):
        if not kept.exists():
            work = CACHE / f"base-{suite}"
            files.remove(work)
            work.mkdir(parents=True)
            source = DebootstrapBase(suite=suite)
            make_base(plan(source), work / "disk.qcow2", settings=settings(CACHE), emit=ignore, cancel=Flag())
            for old in CACHE.glob(f"base-{suite}-*.qcow2"):
                files.remove(old)
            (work / "disk.qcow2").rename(kept)
            files.remove(work)
    return kept
