"""The shared cache over real files, with OpenSSH's own signatures: what is not exactly what was signed is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest

from ingot.errors import BackendError, CancelledError, RefusedError
from ingot.model.digest import Digest, canonical, digest
from ingot.model.events import Event, Progress, Warned, ignore
from ingot.model.plan import ContentId, LayerKey, content_id
from ingot.model.units import Bytes
from ingot.ports import Parcel
from ingot.stores.layers import NAMESPACE, RemoteLayers
from ingot.system.files import file_digest
from ingot.system.waits import Flag


def key(name: str) -> LayerKey:
    return LayerKey(digest(name))


def new_key(folder: Path, who: str) -> Path:
    path = folder / who
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", who, "-f", str(path)]
    subprocess.run(words, check=True)
    return path


def allow(signers: Path, *keys: Path, options: str = f'namespaces="{NAMESPACE}"') -> Path:
    lines = [f"{one.name}@example.org {options} {one.with_suffix('.pub').read_text()}" for one in keys]
    signers.write_text("".join(lines))
    return signers


class Shop:
    """A cache with a chain of three layers in it, given by `ada`, whom `signers` allows."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.ada = new_key(folder, "ada")
        self.signers = allow(folder / "signers", self.ada)
        self.remote = RemoteLayers(url, signers=self.signers, key=self.ada)
        self.parcels: list[Parcel] = []
        self.heard: list[Event] = []
        for name in ("base", "one", "two"):
            self.parcels.append(self.layer(name, self.parcels[-1].content if self.parcels else None))
            self.give(self.parcels[-1])

    @property
    def keys(self) -> list[LayerKey]:
        return [parcel.key for parcel in self.parcels]

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.qcow2"

    def layer(self, name: str, parent: ContentId | None, *, text: str = "") -> Parcel:
        path = self.file(name)
        path.write_bytes((text or name).encode() * 50_000)
        checksum = file_digest(path)
        return Parcel(
            key=key(name),
            content=content_id(parent, checksum),
            parent=parent,
            kind="qcow2",
            file=checksum,
            bytes=Bytes(path.stat().st_size),
            disk=Bytes(2**30),
            created="2026-11-21T10:00:00+00:00",
            sealed=name == "two",
            scanned=name != "one",
            labels={"layer": name},
        )

    def give(self, parcel: Parcel, remote: RemoteLayers | None = None) -> Bytes:
        name = parcel.labels["layer"]
        return (remote or self.remote).give(
            parcel, self.file(name), self.room(), subject=name, emit=self.heard.append, cancel=Flag()
        )

    def room(self) -> Path:
        folder = self.folder / f"room-{uuid.uuid4().hex}"
        folder.mkdir()
        return folder

    def take(self, parcel: Parcel) -> Path:
        """As a computer that only pulls does it."""
        remote = RemoteLayers(self.url, signers=self.signers)
        return remote.take(
            parcel, self.room(), subject=parcel.labels["layer"], emit=self.heard.append, cancel=Flag()
        )

    def find(self, *standing: ContentId | None, keys: list[LayerKey] | None = None) -> list[str]:
        """Names of what is offered beyond what is standing."""
        remote = RemoteLayers(self.url, signers=self.signers)
        found = remote.find(keys or self.keys, kind="qcow2", standing=standing, emit=self.heard.append)
        return [parcel.labels["layer"] for parcel in found]

    def warnings(self) -> list[str]:
        return [event.message for event in self.heard if isinstance(event, Warned)]

    def path(self, parcel: Parcel, ending: str) -> str:
        """Where the file of a layer is that ends so, on the cache's file system."""
        fs, root = self.fs()
        (found,) = [path for path in fs.ls(f"{root}/{parcel.key[7:]}", detail=False) if path.endswith(ending)]
        return str(found)

    def fs(self) -> tuple[Any, str]:
        fs, root = fsspec.core.url_to_fs(self.url)
        return fs, root


@pytest.fixture(params=["file", "memory"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    there = tmp_path / "cache"
    url = there.as_uri() if request.param == "file" else f"memory://{uuid.uuid4().hex}/cache"
    made = Shop(tmp_path, url)
    fs, root = made.fs()
    yield made
    fs.rm(root, recursive=True)  # memory outlives the test


@pytest.fixture
def local(tmp_path: Path) -> Shop:
    return Shop(tmp_path, (tmp_path / "cache").as_uri())


def test_what_was_given_comes_back(shop: Shop) -> None:
    assert shop.find() == ["base", "one", "two"]
    for parcel in shop.parcels:
        assert shop.take(parcel).read_bytes() == shop.file(parcel.labels["layer"]).read_bytes()
    fs, root = shop.fs()
    sizes = fs.du(root, total=False)
    assert len(sizes) == 6 and sum(sizes.values()) < sum(parcel.bytes for parcel in shop.parcels) / 10
    assert not shop.warnings()
    progress = [event for event in shop.heard if isinstance(event, Progress)]
    assert progress and progress[-1].done == progress[-1].total


def test_only_what_is_lacking_is_offered(shop: Shop) -> None:
    base, one, two = (parcel.content for parcel in shop.parcels)
    assert shop.find(base) == ["one", "two"]
    assert shop.find(base, one) == ["two"]
    assert shop.find(None, one) == ["two"]
    assert shop.find(base, one, two) == []
    other = ContentId(digest("another base"))
    assert shop.find(other) == ["base", "one", "two"], "what stands on another base comes with its own"


def test_the_deepest_that_is_offered_decides(shop: Shop) -> None:
    assert shop.find(keys=[*shop.keys, key("three")]) == ["base", "one", "two"]
    assert shop.find(keys=[*shop.keys[:2], key("another two")]) == ["base", "one"]
    assert shop.find(keys=[key("another base"), *shop.keys[1:]]) == [], "the chain goes by keys and contents"


def test_an_empty_cache_offers_nothing(shop: Shop) -> None:
    shop.url += "/nothing-there"
    assert shop.find() == [] and not shop.warnings()


def test_a_layer_is_not_sent_twice(shop: Shop) -> None:
    fs, _ = shop.fs()
    before = fs.modified(shop.path(shop.parcels[0], ".zst"))
    assert shop.give(shop.parcels[0]) == 0
    assert fs.modified(shop.path(shop.parcels[0], ".zst")) == before


def test_a_lost_layer_hides_those_above_it(shop: Shop) -> None:
    fs, _ = shop.fs()
    fs.rm_file(shop.path(shop.parcels[1], ".json"))
    assert shop.find() == ["base"]
    assert shop.find(shop.parcels[0].content, shop.parcels[1].content) == ["two"]


def test_a_flat_layer_stands_by_itself(shop: Shop) -> None:
    flat = shop.layer("flat", None)
    shop.parcels.append(flat)
    shop.give(flat)
    assert shop.find() == ["flat"]


def test_the_newest_of_several_contents_is_first(shop: Shop) -> None:
    newer = replace(shop.layer("two", shop.parcels[1].content, text="2"), created="2026-11-22T10:00:00+00:00")
    shop.give(newer)
    remote = RemoteLayers(shop.url, signers=shop.signers)
    found = remote.find(shop.keys, kind="qcow2", standing=(), emit=ignore)
    assert found[-1] == newer


def edit(change: Callable[[dict[str, Any]], None], *, inside: bool = True) -> Callable[[bytes], bytes]:
    """Changes what a record says, or what is around it, and leaves the signature as it was."""

    def edited(data: bytes) -> bytes:
        value = json.loads(data)
        record = json.loads(value["record"])
        change(record if inside else value)
        return canonical({**value, "record": canonical(record).decode()} if inside else value)

    return edited


RECORDS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "unsigned": (edit(lambda value: value.pop("signature"), inside=False), "it is not signed"),
    "emptied": (lambda data: b"", "its record is damaged"),
    "torn": (lambda data: data[: len(data) // 2], "its record is damaged"),
    "not ours": (lambda data: b'["record"]', "its record is damaged"),
    "huge": (lambda data: b" " * (2**20) + data, "its record is damaged"),
    "another parent": (
        edit(lambda value: value["parcel"].update(parent="sha256:" + "0" * 64)),
        "its signature does not hold",
    ),
    "another file": (
        edit(lambda value: value.update(data="sha256:" + "0" * 64)),
        "its signature does not hold",
    ),
    "sealed": (
        edit(lambda value: value["parcel"].update(sealed=False)),
        "its signature does not hold",
    ),
    "another label": (
        edit(lambda value: value["parcel"]["labels"].update(mirrors="{}")),
        "its signature does not hold",
    ),
    "signature of something else": (
        edit(lambda value: value.update(signature="-----BEGIN SSH SIGNATURE-----\n"), inside=False),
        "nobody whom `signers` allows has signed it",
    ),
}


@pytest.mark.parametrize("case", RECORDS)
def test_a_record_that_was_touched_is_refused(local: Shop, case: str) -> None:
    change, reason = RECORDS[case]
    path = Path(local.path(local.parcels[2], ".json"))
    path.write_bytes(change(path.read_bytes()))
    assert local.find() == ["base", "one"]
    (warning,) = (event for event in local.heard if isinstance(event, Warned))
    assert local.keys[2][7:19] in warning.message and reason in warning.message
    assert path.name in warning.hint or "signers" in warning.hint
    assert not local.remote.has(local.parcels[2].key, local.parcels[2].content)
    assert local.give(local.parcels[2]) > 0, "it is given anew"
    assert local.find() == ["base", "one", "two"]


def test_a_touched_byte_anywhere_is_never_taken(local: Shop) -> None:
    """A bit of each of many bytes of the record and of the data is flipped; none of it is believed or unpacked."""
    parcel = local.parcels[2]
    for ending in (".json", ".zst"):
        path = Path(local.path(parcel, ending))
        whole = path.read_bytes()
        for at in range(0, len(whole), max(1, len(whole) // 40)):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            with pytest.raises(RefusedError):
                local.take(parcel)
        for other in (whole[:-1], b"", whole + b"more"):
            path.write_bytes(other)
            with pytest.raises(RefusedError):
                local.take(parcel)
        path.write_bytes(whole)
    assert local.take(parcel).is_file()


def test_a_record_is_good_for_its_own_place_alone(local: Shop) -> None:
    """A signed layer copied to another key, or to another content of its own key, is not what it is asked for."""
    one, two = local.parcels[1:]
    source, target = Path(local.path(one, ".json")), Path(local.path(two, ".json"))
    shutil.copyfile(source, target)
    assert local.find() == ["base", "one"]
    assert "its record is that of another layer" in local.warnings()[-1]
    shutil.copyfile(source, source.with_name(f"{'0' * 64}.json"))
    local.heard.clear()
    assert local.find() == ["base", "one"]
    assert "its record is that of another layer" in local.warnings()[0]


def test_a_signed_contradiction_is_refused(local: Shop) -> None:
    """Somebody allowed signs a content that its parent and bytes do not amount to."""
    wrong = replace(local.parcels[2], file=Digest(digest("other bytes")))
    Path(local.path(local.parcels[2], ".json")).unlink()
    local.give(wrong)
    assert local.find() == ["base", "one"]
    assert "its record contradicts itself" in local.warnings()[0]


def test_who_may_sign(local: Shop) -> None:
    eve = new_key(local.folder, "eve")
    extra = local.layer("three", local.parcels[2].content)
    local.parcels.append(extra)
    local.give(extra, RemoteLayers(local.url, signers=local.signers, key=eve))
    assert local.find() == ["base", "one", "two"]
    assert "nobody whom `signers` allows has signed it" in local.warnings()[0]
    allow(local.signers, local.ada, eve)
    assert local.find() == ["base", "one", "two", "three"]
    allow(local.signers, local.ada, eve, options='namespaces="git"')
    assert local.find() == []
    assert "its signature does not hold" in local.warnings()[-1]
    allow(local.signers, local.ada, eve, options='valid-before="20200101"')
    assert local.find() == []
    local.signers.write_text("")
    assert local.find() == []


def test_another_schema_or_field_is_passed_over(local: Shop) -> None:
    """As a later Ingot would write it: signed, but not to be understood here."""
    path = Path(local.path(local.parcels[2], ".json"))
    text = json.loads(json.loads(path.read_bytes())["record"])
    for change in ({"schema": 2}, {"more": 1}):
        record = canonical({**text, **change})
        words = ["ssh-keygen", "-Y", "sign", "-q", "-n", NAMESPACE, "-f", str(local.ada)]
        signed = subprocess.run(words, input=record, capture_output=True, check=True).stdout
        path.write_bytes(canonical({"record": record.decode(), "signature": signed.decode()}))
        assert local.find() == ["base", "one"]
        assert "another version of Ingot" in local.warnings()[-1]


def test_a_push_that_stopped_halfway_is_found_by_nobody(local: Shop) -> None:
    local.file("three").write_bytes(os.urandom(9 * 2**20))
    checksum = file_digest(local.file("three"))
    below = local.parcels[2].content
    three = replace(
        local.parcels[2],
        key=key("three"),
        parent=below,
        file=checksum,
        content=content_id(below, checksum),
        bytes=Bytes(9 * 2**20),
        labels={"layer": "three"},
    )
    stop = Flag()

    def stop_at_the_first_bytes(event: Event) -> None:
        if isinstance(event, Progress):
            stop.set()

    with pytest.raises(CancelledError):
        local.remote.give(
            three,
            local.file("three"),
            local.room(),
            subject="three",
            emit=stop_at_the_first_bytes,
            cancel=stop,
        )
    folder = local.folder / "cache" / three.key[7:]
    assert list(folder.iterdir()) == []
    (folder / "half.zst.0123.part").write_bytes(b"half")  # as SIGKILL leaves it
    assert local.find(keys=[*local.keys, three.key]) == ["base", "one", "two"]
    local.parcels.append(three)
    assert local.give(three) > 0
    assert local.find() == ["base", "one", "two", "three"]


@pytest.mark.parametrize("url", ["ftp://127.0.0.1:9/ingot", "nothing-of-the-kind://there/ingot"])
def test_a_cache_that_is_not_to_be_reached_is_told_as_such(local: Shop, url: str) -> None:
    remote = RemoteLayers(url, signers=local.signers, key=local.ada)
    with pytest.raises(BackendError, match=r"refused|not known") as raised:
        remote.find(local.keys, kind="qcow2", standing=(), emit=ignore)
    assert raised.value.hint
    with pytest.raises(BackendError):
        local.give(local.parcels[0], remote)


def test_a_key_that_cannot_sign_is_told(local: Shop) -> None:
    three = local.layer("three", local.parcels[2].content)
    missing = RemoteLayers(local.url, signers=local.signers, key=local.folder / "missing")
    with pytest.raises(BackendError, match="could not sign"):
        local.give(three, missing)
    locked = local.folder / "locked"
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "a passphrase", "-f", str(locked)]
    subprocess.run(words, check=True)
    with pytest.raises(BackendError, match="could not sign") as raised:
        local.give(three, RemoteLayers(local.url, signers=local.signers, key=locked))
    assert "ssh-agent" in raised.value.hint
