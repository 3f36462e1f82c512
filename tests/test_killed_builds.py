"""SIGKILL before and after every effect of a real build: the next build works, and nothing else is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.local, pytest.mark.network]

DEFINITION = """\
name: killed
targets:
  local: {backend: local, disk: 4 GiB}
bases:
  debian-12:
    local: {debootstrap: bookworm}
variables:
  number: {type: string, default: "0"}
images:
  node:
    base: debian-12
    targets: [local]
    steps:
      - script: {inline: "echo ${number} > /etc/number"}
"""
PROGRAM = "from ingot.testing import kill; armed = kill.arm(); from ingot.cli.main import main; main()"
MOST = 60


def build(project: Path, state: Path, *, number: int, kill_at: int = 0) -> subprocess.CompletedProcess[bytes]:
    """A build in a process group of its own; `kill_at` names the moment at which it kills itself."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, "build", "--json", "-C", str(project), "--var", f"number={number}"],
        env={**os.environ, "INGOT_STATE": str(state), "INGOT_KILL_AT": str(kill_at)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        start_new_session=True,
    )


def leftovers(state: Path) -> list[str]:
    """Work folders, mounts, loop devices and processes that still bear the state folder's name."""
    mark = str(state)
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if mark in line]
    loops = [
        str(file) for file in Path("/sys/block").glob("loop*/loop/backing_file") if mark in file.read_text()
    ]
    processes = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if mark in words:
            processes.append(words.replace("\0", " "))
    work = [str(entry) for entry in (state / "local" / "work").glob("*")]
    return [*mounts, *loops, *processes, *work]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, shared_state: Path) -> Path:
    """A project whose base is made already, so that each build is about the layers above it."""
    if os.geteuid() != 0:
        pytest.skip("chroot machines need root")
    folder = tmp_path_factory.mktemp("killed")
    (folder / "ingot.yaml").write_text(DEFINITION)
    done = build(folder, shared_state, number=0)
    assert done.returncode == 0, done.stderr.decode()
    return folder


def kill_and_build_again(project: Path, state: Path, moment: int) -> bool:
    """Whether the build reached the moment and died; then the next one must succeed and leave nothing else."""
    killed = build(project, state, number=moment, kill_at=moment)
    reached = killed.returncode == -signal.SIGKILL
    assert reached or killed.returncode == 0, killed.stderr.decode()
    done = build(project, state, number=moment)
    assert done.returncode == 0, done.stderr.decode()
    (outcome,) = json.loads(done.stdout)["outcomes"]
    assert outcome["status"] in ("built", "reused")
    assert not leftovers(state)
    return reached


@pytest.mark.parametrize("moment", [2, 6, 10, 14])
def test_some_moments(project: Path, shared_state: Path, moment: int) -> None:
    assert kill_and_build_again(project, shared_state, moment)


@pytest.mark.slow
def test_every_moment(project: Path, shared_state: Path) -> None:
    moments = 0
    while kill_and_build_again(project, shared_state, moments + 1):
        moments += 1
        assert moments < MOST, "a build has fewer moments than this"
    assert moments > 14


def test_two_builds_at_once_share_their_layers(project: Path, shared_state: Path) -> None:
    words = [sys.executable, "-m", "ingot", "build", "--json", "-C", str(project), "--var", "number=twice"]
    environment = {**os.environ, "INGOT_STATE": str(shared_state)}
    both = [
        subprocess.Popen(
            words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    outcomes = []
    for process in both:
        answer, said = process.communicate(timeout=300)
        assert process.returncode == 0, said.decode()
        outcomes += json.loads(answer)["outcomes"]
    assert sorted(outcome["status"] for outcome in outcomes) == ["built", "reused"]
    assert outcomes[0]["digest"] == outcomes[1]["digest"]
    assert not leftovers(shared_state)
