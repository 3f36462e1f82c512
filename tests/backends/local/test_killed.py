"""SIGKILL at any moment leaves nothing but complete layers: no mount, loop device, export, process or half layer."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from ingot.backends.local.backend import open_backend
from ingot.errors import BackendError
from ingot.model.units import Seconds
from ingot.ports import BackendSettings
from ingot.system import process
from ingot.system.waits import Flag, poll
from tests.local_fixtures import Site, cached_base, key, sh, site

__all__ = ["cached_base", "site"]
pytestmark = pytest.mark.local
ROOT = Path(__file__).parents[3]

BUILDER = textwrap.dedent(
    """
    import os, sys
    from pathlib import Path
    from ingot.model.events import ignore
    from ingot.ports import BackendSettings, MachineSpec, Token
    from ingot.backends.local.backend import open_backend
    from ingot.system.waits import Flag
    from tests.local_fixtures import key, sh

    state, number = Path(sys.argv[1]), sys.argv[2]
    backend = open_backend(BackendSettings(state=state, directory=state / "runs" / number, root=state))
    parent = backend.layer(key("base"))
    print("ready", flush=True)
    resource = backend.hosts.machine(MachineSpec(parent=parent))
    ref = resource.create(Token(f"ingot-kill-{number}"))
    for part in range(3):
        machine = backend.hosts.attach(ref, emit=ignore, cancel=Flag())
        sh(machine, f"head -c 20M /dev/urandom > /root/part{part}; setsid sleep 200 >/dev/null 2>&1 &")
        backend.hosts.freeze(
            machine, key(f"kill-{number}-{part}"), labels={}, scanned=False, sealed=False, cancel=Flag()
        )
        print(f"layer {part}", flush=True)
    resource.delete(ref)
    print("done", flush=True)
    """
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Leftovers:
    """What on this computer still bears a mark, seen from the kernel's side."""

    processes: tuple[str, ...]
    mounts: tuple[str, ...]
    loops: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.processes or self.mounts or self.loops)


def find_leftovers(mark: str, loops_before: frozenset[str]) -> Leftovers:
    """Processes whose command line or mounts name the mark; loop devices that were not there before."""
    processes, mounts = [], set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            table = (folder / "mountinfo").read_text()
        except OSError:
            continue
        if mark in words and int(folder.name) != os.getpid():
            processes.append(words)
        mounts |= {line for line in table.splitlines() if mark in line}
    return Leftovers(
        processes=tuple(processes),
        mounts=tuple(sorted(mounts)),
        loops=tuple(sorted(own_loops() - loops_before)),
    )


def own_loops() -> frozenset[str]:
    """The loop devices in use, each told from its later uses. Others on this computer may come and go."""
    found = set()
    for state in Path("/sys/block").glob("loop*"):
        if (state / "loop").is_dir():
            found.add(f"{state.name} {(state / 'diskseq').read_text().strip()}")
    return frozenset(found)


def start_builder(state: Path, number: str) -> subprocess.Popen[str]:
    """A process, in a group of its own, that makes three layers."""
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(state), number],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )


def kill(builder: subprocess.Popen[str], *, group: bool) -> str:
    """Kills the builder, alone or with its group; what it had said."""
    if group:
        os.killpg(builder.pid, signal.SIGKILL)
    else:
        builder.kill()
    return builder.communicate()[0]


def assert_clean(state: Path, number: str, said: str, *, loops: frozenset[str]) -> None:
    """Nothing runs or is mounted any more; what layers there are, are whole; the next process goes on."""
    mark = f"ingot-kill-{number}"
    poll(
        lambda: (
            None
            if find_leftovers(mark, frozenset()).processes or find_leftovers(mark, loops).mounts
            else True
        ),
        what="the end of all that the killed process had started",
        every=Seconds(0.05),
        deadline=Seconds(30.0),
        cancel=Flag(),
    )
    backend = open_backend(BackendSettings(state=state, directory=state / "runs" / "after", root=state))
    promised = {int(line.split()[1]) for line in said.splitlines() if line.startswith("layer")}
    for part in range(3):
        found = backend.layer(key(f"kill-{number}-{part}"))
        assert found or part not in promised, f"layer {part} was promised, and is lost"
        if found:
            backend.store.verify(found.content)
            process.run(["qemu-img", "check", found.ref], timeout=Seconds(60.0))
    resource = backend.resource("local.machine")
    # Deleting waits for the loop device too.
    ref = resource.find(mark)  # type: ignore[arg-type]
    if ref:
        resource.delete(ref)
    assert not list((state / "local" / "work").glob("*"))
    assert backend.layer(key("base"))


@pytest.fixture(scope="module")
def moments(site: Site) -> tuple[float, float]:
    """How long a whole build of three layers takes here, from `ready` to `done`: kills are spread over that."""
    builder = start_builder(site.state, "whole")
    assert builder.stdout
    times = {}
    for line in builder.stdout:
        times[line.split()[0]] = time.monotonic()
    builder.communicate()
    assert builder.returncode == 0
    return 0.0, times["done"] - times["ready"]


def kill_once(site: Site, seed: int, span: tuple[float, float]) -> None:
    dice = random.Random(seed)
    loops = own_loops()
    builder = start_builder(site.state, str(seed))
    assert builder.stdout
    said = builder.stdout.readline()
    time.sleep(dice.uniform(*span))
    said += kill(builder, group=dice.random() < 0.5)
    assert_clean(site.state, str(seed), said, loops=loops)


@pytest.mark.parametrize("seed", range(10))
def test_killed_at_a_random_time(site: Site, seed: int, moments: tuple[float, float]) -> None:
    kill_once(site, seed, moments)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 150))
def test_killed_at_many_random_times(site: Site, seed: int, moments: tuple[float, float]) -> None:
    kill_once(site, seed, moments)


def test_killed_while_much_is_unwritten(site: Site) -> None:
    """The storage daemon and what is mounted from it die at once; neither may wait for the other."""
    number = "dirty"
    script = BUILDER.replace(
        "head -c 20M /dev/urandom > /root/part{part}; setsid",
        "cat /dev/zero | tr '\\\\\\\\0' x > /root/big & setsid",
    )
    assert script != BUILDER
    for attempt in range(3):
        builder = subprocess.Popen(
            [sys.executable, "-c", script, str(site.state), f"{number}{attempt}"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT, start_new_session=True,
        )  # fmt: skip
        assert builder.stdout
        builder.stdout.readline()
        time.sleep(1.0 + attempt / 3)
        said = kill(builder, group=True)
        assert_clean(site.state, f"{number}{attempt}", said, loops=own_loops())


def test_killed_worker_is_told(site: Site) -> None:
    """Whoever ends the process that holds the disk: the build fails with a sentence, and cleans up."""
    with site.machine("ingot-worker-gone") as machine:
        sh(machine, "true")
        holder = site.state / "local" / "work" / "ingot-worker-gone" / "holder"
        os.kill(int(holder.read_text().split()[0]), signal.SIGKILL)
        with pytest.raises(BackendError, match="holds the disk ended"):
            site.freeze(machine, "worker-gone")
    assert site.backend.layer(key("worker-gone")) is None
    assert not find_leftovers("ingot-worker-gone", own_loops())


def test_two_processes_at_once(site: Site) -> None:
    builders = [start_builder(site.state, f"both{number}") for number in range(2)]
    said = [builder.communicate(timeout=240)[0] for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0]
    assert all("done" in text for text in said)
    for number in range(2):
        found = site.backend.layer(key(f"kill-both{number}-2"))
        assert found
        assert len(site.backend.store.chain(found.content) or ()) == 4
