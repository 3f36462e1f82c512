"""Layers that leave this computer, and those that come: only what was scanned goes, only what was promised is kept."""

from __future__ import annotations

import shutil
import struct
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ingot.backends.local.backend import LocalBackend, open_backend
from ingot.errors import BackendError, NotFoundError, RefusedError
from ingot.model.image import LayerRef
from ingot.model.plan import content_id
from ingot.model.secret import Secret
from ingot.model.units import Bytes
from ingot.ports import BackendSettings, Needle, Parcel
from ingot.system.files import file_digest
from ingot.system.waits import Flag
from tests.local_fixtures import Site, cached_base, key, sh, site

__all__ = ["cached_base", "site"]

pytestmark = pytest.mark.local

SECRET = "q8Zt0kP3vWx9LmN2aBcD"
NEEDLE = Needle(name="the secret token", value=Secret(SECRET))


def finished(site: Site, name: str, *scripts: str) -> list[LayerRef]:
    """A layer for each script and one that seals, scanned as a build does it."""
    layers = []
    with site.machine(f"ingot-{name}-1") as machine:
        for number, script in enumerate(scripts):
            sh(site.attach(machine), script)
            layers.append(site.freeze(machine, f"{name}-{number}"))
        site.attach(machine)
        assert site.backend.hosts.scan(machine, [NEEDLE], cancel=Flag()) == ()
        layers.append(site.freeze(machine, f"{name}-seal", sealed=True, scanned=True))
    return layers


def given(site: Site, layer: LayerRef, *needles: Needle) -> Path:
    """The file of a layer that may leave."""
    carrier = site.backend.carrier
    with carrier.opened(carrier.chain(layer.content)[-1], needles, cancel=Flag()) as file:
        return file


def test_all_layers_of_a_disk_found_clean_may_leave(site: Site) -> None:
    layers = finished(site, "clean", "echo one > /etc/one", "echo two > /etc/two")
    for layer in (site.base, *layers):
        assert given(site, layer, NEEDLE) == Path(layer.ref)
    chain = site.backend.carrier.chain(layers[-1].content)
    assert [parcel.content for parcel in chain] == [layer.content for layer in (site.base, *layers)]
    assert [parcel.scanned for parcel in chain] == [True, False, False, True]


def test_what_no_scan_has_read_stays(site: Site) -> None:
    layer = site.layer("unscanned", "echo x > /etc/x")
    with pytest.raises(RefusedError, match="no leak scan has read it"):
        given(site, layer)


@pytest.mark.parametrize(
    "script", [f"echo {SECRET} > /root/token", "ssh-keygen -q -t ed25519 -N '' -f /root/token"]
)
def test_a_secret_that_a_layer_above_overwrites_stays(site: Site, script: str) -> None:
    """The disk is clean, and so is its export; the layer below still has it."""
    name = f"hidden{len(script)}"
    holding, clean, seal = finished(site, name, script, "shred -z -u -n 1 /root/token; sync")
    with pytest.raises(RefusedError, match="which a layer above it deletes or overwrites") as raised:
        given(site, holding, NEEDLE)
    assert raised.value.hint
    assert given(site, clean, NEEDLE) and given(site, seal, NEEDLE)


def test_a_secret_that_the_scan_did_not_know_yet(site: Site) -> None:
    """Layers between were not scanned for it; the base and the sealed one are read again."""
    later = Needle(name="the secret later", value=Secret("Wx9LmN2aBcDq8Zt0kP3v"))
    between, seal = finished(site, "later", "echo harmless > /etc/harmless")
    with pytest.raises(RefusedError, match="no leak scan has read it for all"):
        given(site, between, later)
    assert given(site, seal, later)


def test_a_sealed_layer_or_a_base_with_a_secret_of_now_stays(site: Site) -> None:
    later = Needle(name="the secret later", value=Secret("BcDq8Zt0kP3vWx9LmN2a"))
    with site.machine("ingot-sealed-1") as machine:
        sh(machine, "echo BcDq8Zt0kP3vWx9LmN2a > /etc/later")
        assert site.backend.hosts.scan(machine, [], cancel=Flag()) == ()
        seal = site.freeze(machine, "sealed-with-it", sealed=True, scanned=True)
    assert given(site, seal)
    with pytest.raises(RefusedError, match="it holds the secret later in the block at byte"):
        given(site, seal, later)
    os_release = Needle(name="the secret of the base", value=Secret("PRETTY_NAME="))
    with pytest.raises(RefusedError, match="it holds the secret of the base"):
        given(site, site.base, os_release)


def test_a_damaged_layer_stays(site: Site) -> None:
    (layer,) = finished(site, "damaged")
    parcel = site.backend.carrier.chain(layer.content)[-1]
    path = Path(layer.ref)
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    with (
        pytest.raises(NotFoundError, match="damaged"),
        site.backend.carrier.opened(parcel, [], cancel=Flag()),
    ):
        pass


@pytest.fixture
def other(tmp_path: Path) -> LocalBackend:
    """A second computer's backend, with nothing in it."""
    return open_backend(BackendSettings(state=tmp_path, directory=tmp_path / "runs", root=tmp_path))


def arrived(other: LocalBackend, source: str | Path, tmp_path: Path) -> Path:
    file = tmp_path / "local" / "arrived"
    file.parent.mkdir(exist_ok=True)
    shutil.copyfile(source, file)
    return file


def parcels(site: Site, layer: LayerRef) -> tuple[Parcel, ...]:
    return site.backend.carrier.chain(layer.content)


def test_layers_are_the_same_on_another_computer(site: Site, other: LocalBackend, tmp_path: Path) -> None:
    (layer,) = finished(site, "moved")
    for parcel in parcels(site, layer):
        source = site.backend.store.file(parcel.content)
        taken = other.carrier.take(arrived(other, source, tmp_path), parcel)
        assert taken.content == parcel.content and other.layer(parcel.key) == taken
    assert other.carrier.chain(layer.content) == parcels(site, layer)


def test_a_layer_without_what_it_stands_on_is_not_kept(
    site: Site, other: LocalBackend, tmp_path: Path
) -> None:
    (layer,) = finished(site, "alone")
    with pytest.raises(NotFoundError, match="the layer below it"):
        other.carrier.take(arrived(other, layer.ref, tmp_path), parcels(site, layer)[-1])
    assert other.layer(layer.key) is None


def test_other_bytes_than_were_promised_are_not_kept(site: Site, other: LocalBackend, tmp_path: Path) -> None:
    (parcel,) = parcels(site, site.base)
    file = arrived(other, site.base.ref, tmp_path)
    with file.open("r+b") as opened:
        opened.seek(-1, 2)
        opened.write(b"\xff")
    with pytest.raises(BackendError, match="not those that were promised"):
        other.carrier.take(file, parcel)
    file = arrived(other, site.base.ref, tmp_path)
    with pytest.raises(BackendError, match="another size"):
        other.carrier.take(file, replace(parcel, disk=Bytes(parcel.disk * 2)))
    assert other.layer(parcel.key) is None and list(other.store.layers()) == []


@pytest.mark.parametrize("offset", [8, 72], ids=["backing file", "data file"])
def test_a_disk_that_names_other_files_is_not_kept(other: LocalBackend, tmp_path: Path, offset: int) -> None:
    """Even if somebody allowed has signed it, and every checksum holds."""
    head = struct.pack(">4sIQIIQIIQQIIQQQ", b"QFI\xfb", 3, 0, 0, 16, 2**20, 0, 1, 0, 0, 1, 0, 0, 0, 0)
    data = bytearray(head.ljust(4096, b"\0"))
    struct.pack_into(">Q", data, offset, 4 if offset == 72 else 512)
    file = tmp_path / "local" / "arrived"
    file.parent.mkdir()
    file.write_bytes(data)
    checksum = file_digest(file)
    parcel = Parcel(
        key=key("foreign"),
        content=content_id(None, checksum),
        parent=None,
        kind="qcow2",
        file=checksum,
        bytes=Bytes(file.stat().st_size),
        disk=Bytes(2**20),
        created="2026-11-21T10:00:00+00:00",
        sealed=True,
        scanned=True,
    )
    with pytest.raises(BackendError, match="refers to another file"):
        other.carrier.take(file, parcel)
    assert other.layer(parcel.key) is None


def test_a_layer_from_the_future_is_of_now(site: Site, other: LocalBackend, tmp_path: Path) -> None:
    """Else what is built on it would look older than it, and the leak scan would pass its files over."""
    (parcel,) = parcels(site, site.base)
    early = replace(parcel, created="2039-01-01T00:00:00+00:00")
    taken = other.carrier.take(arrived(other, site.base.ref, tmp_path), early)
    assert datetime.fromisoformat(taken.created) <= datetime.now(UTC)
