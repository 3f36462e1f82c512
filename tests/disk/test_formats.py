from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ingot.disk import formats
from ingot.errors import CancelledError, UsageError
from ingot.model.events import Event, Progress, ignore
from ingot.system import process
from ingot.system.waits import Flag

pytestmark = pytest.mark.skipif(not process.have("qemu-img"), reason="qemu-img is not installed")

MIB = 2**20
PEAK = """
import re, resource, sys
from pathlib import Path
from ingot.disk import formats
from ingot.model.events import ignore
from ingot.system.waits import Flag
formats.write_disk(sys.argv[1], Path(sys.argv[2]), format=sys.argv[3], emit=ignore, cancel=Flag())
# Not RUSAGE_SELF: exec adds the peak of whoever forked, which here is the whole of pytest.
own = int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
print(max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
"""
"""Writes a disk; prints the peak of memory, in KiB, of itself and of what it ran."""
MakeChain = Callable[[int], str]


def layer(path: Path, below: dict[str, Any] | None, writes: dict[int, bytes], *, size: int) -> dict[str, Any]:
    """One qcow2 file of a chain with some bytes in it, as a node."""
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, str(size)], check=True)
    node = {"driver": "qcow2", "file": {"driver": "file", "filename": str(path)}, "backing": below}
    for offset, data in writes.items():
        piece = path.with_suffix(".piece")
        piece.write_bytes(data)
        command = f"write -s {piece} {offset} {len(data)}"
        subprocess.run(
            ["qemu-io", "-c", command, "json:" + json.dumps(node)], check=True, capture_output=True
        )
    return node


@pytest.fixture
def chain(tmp_path: Path) -> MakeChain:
    """Two layers, the upper of which hides some of the lower one's bytes. Neither names the other in its header."""

    def make(size: int) -> str:
        noise = random.Random(7).randbytes(MIB)
        low = layer(tmp_path / "low.qcow2", None, {0: noise, 5 * MIB: b"below" * 13107}, size=size)
        top = layer(
            tmp_path / "top.qcow2", low, {5 * MIB: b"above" * 1000, size - 4096: b"end!" * 1024}, size=size
        )
        return "json:" + json.dumps(top)

    return make


def bytes_of(disk: str, folder: Path, *, options: tuple[str, ...] = ()) -> bytes:
    raw = folder / "bytes.raw"
    subprocess.run(["qemu-img", "convert", *options, "-O", "raw", disk, raw], check=True)
    return raw.read_bytes()


@pytest.mark.parametrize(
    ("name", "driver"), [("qcow2", "qcow2"), ("raw", "raw"), ("vmdk", "vmdk"), ("vhd", "vpc")]
)
def test_a_format_holds_what_the_chain_shows(
    name: str, driver: str, chain: MakeChain, tmp_path: Path
) -> None:
    source = chain(24 * MIB)
    output = formats.write_disk(source, tmp_path / "out/disk", format=name, emit=ignore, cancel=Flag())
    about = json.loads(subprocess.check_output(["qemu-img", "info", "-f", driver, "--output=json", output]))
    assert about["virtual-size"] == 24 * MIB
    assert "backing-filename" not in about and "full-backing-filename" not in about
    assert bytes_of(str(output), tmp_path, options=("-f", driver)) == bytes_of(source, tmp_path)
    assert [path.name for path in output.parent.iterdir()] == ["disk"], "nothing else is left"


def test_qcow2_is_compressed_with_zstd(chain: MakeChain, tmp_path: Path) -> None:
    output = formats.write_disk(
        chain(24 * MIB), tmp_path / "d.qcow2", format="qcow2", emit=ignore, cancel=Flag()
    )
    about = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", output]))
    assert about["format-specific"]["data"]["compression-type"] == "zstd"


@pytest.mark.parametrize("size", [24 * MIB, 24 * MIB + 512, 25 * MIB - 65536])
def test_a_vhd_is_fixed_and_of_whole_mebibytes_as_azure_asks(
    size: int, chain: MakeChain, tmp_path: Path
) -> None:
    output = formats.write_disk(chain(size), tmp_path / "d.vhd", format="vhd", emit=ignore, cancel=Flag())
    footer = output.read_bytes()[-512:]
    assert footer[:8] == b"conectix"
    assert int.from_bytes(footer[60:64], "big") == 2, "the type of a fixed disk"
    virtual = int.from_bytes(footer[48:56], "big")
    assert virtual == -(-size // MIB) * MIB == output.stat().st_size - 512


def test_googles_archive_holds_a_sparse_disk_of_whole_gibibytes(chain: MakeChain, tmp_path: Path) -> None:
    source = chain(24 * MIB)
    output = formats.write_disk(source, tmp_path / "d.tar.gz", format="gce", emit=ignore, cancel=Flag())
    with gzip.open(output) as archive:
        header = archive.read(512)
    assert header[257:265] == b"ustar  \0", "the old GNU format"
    assert header[156:157] == b"S", "sparse"
    with tarfile.open(output) as archive:
        (member,) = archive.getmembers()
        assert (member.name, member.size, member.mtime, member.uid) == ("disk.raw", 2**30, 0, 0)
        inside = archive.extractfile(member)
        assert inside and inside.read(24 * MIB) == bytes_of(source, tmp_path)


@pytest.mark.parametrize("name", ["qcow2", "raw", "gce"])
def test_the_same_disk_gives_the_same_bytes(name: str, chain: MakeChain, tmp_path: Path) -> None:
    source = chain(24 * MIB)
    first, second = (
        formats.write_disk(source, tmp_path / f"{number}/disk", format=name, emit=ignore, cancel=Flag())
        for number in "12"
    )
    assert first.read_bytes() == second.read_bytes()


def test_progress_is_told_in_bytes(chain: MakeChain, tmp_path: Path) -> None:
    heard: list[Event] = []
    formats.write_disk(chain(24 * MIB), tmp_path / "d", format="raw", emit=heard.append, cancel=Flag())
    progress = [event for event in heard if isinstance(event, Progress)]
    assert progress[-1].done == progress[-1].total == 24 * MIB
    assert [event.done for event in progress] == sorted(event.done for event in progress)


def test_a_stop_leaves_the_old_file_and_nothing_beside_it(chain: MakeChain, tmp_path: Path) -> None:
    output = tmp_path / "out/d.raw"
    output.parent.mkdir()
    output.write_text("old")
    cancel = Flag()
    cancel.set()
    with pytest.raises(CancelledError):
        formats.write_disk(chain(24 * MIB), output, format="raw", emit=ignore, cancel=cancel)
    assert [path.read_text() for path in output.parent.iterdir()] == ["old"]


def test_an_unknown_format_names_those_there_are() -> None:
    with pytest.raises(UsageError, match="vdi") as error:
        formats.find_format("vdi")
    assert all(name in error.value.hint for name in formats.KNOWN)


@pytest.mark.parametrize("name", sorted(formats.KNOWN))
def test_a_disk_of_100_gib_takes_little_memory(name: str, chain: MakeChain, tmp_path: Path) -> None:
    # In a process of its own: the peak of "all children" would be that of any QEMU which a test before this one ran.
    argv = [sys.executable, "-c", PEAK, chain(100 * 2**30), str(tmp_path / "disk"), name]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    assert 0 < int(done.stdout) < 300 * 1024
