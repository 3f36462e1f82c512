"""Layers are found whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ingot.backends.local.store import VERIFIED_FOR, NewLayer, Store
from ingot.errors import BackendError, NotFoundError, RefusedError
from ingot.model.digest import Digest, digest
from ingot.model.image import LayerRef
from ingot.model.plan import LayerKey, content_id


def qcow2(path: Path, content: str, *, backing: int = 0, features: int = 0) -> Path:
    """A file with the header of a qcow2 disk of 1 MiB, and something in it."""
    head = struct.pack(
        ">4sIQIIQIIQQIIQQ", b"QFI\xfb", 3, backing, 0, 16, 1 << 20, 0, 1, 0, 0, 1, 0, 0, features
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head.ljust(4096, b"\0") + content.encode() * 1000)
    return path


def key(name: str) -> LayerKey:
    return LayerKey(digest(name))


class Shelf:
    """A store with a chain of layers in it: `base`, `one`, `two`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(folder)
        self.refs: dict[str, LayerRef] = {}
        for name, parent in (("base", ""), ("one", "base"), ("two", "one")):
            self.add(name, parent)

    def add(self, name: str, parent: str = "", *, content: str = "") -> LayerRef:
        below = self.refs[parent].content if parent else None
        file = qcow2(self.folder / "work" / name, content or name)
        record = self.store.add(
            file, NewLayer(key=key(name), parent=below, sealed=False, scanned=False, labels={"name": name})
        )
        self.refs[name] = record.ref(self.store.file(record.content))
        return self.refs[name]

    def path(self, name: str, ending: str = "qcow2") -> Path:
        return Path(self.refs[name].ref).with_suffix(f".{ending}")

    def found(self) -> set[str]:
        """The layers that a new process finds."""
        store = Store(self.folder)
        return {name for name in self.refs if store.find(key(name))}


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "local")


def test_finds_what_was_added(shelf: Shelf) -> None:
    found = shelf.store.find(key("two"))
    assert found == shelf.refs["two"]
    assert found and found.parent == shelf.refs["one"].content and found.labels == {"name": "two"}
    chain = shelf.store.chain(found.content)
    assert chain and [record.key for record in chain] == [key("base"), key("one"), key("two")]
    assert shelf.store.find(key("three")) is None


def test_content_id_is_of_bytes_and_parent(shelf: Shelf) -> None:
    assert shelf.refs["one"].content == content_id(
        shelf.refs["base"].content,
        Digest(shelf.store.chain(shelf.refs["one"].content)[-1].file),  # type: ignore[index]
    )
    same = shelf.add("like-one", "two", content="one")
    assert same.content != shelf.refs["one"].content


def flip(path: Path, *, at: int = 5000, keep_time: bool) -> None:
    """Changes one byte, as root may; with `keep_time` the file says it was not modified."""
    before = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(at)
        old = file.read(1)
        file.seek(at)
        file.write(bytes([old[0] ^ 1]))
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, Callable[[Shelf, str], object]] = {
    "one byte": lambda shelf, name: flip(shelf.path(name), keep_time=False),
    "one byte, its time set back": lambda shelf, name: flip(shelf.path(name), keep_time=True),
    "the magic": lambda shelf, name: flip(shelf.path(name), at=0, keep_time=True),
    "cut off": lambda shelf, name: os.truncate(shelf.path(name), 4097),
    "emptied": lambda shelf, name: os.truncate(shelf.path(name), 0),
    "lost": lambda shelf, name: shelf.path(name).unlink(),
    "a folder": lambda shelf, name: replace_by_folder(shelf.path(name)),
    "record lost": lambda shelf, name: shelf.path(name, "json").unlink(),
    "record half written": lambda shelf, name: os.truncate(shelf.path(name, "json"), 20),
    "record of something else": lambda shelf, name: shelf.path(name, "json").write_text("[1, 2]"),
    "another's record": lambda shelf, name: shutil.copy(shelf.path("base", "json"), shelf.path(name, "json")),
}


@pytest.mark.parametrize("how", list(DAMAGE))
def test_damage_invalidates_what_stands_on_it(shelf: Shelf, how: str) -> None:
    shelf.add("beside", "base")
    DAMAGE[how](shelf, "one")
    assert shelf.store.find(key("two")) is None
    assert shelf.found() == {"base", "beside"}
    left = {path.name.split(".")[0] for path in (shelf.folder / "layers").glob("*.qcow2") if path.is_file()}
    assert left == {shelf.path("base").stem, shelf.path("beside").stem}
    shelf.add("one", "base")
    shelf.add("two", "one")
    assert shelf.found() == {"base", "one", "two", "beside"}


def test_lost_base_takes_everything(shelf: Shelf) -> None:
    shelf.path("base").unlink()
    assert shelf.found() == set()


@pytest.mark.parametrize("ending", ["mark", "qcow2"])
def test_right_bytes_that_look_otherwise_stay(shelf: Shelf, ending: str) -> None:
    """A lost mark, or a file that was copied or touched: the bytes decide."""
    path = shelf.path("one", ending)
    if ending == "mark":
        path.unlink()
    else:
        shutil.copyfile(path, path.with_suffix(".copy"))
        path.with_suffix(".copy").rename(path)
    assert shelf.found() == {"base", "one", "two"}
    assert shelf.path("one", "mark").exists()


def test_store_that_was_moved_stays(shelf: Shelf, tmp_path: Path) -> None:
    shutil.copytree(shelf.folder, tmp_path / "moved")
    store = Store(tmp_path / "moved")
    found = store.find(key("two"))
    assert found and found.ref.startswith(str(tmp_path / "moved"))


def age_mark(shelf: Shelf, name: str) -> None:
    """Makes the mark of a file fit how it looks now, and be older than a mark is trusted."""
    found = shelf.path(name).stat()
    mark = {
        "inode": found.st_ino,
        "bytes": found.st_size,
        "mtime_ns": found.st_mtime_ns,
        "ctime_ns": found.st_ctime_ns,
        "at": time.time() - VERIFIED_FOR - 1,
    }
    shelf.path(name, "mark").write_text(json.dumps(mark))


def test_verify_reads_what_changed_without_a_write(shelf: Shelf) -> None:
    flip(shelf.path("one"), keep_time=True)
    age_mark(shelf, "one")
    assert shelf.store.find(key("two")), "nothing that a look at the files could tell"
    with pytest.raises(NotFoundError, match="damaged"):
        shelf.store.verify(shelf.refs["two"].content)
    assert shelf.found() == {"base"}


def test_verify_renews_marks(shelf: Shelf) -> None:
    age_mark(shelf, "base")
    shelf.store.verify(shelf.refs["two"].content)
    assert json.loads(shelf.path("base", "mark").read_text())["at"] > time.time() - 60


def test_drop_takes_leaves_that_nobody_uses(shelf: Shelf) -> None:
    with pytest.raises(RefusedError, match="1 layers stand on"):
        shelf.store.drop(shelf.refs["one"])
    chain = shelf.store.chain(shelf.refs["two"].content)
    assert chain
    with shelf.store.lease(chain), pytest.raises(RefusedError, match="in use"):
        Store(shelf.folder).drop(shelf.refs["two"])
    for name in ("two", "two", "one", "base"):
        shelf.store.drop(shelf.refs[name])
    assert shelf.found() == set() and not list((shelf.folder / "layers").iterdir())


def test_lists_layers_with_their_children_and_leases(shelf: Shelf) -> None:
    chain = shelf.store.chain(shelf.refs["one"].content)
    assert chain
    with shelf.store.lease(chain):
        seen = {layer.ref.content: layer for layer in Store(shelf.folder).layers()}
    assert all(seen[ref.content].ref == ref for ref in shelf.refs.values())
    assert seen.keys() == {ref.content for ref in shelf.refs.values()}
    assert [seen[shelf.refs[name].content].leased for name in ("base", "one", "two")] == [True, True, False]
    assert seen[shelf.refs["base"].content].children == {shelf.refs["one"].content}


def test_lease_tells_when_it_came_too_late(shelf: Shelf) -> None:
    chain = shelf.store.chain(shelf.refs["two"].content)
    assert chain
    shelf.store.drop(shelf.refs["two"])
    with pytest.raises(NotFoundError), shelf.store.lease(chain):
        pass


def test_damaged_layer_in_use_keeps_its_files(shelf: Shelf) -> None:
    chain = shelf.store.chain(shelf.refs["two"].content)
    assert chain
    flip(shelf.path("one"), keep_time=True)
    with shelf.store.lease(chain):
        assert shelf.found() == {"base"}
        assert shelf.path("two").exists()
    shelf.path("base").unlink()
    assert shelf.found() == set() and not shelf.path("two").exists()


def test_made_again_takes_the_key(shelf: Shelf) -> None:
    """A forced rebuild: the old content stays as long as something that a key leads to stands on it."""
    old = shelf.refs["one"]
    new = shelf.add("one", "base", content="another")
    assert shelf.store.find(key("one")) == new
    found = shelf.store.find(key("two"))
    assert found and found.parent == old.content


@pytest.mark.parametrize(("backing", "features"), [(1000, 0), (0, 4), (0, 1)])
def test_foreign_file_is_refused(shelf: Shelf, backing: int, features: int) -> None:
    file = qcow2(shelf.folder / "work" / "foreign", "x", backing=backing, features=features)
    with pytest.raises(BackendError):
        shelf.store.add(
            file, NewLayer(key=key("foreign"), parent=None, sealed=False, scanned=False, labels={})
        )
    assert shelf.store.find(key("foreign")) is None


def test_what_a_crash_left_is_not_found_and_goes(shelf: Shelf) -> None:
    layers, keys = shelf.folder / "layers", shelf.folder / "keys"
    qcow2(layers / f"{'a' * 64}.qcow2", "no record")
    shutil.copy(shelf.path("two"), layers / f"{'b' * 64}.qcow2")
    shutil.copy(shelf.path("two", "json"), layers / f"{'b' * 64}.json")
    (keys / key("nowhere").removeprefix("sha256:")).write_text(f"sha256:{'c' * 64}")
    (keys / key("empty").removeprefix("sha256:")).write_text("")
    (layers / ".half.json.1.2.tmp").write_text("{")
    assert shelf.found() == {"base", "one", "two"}
    assert shelf.store.find(key("nowhere")) is None and shelf.store.find(key("empty")) is None
    assert {path.stem for path in layers.glob("*.qcow2")} == {shelf.path(name).stem for name in shelf.refs}
