"""Two hundred builds that wait at once, in one process."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from ingot.model.units import Seconds
from ingot.system.waits import Flag, poll

MANY = 200
MOST = 300 * 2**20
DEFINITION = f"""\
name: many
targets:
  local: {{backend: local, disk: 1 GiB}}
bases:
  tiny:
    local: {{image: base.img}}
images:
  node:
    base: tiny
    targets: [local]
    matrix: {{number: {[f"n{number}" for number in range(MANY)]}}}
    steps:
      - packages: ["package-${{number}}"]
"""


def peak(process: int) -> int:
    """The most memory that a process has had resident, in bytes."""
    status = Path(f"/proc/{process}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def count(events: Path, kind: str) -> int:
    return events.read_text().count(f'{{"event": "{kind}"') if events.exists() else 0


def test_two_hundred_waiting_builds_take_less_than_300_mib(tmp_path: Path) -> None:
    """Each has asked for a machine, which takes ten minutes to boot; then all are told to stop."""
    (tmp_path / "ingot.yaml").write_text(DEFINITION)
    (tmp_path / "base.img").write_bytes(b"a disk")
    events = tmp_path / "events.jsonl"
    words = ["build", "-j", str(MANY), "--simulate-with", "boot=10m", "--json", "--events", str(events)]
    process = subprocess.Popen(
        [sys.executable, "-m", "ingot", *words],
        cwd=tmp_path,
        env={**os.environ, "INGOT_STATE": str(tmp_path / "state")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def all_wait() -> bool | None:
        assert process.poll() is None, process.communicate()
        return True if count(events, "ResourceOpened") == MANY else None

    try:
        poll(all_wait, what="the last machine", every=Seconds(0.2), deadline=Seconds(600.0), cancel=Flag())
        assert count(events, "ResourceClosed") == 0
        process.send_signal(signal.SIGINT)
        poll(
            lambda: True if count(events, "ResourceClosed") == MANY else None,
            what="the last cleanup",
            every=Seconds(0.05),
            deadline=Seconds(600.0),
            cancel=Flag(),
        )
        taken = peak(process.pid)
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130, err
    assert json.loads(out)["error"]["code"] == 130
    assert taken < MOST, f"{taken / 2**20:.0f} MiB"
    print(f"{MANY} waiting builds: {taken / 2**20:.0f} MiB")  # noqa: T201 - the figure, for who runs it with -s
