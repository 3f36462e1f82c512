from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ingot.api.keeping import forget
from ingot.backends.memory.backend import MemoryBackend
from ingot.model.image import Image
from ingot.model.plan import ContentId, LayerKey
from ingot.model.units import Bytes
from ingot.stores.catalog import Catalog


def test_what_goes_here_is_still_known_elsewhere(tmp_path: Path) -> None:
    backend = MemoryBackend(root=tmp_path / "cloud")
    content = ContentId("sha256:" + "1" * 64)
    here = Image(
        name="node",
        backend=backend.name,
        location=backend.location,
        ref="here-1",
        digest=content,
        key=LayerKey("sha256:" + "2" * 64),
        arch="x86_64",
        size=Bytes(2**30),
        created="2026-01-01T00:00:00+00:00",
    )
    with Catalog(tmp_path / "catalog.sqlite") as catalog:
        for image in (here, replace(here, backend="aws", location="us-west-2", ref="ami-1")):
            assert catalog.record("acme", image, target="aws", run="r") == 1
        forget(catalog, backend, content)
        assert [entry.ref for entry in catalog.images("acme")] == ["ami-1"]
