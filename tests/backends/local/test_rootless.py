"""A disk shown without root: by a process that is nobody special in a user namespace."""

from __future__ import annotations

import json
import pwd
import sys
from pathlib import Path

import pytest

from ingot.backends.local import chain, holder
from ingot.model.units import Bytes, Seconds
from ingot.system import process
from ingot.system.waits import Flag
from tests.local_fixtures import cached_base

__all__ = ["cached_base"]
pytestmark = pytest.mark.local

# Somebody whom every system knows: OpenSSH's programs refuse to work for others.
UID = pwd.getpwnam("nobody").pw_uid
NOBODY = ("unshare", "--user", f"--map-user={UID}", f"--map-group={UID}", "--")
"""Runs what follows as an ordinary user, who may still read what belongs to the one who started it."""
LOOK = """
import json, os, sys
from pathlib import Path
from ingot.backends.local import rootless
from ingot.system.waits import Flag
with rootless.shown([Path(sys.argv[1])], Path(sys.argv[2]), cancel=Flag()) as (raw, tree):
    with raw.open("rb") as disk:
        magic = disk.read(1024)[512:520].decode()
    found = {"uid": os.geteuid(), "magic": magic, "size": raw.stat().st_size, "shadow": (tree / "etc/shadow").read_text()[:5]}
print(json.dumps(found))
"""


def look(disk: Path, folder: Path) -> process.Completed:
    argv = [*NOBODY, sys.executable, "-c", LOOK, str(disk), str(folder)]
    env = process.environment({"PYTHONPATH": ":".join(sys.path)})
    return process.run(argv, env=env, timeout=Seconds(120.0), check=False)


def test_raw_disk_and_tree_are_shown(cached_base: Path, tmp_path: Path) -> None:
    done = look(cached_base, tmp_path / "shown")
    assert done.code == 0, done.tail
    found = json.loads(done.stdout)
    assert found == {"uid": UID, "magic": "EFI PART", "size": 3 * 2**30, "shadow": found["shadow"]}
    assert ":" in found["shadow"] or found["shadow"].isalpha()
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


CLEAR = """
import sys
from pathlib import Path
from ingot.backends.local import rootless
from ingot.system.waits import Flag
rootless.clear_free([Path(name) for name in sys.argv[2:]], Path(sys.argv[1]), cancel=Flag())
"""


def test_what_was_deleted_is_overwritten(cached_base: Path, tmp_path: Path) -> None:
    secret = "the horse is correct, the battery is a staple"
    overlay = tmp_path / "disk.qcow2"
    chain.create(overlay, Bytes(3 * 2**30))
    with holder.hold(tmp_path / "ns") as held:
        root, _ = held.export([cached_base, overlay], writable=True).partitions[-1]
        held.mount()
        write = ["sh", "-c", f"echo '{secret}' >{held.root}/root/note; sync"]
        held.run(write, timeout=Seconds(60.0), cancel=Flag())
        held.unmount(trim=False)
        # Not by the kernel, which gives back what it frees: newer QEMUs let go of any piece of it.
        held.tool(["debugfs", "-w", "-R", "rm /root/note", f"{held.raw}?offset={root.start}"])
        held.unexport()
    assert in_bytes(secret, [cached_base, overlay], tmp_path), "a deleted file is still in its blocks"
    argv = [*NOBODY, sys.executable, "-c", CLEAR, str(tmp_path / "back"), str(cached_base), str(overlay)]
    env = process.environment({"PYTHONPATH": ":".join(sys.path)})
    process.run(argv, env=env, timeout=Seconds(120.0))
    assert not in_bytes(secret, [cached_base, overlay], tmp_path)
    assert not chain.read_header(overlay).dirty


def in_bytes(text: str, files: list[Path], folder: Path) -> bool:
    """Whether the bytes of a disk, all of them, have the text."""
    flat = folder / "flat.raw"
    process.run(["qemu-img", "convert", "-O", "raw", chain.nested(files), str(flat)], timeout=Seconds(120.0))
    found = process.run(["grep", "--text", "--quiet", text, str(flat)], timeout=Seconds(120.0), check=False)
    flat.unlink()
    return found.code == 0


def test_a_disk_that_only_root_can_mount_is_refused(tmp_path: Path) -> None:
    disk = tmp_path / "disk.qcow2"
    process.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "64M"], timeout=Seconds(30.0))
    done = look(disk, tmp_path / "shown")
    assert done.code and "without root only ext4" in "\n".join(done.tail)
