"""An upload to EBS beside a bare loop of the SDK's calls, into a sink in a process of its own; and its memory.

`python -m bench.upload ours|bare URL GIB [FILE]` is what is compared: each prints its seconds and its peak of memory in KiB.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.backends.aws.disks import Held, clients

from bench.measure import CACHE, HERE, Row, beside, surroundings
from ingot.backends.aws.delta import ZEROS, ZEROS_SUM, blocks_in
from ingot.backends.aws.ebs_direct import THREADS, Wish
from ingot.backends.aws.upload import Order, upload
from ingot.backends.local import chain
from ingot.backends.local.disk_blocks import ChainDisk
from ingot.model.digest import digest
from ingot.model.events import ignore
from ingot.model.plan import ContentId
from ingot.model.units import Bytes
from ingot.ports import Token
from ingot.system.waits import Flag

LIMIT = 256.0
SHARE = 0.8
"""How much of what a bare loop reaches has to be reached."""
_LARGE, _DENSE = 100, 2


def measure(rounds: int) -> list[Row]:
    """A large sparse disk once, for its memory; a small dense one in turn with the loop, for the speed."""
    folder = CACHE / "upload"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with sink() as url:
        _, kib = run("ours", url, _LARGE, sparse(folder / "sparse.qcow2", _LARGE))
        ours, bare = in_turn(url, dense(folder / "dense.qcow2", _DENSE), _DENSE, rounds)
    shutil.rmtree(folder)
    return [
        Row(name=f"upload of {_LARGE} GiB", value=kib / 1024, limit=LIMIT, unit="MiB"),
        beside("upload / bare loop", ours, bare, limit=1 / SHARE, tool="boto3"),
    ]


def in_turn(url: str, disk: Path, gib: int, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of uploads and of bare loops over as many blocks, in turn, so that a busy moment hits both."""
    ours, bare = [], []
    for _ in range(rounds):
        bare.append(run("bare", url, gib)[0])
        ours.append(run("ours", url, gib, disk)[0])
    return ours, bare


@contextmanager
def sink() -> Iterator[str]:
    """An endpoint that throws blocks away, in a process of its own; its URL."""
    argv = [sys.executable, "-m", "tests.backends.aws.ebs_endpoint", "--sink"]
    with subprocess.Popen(argv, cwd=HERE, env=surroundings(), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def run(what: str, url: str, gib: int, disk: Path | None = None) -> tuple[float, int]:
    """Seconds and peak of memory, in KiB, of one of the two in a process of its own."""
    argv = [sys.executable, "-m", "bench.upload", what, url, str(gib), *([str(disk)] if disk else [])]
    done = subprocess.run(argv, cwd=HERE, env=surroundings(), check=True, stdout=subprocess.PIPE, text=True)
    seconds, kib = done.stdout.split()
    return float(seconds), int(kib)


def sparse(path: Path, gib: int) -> Path:
    """A disk with a little data in each of its GiB, in places that no block is aligned with."""
    return _written(path, gib, [f"write -P {1 + number % 200} {number}G 2300k" for number in range(gib)])


def dense(path: Path, gib: int) -> Path:
    """A disk full of data."""
    return _written(
        path, gib, [f"write -P {1 + number % 200} {number * 64}M 64M" for number in range(gib * 16)]
    )


def _written(path: Path, gib: int, commands: list[str]) -> Path:
    chain.create(path, Bytes(gib * 2**30))
    words = [word for command in commands for word in ("-c", command)]
    subprocess.run(["qemu-io", "-f", "qcow2", *words, str(path)], check=True, stdout=subprocess.DEVNULL)
    return path


def send_all(url: str, gib: int, disk: Path) -> float:
    """Seconds that the upload of a disk takes, every block of it."""
    direct = clients(url)
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        with ChainDisk([disk], ContentId(digest(str(disk))), cancel=Flag()) as opened:
            done = upload(
                opened,
                direct,
                Order(),
                folder=Path(folder),
                held=Held(),
                emit=ignore,
                cancel=Flag(),
            )
        seconds = time.monotonic() - started
    assert done.sent == blocks_in(gib)
    return seconds


def loop(url: str, gib: int) -> float:
    """Seconds that as many calls take with nothing around them: one block of zeros, its checksum known."""
    direct, checksum = clients(url), b64encode(ZEROS_SUM).decode()
    snapshot = direct.start(Wish(gib=gib), Token(f"bare-{time.time_ns()}"), cancel=Flag()).snapshot

    def some(first: int) -> None:
        for index in range(first, blocks_in(gib), THREADS):
            direct.ebs.put_snapshot_block(
                SnapshotId=snapshot,
                BlockIndex=index,
                BlockData=ZEROS,
                DataLength=len(ZEROS),
                Checksum=checksum,
                ChecksumAlgorithm="SHA256",
            )

    started = time.monotonic()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(some, range(THREADS)))
    return time.monotonic() - started


def main() -> None:
    """Runs one of the two."""
    what, url, gib, *disk = sys.argv[1:]
    seconds = send_all(url, int(gib), Path(disk[0])) if what == "ours" else loop(url, int(gib))
    found = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    sys.stdout.write(f"{seconds} {found[1] if found else 0}\n")


if __name__ == "__main__":
    main()
