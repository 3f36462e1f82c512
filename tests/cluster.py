"""A dask.distributed cluster on the loopback interface: a scheduler and workers, each a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ingot.model.units import Seconds
from ingot.system.waits import Flag, poll

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """Its address for `--executor`, and its workers."""

    address: str
    scheduler: subprocess.Popen[bytes]
    workers: tuple[subprocess.Popen[bytes], ...]

    def worker_of(self, process: int) -> subprocess.Popen[bytes]:
        """The worker that a process descends from."""
        by_number = {worker.pid: worker for worker in self.workers}
        while process > 1:
            if process in by_number:
                return by_number[process]
            about = Path(f"/proc/{process}/stat").read_text()
            process = int(about.rpartition(")")[2].split()[1])
        raise AssertionError("no worker started this process")


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    paths = f"{ROOT / 'src'}:{ROOT}"
    return {**kept, "LC_ALL": "C.UTF-8", "PYTHONPATH": paths, **more}


@contextmanager
def started(folder: Path, *words: str, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the cluster, ended at the end; what it says is in a log in the folder."""
    with (folder / f"{words[0].rpartition('.')[2]}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=folder,
            env=_environment(more),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()


@contextmanager
def cluster(folder: Path, *, workers: int = 2, **more: str) -> Iterator[Cluster]:
    """A scheduler and its workers, with one thread each; `more` is their environment."""
    folder.mkdir(parents=True, exist_ok=True)
    known = folder / "scheduler.json"
    calm = ("--no-dashboard", "--host", "127.0.0.1")
    with ExitStack() as stack:
        words = ("distributed.cli.dask_scheduler", *calm, "--port", "0", "--scheduler-file", str(known))
        scheduler = stack.enter_context(started(folder, *words, **more))

        def address() -> str | None:
            assert scheduler.poll() is None, (folder / "dask_scheduler.log").read_text()
            try:
                return str(json.loads(known.read_text())["address"])
            except (FileNotFoundError, ValueError):
                return None

        found = poll(
            address, what="the scheduler", every=Seconds(0.1), deadline=Seconds(300.0), cancel=Flag()
        )
        words = ("distributed.cli.dask_worker", found, *calm, "--no-nanny", "--nthreads", "1")
        hands = tuple(stack.enter_context(started(folder, *words, **more)) for _ in range(workers))
        log = folder / "dask_worker.log"
        poll(
            lambda: True if log.read_text().count("Registered to:") >= workers else None,
            what="the workers",
            every=Seconds(0.1),
            deadline=Seconds(300.0),
            cancel=Flag(),
        )
        yield Cluster(address=found.replace("tcp://", "dask://"), scheduler=scheduler, workers=hands)
