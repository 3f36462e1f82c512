"""A chain is read by blocks as QEMU would flatten it, and knows which blocks are as they were."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import pytest

from ingot.backends.local import disk_blocks
from ingot.backends.local.disk_blocks import ChainDisk
from ingot.errors import BackendError, NotFoundError
from ingot.model.plan import ContentId
from ingot.model.units import Bytes, Seconds
from ingot.ports.disks import BLOCK
from ingot.system import process
from ingot.system.waits import Flag
from tests.backends.aws.disks import MIB, SIZE, Shelf

pytestmark = pytest.mark.skipif(not process.have("qemu-io"), reason="qemu-io is not installed")


def scattered(seed: int, *, size: int = SIZE, count: int = 60) -> list[str]:
    """Commands that write, clear and discard all over a disk, in units of its smallest parts."""
    chance = random.Random(seed)
    commands = []
    for _ in range(count):
        length = chance.choice([2048, 4096, 65536, 300 * 1024, 3 * MIB])
        start = chance.randrange(0, size - length, 2048)
        what = chance.choice([f"write -P {chance.randrange(1, 256)}", "write -z", "write -P 0", "discard"])
        commands.append(f"{what} {start} {length}")
    return commands


def whole(disk: ChainDisk) -> bytes:
    return b"".join(block.read() for block in disk.blocks())


@pytest.mark.parametrize("seed", range(4))
def test_blocks_are_what_qemu_reads(tmp_path: Path, seed: int) -> None:
    shelf = Shelf(tmp_path)
    content = None
    for number in range(4):
        content = shelf.layer(f"layer{number}", content, *scattered(10 * seed + number))
    assert content
    with shelf.disk(content) as disk:
        found = whole(disk)
        assert all(block.read() == bytes(BLOCK) for block in disk.blocks() if block.empty)
        assert not any(block.same for block in disk.blocks())
    flat = shelf.flat(content)
    assert len(found) == -(-len(flat) // BLOCK) * BLOCK
    assert found == flat.ljust(len(found), b"\0")


@pytest.mark.parametrize("seed", range(4))
def test_what_is_the_same_is_the_same(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the map is taken in several windows."""
    monkeypatch.setattr(disk_blocks, "_WINDOW", 8 * BLOCK)
    shelf = Shelf(tmp_path)
    base = shelf.layer("base", shelf.layer("first", None, *scattered(seed)), *scattered(seed + 100))
    old = shelf.layer("old", base, *scattered(seed + 200, count=5))
    new = shelf.layer("new", shelf.layer("more", base, "write -P 5 0 2048"), *scattered(seed + 300, count=5))
    before, after = shelf.flat(old), shelf.flat(new)
    with shelf.disk(new, since=old) as disk:
        blocks = list(disk.blocks())
        assert whole(disk)[: len(after)] == after
    assert [block.index for block in blocks] == list(range(-(-SIZE // BLOCK)))
    same = [block.index for block in blocks if block.same]
    assert 0 < len(same) < len(blocks)
    for index in same:
        window = slice(index * BLOCK, (index + 1) * BLOCK)
        assert before[window] == after[window]


@pytest.mark.parametrize("window", [8 * BLOCK, 16 * 2**30])
def test_a_descendant_of_a_smaller_disk(tmp_path: Path, window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_blocks, "_WINDOW", window)
    shelf = Shelf(tmp_path)
    base = shelf.layer("base", None, "write -P 1 0 1M")
    old = shelf.layer("old", base, "write -P 2 3M 64k")
    grown = shelf.layer("grown", base, "write -P 3 90M 64k", size=Bytes(100 * MIB))
    with shelf.disk(grown, since=old) as disk:
        assert [block.index for block in disk.blocks() if not block.same] == [6, 180]
        assert whole(disk) == shelf.flat(grown)


def test_an_earlier_disk_that_is_gone(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    base = shelf.layer("base", None, "write -P 1 0 1M")
    with shelf.disk(base, since=ContentId("sha256:" + "0" * 64)) as disk:
        assert not any(block.same for block in disk.blocks())
    with pytest.raises(NotFoundError), shelf.disk(ContentId("sha256:" + "0" * 64)):
        pass


def test_blocks_are_read_by_any_thread(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    content = shelf.layer("base", None, *scattered(7))
    with shelf.disk(content) as disk, ThreadPoolExecutor(8) as pool:
        found = b"".join(pool.map(lambda block: block.read(), disk.blocks()))
    assert found.startswith(shelf.flat(content))


def test_a_file_that_ends_early(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    shelf = Shelf(tmp_path)
    source = shelf.store.file(shelf.layer("base", None, "write -P 1 0 4M"))
    path.write_bytes(source.read_bytes())
    with ChainDisk([path], ContentId("sha256:1"), cancel=Flag()) as disk:
        blocks = list(islice(disk.blocks(), 8))
        path.write_bytes(source.read_bytes()[: 2 * MIB])
        with pytest.raises(BackendError, match="ends before its data"):
            blocks[-1].read()


def test_a_layer_that_is_compressed_inside(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    source = shelf.store.file(shelf.layer("base", None, "write -P 1 0 4M"))
    packed = tmp_path / "packed.qcow2"
    process.run(["qemu-img", "convert", "-c", "-O", "qcow2", str(source), str(packed)], timeout=Seconds(60.0))
    with (
        ChainDisk([packed], ContentId("sha256:1"), cancel=Flag()) as disk,
        pytest.raises(BackendError, match="compressed inside"),
    ):
        list(disk.blocks())
