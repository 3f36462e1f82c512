"""Peak memory of the whole process tree while a disk of 100 GiB virtual size is built and exported."""

from __future__ import annotations

import os
import shutil
import subprocess
import time

import psutil

from bench.measure import CACHE, INGOT, Row, surroundings

LIMIT = 300.0

_DEFINITION = """\
name: bench-memory
targets:
  local: {backend: local, disk: 100 GiB}
bases:
  debian-12:
    local: {debootstrap: bookworm}
images:
  large:
    base: debian-12
    targets: [local]
    steps:
      - packages: [hwloc]
"""


def measure(rounds: int) -> list[Row]:
    """One build and one export of each kind that streams; `rounds` does not apply to a peak."""
    del rounds
    folder = CACHE / "projects" / "memory"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "ingot.yaml").write_text(_DEFINITION)
    rows = [Row(name="build of 100 GiB", value=peak(["build"], folder), limit=LIMIT, unit="MiB")]
    for kind in ("qcow2", "raw"):
        words = ["export", "large", "--format", kind, "-o", str(folder / f"large.{kind}")]
        rows.append(
            Row(name=f"export of 100 GiB as {kind}", value=peak(words, folder), limit=LIMIT, unit="MiB")
        )
    shutil.rmtree(folder)
    return rows


def peak(words: list[str], folder: os.PathLike[str]) -> float:
    """The largest sum of resident memory of the process and its children, in MiB, looked at every 50 ms.

    Proportional shares (PSS) are summed, so that a page shared by forks counts once.
    """
    environment = surroundings({"INGOT_STATE": str(CACHE / "state"), "CI": "1"})
    process = subprocess.Popen([INGOT, *words, "-C", folder], env=environment, stdin=subprocess.DEVNULL)
    root = psutil.Process(process.pid)
    highest = 0.0
    while process.poll() is None:
        highest = max(highest, _tree(root))
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"bench: ingot {' '.join(words)} exited with {process.returncode}")
    return highest


def _tree(root: psutil.Process) -> float:
    total = 0
    try:
        members = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0.0
    for member in members:
        try:
            total += member.memory_full_info().pss
        except psutil.Error:
            continue
    return total / 2**20
