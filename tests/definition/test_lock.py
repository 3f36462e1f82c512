from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ingot.definition.fetch import fetch
from ingot.definition.load import load
from ingot.definition.lock import (
    Needed,
    begin_epoch,
    describe_changes,
    indexes_digest,
    missing,
    needed,
    pins_of,
    read,
    resolve,
    text_of,
    write,
)
from ingot.errors import BackendError, DefinitionError, NotFoundError, TransientError
from ingot.model.definition import CloudBase, DebootstrapBase, Definition, DiskImageBase
from ingot.model.lock import BasePin, Lock, RequirementPin
from ingot.model.units import Seconds
from ingot.ports import FoundBase

PROJECT = """\
name: locked
targets:
  local: {{backend: local}}
  arm: {{backend: local, arch: aarch64}}
  cloud: {{backend: aws}}
bases:
  debian:
    local: {{debootstrap: bookworm, mirror: "{mirror}", security: "{mirror}", components: [main, contrib]}}
    cloud: {{ami: ami-1}}
  disk:
    local: {{image: base.qcow2}}
images:
  node: {{base: debian, targets: [local, arm, cloud]}}
  child: {{from: node, targets: [local]}}
  other: {{base: disk, targets: [local]}}
"""


def in_cloud(one: Needed) -> FoundBase:
    """A cloud in which every image is there at once, with a name of its own at each location."""
    assert isinstance(one.source, CloudBase)
    return FoundBase(
        pins={"image": f"{one.source.query['ami']}-{one.target.location}"}, seen={"name": "Debian"}
    )


def _release(
    number: int, *, date: str = "Sat, 17 May 2025 10:00:00 UTC", components: str = "main contrib"
) -> str:
    """An InRelease file as an archive writes it, its package indexes numbered."""
    lines = [
        f" {hashlib.sha256(f'{number}{name}{arch}{tail}'.encode()).hexdigest()}  {number} {name}/binary-{arch}/Packages{tail}"
        for name in components.split()
        for arch in ("amd64", "arm64")
        for tail in ("", ".xz")
    ]
    head = f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nOrigin: Test\nDate: {date}\nMD5Sum:\n {'0' * 32} 1 main/binary-amd64/Packages\nSHA256:\n"
    return head + "\n".join(lines) + "\n-----BEGIN PGP SIGNATURE-----\nsigned\n"


def _publish(archive: Path, number: int, *, date: str = "Sat, 17 May 2025 10:00:00 UTC") -> None:
    for suite in ("bookworm", "bookworm-updates", "bookworm-security"):
        folder = archive / "dists" / suite
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "InRelease").write_text(_release(number, date=date))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    _publish(folder, 1)
    return folder


@pytest.fixture
def definition(tmp_path: Path, archive: Path) -> Definition:
    root = tmp_path / "project"
    root.mkdir()
    (root / "base.qcow2").write_bytes(b"disk")
    (root / "ingot.yaml").write_text(PROJECT.format(mirror=archive.as_uri()))
    return load(root).definition


def test_every_base_is_needed_once(definition: Definition) -> None:
    assert [(one.base, one.arch) for one in needed(definition)] == [
        ("debian", "x86_64"),
        ("debian", "aarch64"),
        ("debian", "x86_64"),
        ("disk", "x86_64"),
    ]
    assert [one.base for one in needed(definition, ["child"])] == ["debian"]


def test_resolve_pins_what_is_missing(definition: Definition) -> None:
    lock = resolve(definition, Lock(), update=False, fetch=fetch, find=in_cloud)
    assert missing(definition, lock) == ()
    source = definition.bases["debian"].sources["local"]
    here, arm = definition.targets["local"], definition.targets["arm"]
    pins = pins_of(lock, "debian", source, here)
    assert set(pins) == {"bookworm", "bookworm-updates", "bookworm-security"}
    assert pins != pins_of(lock, "debian", source, arm)
    disk = definition.bases["disk"].sources["local"]
    assert pins_of(lock, "disk", disk, here) == {"sha256": hashlib.sha256(b"disk").hexdigest()}
    assert {pin.seen.get("bookworm") for pin in lock.bases} == {"Sat, 17 May 2025 10:00:00 UTC", None}


def test_an_image_of_a_cloud_is_pinned_for_each_location(definition: Definition) -> None:
    source = definition.bases["debian"].sources["cloud"]
    cloud = definition.targets["cloud"]
    west, east = (replace(cloud, location=name) for name in ("west", "east"))
    there = replace(definition, targets={**definition.targets, "cloud": west})
    lock = resolve(there, Lock(), update=False, fetch=fetch, find=in_cloud)
    assert pins_of(lock, "debian", source, west) == {"image": "ami-1-west"}
    assert pins_of(lock, "debian", source, east) == {}
    moved = replace(definition, targets={**definition.targets, "cloud": east})
    assert [one.target.location for one in missing(moved, lock)] == ["east"]


def test_only_update_moves_a_pin(definition: Definition, archive: Path) -> None:
    first = resolve(definition, Lock(), update=False, fetch=fetch, find=in_cloud)
    _publish(archive, 2)
    assert resolve(definition, first, update=False, fetch=fetch, find=in_cloud) == first
    moved = resolve(definition, first, update=True, fetch=fetch, find=in_cloud)
    lines = list(describe_changes(first, moved))
    assert len(lines) == 6
    assert all(line.startswith("debian (") and " → " in line for line in lines)


def test_signing_anew_moves_nothing(definition: Definition, archive: Path) -> None:
    first = resolve(definition, Lock(), update=False, fetch=fetch, find=in_cloud)
    _publish(archive, 1, date="Sun, 18 May 2025 10:00:00 UTC")
    again = resolve(definition, first, update=True, fetch=fetch, find=in_cloud)
    assert [pin.pins for pin in again.bases] == [pin.pins for pin in first.bases]
    assert [pin.seen for pin in again.bases] != [pin.seen for pin in first.bases]
    assert list(describe_changes(first, again)) == []


def test_a_new_epoch_moves_the_pins(definition: Definition, archive: Path) -> None:
    fresh = replace(definition, freshness=Seconds(7 * 86400.0))
    monday = datetime(2026, 11, 16, tzinfo=UTC)
    old = begin_epoch(
        fresh, resolve(definition, Lock(), update=False, fetch=fetch, find=in_cloud), now=monday
    )
    assert (old.epoch, old.bases) == ("2026-W47", ())
    old = resolve(fresh, old, update=False, fetch=fetch, find=in_cloud)
    write(Path(definition.root), old)
    assert read(Path(definition.root)) == old
    _publish(archive, 2)
    sunday = begin_epoch(fresh, old, now=monday + timedelta(days=6))
    assert sunday == old
    later = begin_epoch(fresh, old, now=monday + timedelta(days=7))
    new = resolve(fresh, later, update=False, fetch=fetch, find=in_cloud)
    first, *rest = describe_changes(old, new)
    assert first == "freshness: 2026-W47 → 2026-W48"
    assert any("bookworm" in line for line in rest)


def test_an_epoch_that_a_wrong_clock_ran_ahead_to_holds_until_the_lock_is_updated(
    definition: Definition,
) -> None:
    fresh = replace(definition, freshness=Seconds(7 * 86400.0))
    now = datetime(2026, 11, 16, tzinfo=UTC)
    ahead = Lock(epoch="2039-W01")
    assert begin_epoch(fresh, ahead, now=now) == ahead
    assert begin_epoch(fresh, ahead, now=now, update=True).epoch == "2026-W47"


def test_without_freshness_pins_hold_and_the_epoch_goes(definition: Definition) -> None:
    pinned = replace(resolve(definition, Lock(), update=False, fetch=fetch, find=in_cloud), epoch="2026-W47")
    kept = begin_epoch(definition, pinned, now=datetime(2027, 1, 1, tzinfo=UTC))
    assert kept == replace(pinned, epoch="")
    assert list(describe_changes(pinned, kept)) == ["freshness: 2026-W47 → dropped"]


def test_a_changed_source_needs_pins_of_its_own(definition: Definition) -> None:
    lock = resolve(definition, Lock(), update=False, fetch=fetch, find=in_cloud)
    source = definition.bases["debian"].sources["local"]
    assert isinstance(source, DebootstrapBase)
    changed = replace(source, components=("main",))
    assert pins_of(lock, "debian", changed, definition.targets["local"]) == {}
    base = replace(definition.bases["debian"], sources={"local": changed})
    other = replace(definition, bases={**definition.bases, "debian": base})
    assert [one.base for one in missing(other, lock)] == ["debian", "debian"]
    fresh = resolve(other, lock, update=False, fetch=fetch, find=in_cloud)
    assert len(fresh.bases) == 3  # what the definition no longer has is dropped


def test_locking_one_image_leaves_the_others(definition: Definition) -> None:
    lock = resolve(definition, Lock(), update=False, fetch=fetch, find=in_cloud)
    only = resolve(definition, lock, update=True, fetch=fetch, find=in_cloud, images=["other"])
    assert only == lock
    alone = resolve(definition, Lock(), update=False, fetch=fetch, find=in_cloud, images=["other"])
    assert [pin.base for pin in alone.bases] == ["disk"]


def test_the_file_survives_a_round_trip(tmp_path: Path) -> None:
    lock = Lock(
        bases=(
            BasePin(
                base="b",
                arch="x86_64",
                source="debootstrap b",
                pins={"b": "sha256:1", "a": "yes"},
                seen={"b": "1.10"},
            ),
            BasePin(base="a", arch="x86_64", source="image 'odd': #name", pins={"sha256": "0123"}),
        ),
        requirements=(
            RequirementPin(kind="role", name="x", wanted="1.10"),
            RequirementPin(kind="collection", name="c.d"),
        ),
    )
    assert read(tmp_path) == Lock()
    assert write(tmp_path, lock)
    assert not write(tmp_path, lock)
    assert text_of(read(tmp_path)) == text_of(lock)
    assert {pin.base: pin for pin in read(tmp_path).bases} == {pin.base: pin for pin in lock.bases}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "not YAML"),
        ("[]", "not a lock"),
        ("format: 99", "newer Ingot"),
        ("format: 1\nbases: [{base: a}]", "lacks"),
        ("format: 1\nbases: [3]", "lacks"),
        ("format: 1\nrequirements: [{kind: thing, name: x}]", "lacks"),
        ("format: 1\n<<<<<<< HEAD\nbases: []\n=======\nbases: []\n>>>>>>> x\n", "merge"),
    ],
)
def test_a_broken_lock_is_told(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "ingot.lock").write_text(text)
    with pytest.raises(DefinitionError, match=said) as caught:
        read(tmp_path)
    assert caught.value.problems[0].file == "ingot.lock"


def test_a_wrong_checksum_names_both(definition: Definition) -> None:
    wanted = "0" * 64
    base = replace(
        definition.bases["disk"], sources={"local": DiskImageBase(url="base.qcow2", sha256=wanted)}
    )
    wrong = replace(definition, bases={**definition.bases, "disk": base})
    with pytest.raises(BackendError, match=wanted) as caught:
        resolve(wrong, Lock(), update=False, fetch=fetch, find=in_cloud, images=["other"])
    assert hashlib.sha256(b"disk").hexdigest() in str(caught.value)


def test_a_url_has_the_checksum_given(definition: Definition) -> None:
    source = DiskImageBase(url="https://example.org/a.qcow2", sha256="1" * 64)
    base = replace(definition.bases["disk"], sources={"local": source})
    other = replace(definition, bases={**definition.bases, "disk": base})
    lock = resolve(other, Lock(), update=False, fetch=fetch, find=in_cloud, images=["other"])
    assert pins_of(lock, "disk", source, definition.targets["local"]) == {"sha256": "1" * 64}


def test_a_mirror_without_the_suite(definition: Definition, archive: Path) -> None:
    (archive / "dists" / "bookworm-updates" / "InRelease").unlink()
    with pytest.raises(NotFoundError, match="has no suite bookworm-updates"):
        resolve(definition, Lock(), update=False, fetch=fetch, find=in_cloud)


def test_a_component_that_is_not_there() -> None:
    release = _release(1, components="main").encode()
    with pytest.raises(BackendError, match="no component 'contrib'") as caught:
        indexes_digest(release, ("contrib",), "x86_64", suite="bookworm")
    assert caught.value.hint == "it has main"


def test_compressed_indexes_do_where_plain_ones_are_not_listed() -> None:
    lines = [line for line in _release(1).splitlines() if not line.endswith("Packages")]
    only = "\n".join(lines).encode()
    one = indexes_digest(only, ("main",), "x86_64", suite="bookworm")
    assert one != indexes_digest(only, ("main",), "aarch64", suite="bookworm")


class _Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        code = int(self.path.strip("/").split("/")[0] or 200)
        self.send_response(code)
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


def test_fetch(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert fetch(f"{server}/200") == b"hello"
    with pytest.raises(NotFoundError, match="there is no"):
        fetch(f"{server}/404")
    with pytest.raises(TransientError, match="HTTP 503"):
        fetch(f"{server}/503")
    with pytest.raises(BackendError, match="HTTP 403"):
        fetch(f"{server}/403")
    with pytest.raises(BackendError, match="cannot be downloaded"):
        fetch("ftp://127.0.0.1/x")


def test_an_unreachable_mirror(definition: Definition, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    source = definition.bases["debian"].sources["local"]
    assert isinstance(source, DebootstrapBase)
    gone = replace(source, mirror="http://127.0.0.1:9", security="")
    base = replace(definition.bases["debian"], sources={"local": gone})
    other = replace(definition, bases={**definition.bases, "debian": base})
    with pytest.raises(TransientError, match=r"the mirror http://127\.0\.0\.1:9 is not reachable: .*refused"):
        resolve(
            other, Lock(), update=False, fetch=lambda url: fetch(url, timeout=Seconds(5.0)), find=in_cloud
        )


def test_requirements_are_recorded(definition: Definition) -> None:
    root = Path(definition.root)
    (root / "requirements.yml").write_text(
        "collections:\n  - {name: acme.tools, version: '>=1.0'}\n  - acme.lost\n  - 3\nroles:\n  - {src: acme.web, version: 1.2.3}\n"
    )
    tools = root / "collections" / "ansible_collections" / "acme" / "tools"
    tools.mkdir(parents=True)
    (tools / "MANIFEST.json").write_text(json.dumps({"collection_info": {"version": "1.4.0"}}))
    meta = root / "roles" / "acme.web" / "meta"
    meta.mkdir(parents=True)
    (meta / ".galaxy_install_info").write_text("install_date: 'today'\nversion: 1.2.3\n")
    assert resolve(definition, Lock(), update=False, fetch=fetch, find=in_cloud).requirements == (
        RequirementPin(kind="collection", name="acme.lost"),
        RequirementPin(kind="collection", name="acme.tools", wanted=">=1.0", installed="1.4.0"),
        RequirementPin(kind="role", name="acme.web", wanted="1.2.3", installed="1.2.3"),
    )


@pytest.mark.network
def test_the_debian_archive(tmp_path: Path) -> None:
    text = PROJECT.format(mirror="http://deb.debian.org/debian").replace(
        'security: "http://deb.debian.org/debian"', 'security: "http://deb.debian.org/debian-security"'
    )
    (tmp_path / "base.qcow2").write_bytes(b"disk")
    (tmp_path / "ingot.yaml").write_text(text)
    definition = load(tmp_path).definition
    lock = resolve(definition, Lock(), update=False, fetch=fetch, find=in_cloud, images=["child"])
    assert set(lock.bases[0].pins) == {"bookworm", "bookworm-updates", "bookworm-security"}
