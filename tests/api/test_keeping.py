from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ingot.api.keeping import forget, newest_layers
from ingot.backends.memory.backend import MemoryBackend
from ingot.model.image import Image, LayerRecord, Manifest
from ingot.model.plan import ContentId, LayerKey
from ingot.model.units import Bytes, Seconds
from ingot.stores.catalog import Catalog


def image(backend: MemoryBackend, number: int) -> Image:
    return Image(
        name="node",
        backend=backend.name,
        location=backend.location,
        ref=f"here-{number}",
        digest=ContentId(f"sha256:{number}" + "1" * 63),
        key=LayerKey(f"sha256:{number}" + "2" * 63),
        arch="x86_64",
        size=Bytes(2**30),
        created="2026-01-01T00:00:00+00:00",
    )


def made_of(one: Image, *names: str) -> Manifest:
    layers = tuple(
        LayerRecord(
            name=name, key=LayerKey(f"sha256:{name}"), status="built", seconds=Seconds(1.0), bytes=Bytes(0)
        )
        for name in names
    )
    return Manifest(
        image=one.name,
        target="aws",
        digest=one.digest,
        project="acme",
        arch=one.arch,
        ingot="0",
        created=one.created,
        run="r",
        layers=layers,
        packages=(),
    )


def test_the_layers_of_the_newest_versions_are_told_by_their_manifests(tmp_path: Path) -> None:
    backend = MemoryBackend(root=tmp_path / "cloud")
    with Catalog(tmp_path / "catalog.sqlite") as catalog:
        for number, names in ((1, ("base", "one", "old")), (2, ("base", "one", "new"))):
            one = image(backend, number)
            catalog.record("acme", one, target="aws", run=f"r{number}", manifest=made_of(one, *names))
        assert newest_layers(catalog, backend) == {"sha256:base", "sha256:one", "sha256:new"}


def test_what_goes_here_is_still_known_elsewhere(tmp_path: Path) -> None:
    backend = MemoryBackend(root=tmp_path / "cloud")
    here = image(backend, 1)
    with Catalog(tmp_path / "catalog.sqlite") as catalog:
        for one in (here, replace(here, backend="aws", location="us-west-2", ref="ami-1")):
            assert catalog.record("acme", one, target="aws", run="r") == 1
        forget(catalog, backend, here.digest)
        assert [entry.ref for entry in catalog.images("acme")] == ["ami-1"]
