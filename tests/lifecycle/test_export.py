from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ingot.errors import NotFoundError, PlanError, RefusedError, UsageError
from ingot.lifecycle.export import decide_output, export, guess_format
from ingot.model.image import Image
from ingot.model.plan import ContentId, LayerKey
from ingot.model.units import Bytes
from ingot.ports import Backend
from ingot.system.waits import Flag
from tests.local_fixtures import Site, cached_base, sh, site

__all__ = ["cached_base", "site"]

ENDINGS = {"qcow2": ".qcow2", "raw": ".raw", "vhd": ".vhd", "gce": ".tar.gz"}
IMAGE = Image(
    name="node", backend="local", location="local", ref="r", digest=ContentId("c"), key=LayerKey("k"),
    arch="x86_64", size=Bytes(1), created="",
)  # fmt: skip


def test_a_folder_gets_a_file_named_after_the_image(tmp_path: Path) -> None:
    assert decide_output(IMAGE, format="vhd", output=tmp_path, endings=ENDINGS) == tmp_path / "node.vhd"
    named = tmp_path / "my.disk"
    assert decide_output(IMAGE, format="vhd", output=named, endings=ENDINGS) == named


def test_an_unknown_format_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'vdi'") as error:
        decide_output(IMAGE, format="vdi", output=tmp_path, endings=ENDINGS)
    assert "gce, qcow2, raw, vhd" in error.value.hint


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.vhd", "vhd"), ("a.tar.gz", "gce"), ("a.raw", "raw"), ("a", "qcow2"), ("a.img", "qcow2")],
)
def test_the_format_is_guessed_by_the_ending(name: str, expected: str) -> None:
    assert guess_format(Path(name), ENDINGS) == expected


def test_a_backend_that_cannot_export_says_so(tmp_path: Path) -> None:
    backend = cast("Backend", SimpleNamespace(name="cloud", exporter=None))
    with pytest.raises(PlanError, match="'cloud' cannot be exported"):
        export(IMAGE, format="raw", output=tmp_path, backend=backend, cancel=Flag())


def image(site: Site, name: str) -> Image:
    """An image of two layers on the base, the upper of which deletes what the lower wrote."""
    below = site.layer(f"{name}-below", "yes below | head -c 1000000 > /etc/below; sync")
    with site.machine(f"ingot-{name}-1", below) as machine:
        sh(machine, "shred -z -u -n 1 /etc/below; echo above > /etc/above")
        layer = site.freeze(machine, name, sealed=True)
    return site.backend.images.register(layer, name, arch="x86_64", labels={})


@pytest.mark.local
def test_an_image_is_written_flat(site: Site, tmp_path: Path) -> None:
    made = image(site, "flat")
    backend: Any = site.backend
    for form in ("qcow2", "raw"):
        path = export(made, format=form, output=tmp_path, backend=backend, cancel=Flag())
        assert path == tmp_path / f"flat.{form}"
        about = json.loads(subprocess.check_output(["qemu-img", "info", "-f", form, "--output=json", path]))
        assert about["virtual-size"] == made.size and "backing-filename" not in about
    same = ["qemu-img", "compare", "-f", "qcow2", "-F", "raw"]
    subprocess.run([*same, tmp_path / "flat.qcow2", tmp_path / "flat.raw"], check=True, capture_output=True)
    disk = (tmp_path / "flat.raw").read_bytes()
    assert b"above\n" in disk and b"below\nbelow\nbelow\n" not in disk


@pytest.mark.local
def test_a_file_that_is_there_is_replaced_by_force_alone(site: Site, tmp_path: Path) -> None:
    made = image(site, "there")
    backend: Any = site.backend
    output = tmp_path / "disk.qcow2"
    output.write_text("mine")
    with pytest.raises(RefusedError, match="is there already"):
        export(made, format="qcow2", output=output, backend=backend, cancel=Flag())
    assert output.read_text() == "mine"
    export(made, format="qcow2", output=output, backend=backend, cancel=Flag(), force=True)
    assert output.read_bytes()[:4] == b"QFI\xfb"


@pytest.mark.local
def test_a_damaged_layer_is_found_before_anything_is_written(site: Site, tmp_path: Path) -> None:
    made = image(site, "damaged")
    backend: Any = site.backend
    file = Path(made.ref)
    before = file.stat()
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.chmod(0o600)
    file.write_bytes(data)
    # As a failing disk would do it: nothing but the bytes tells.
    subprocess.run(["touch", "-d", f"@{before.st_mtime_ns / 1e9:.9f}", file], check=True)
    with pytest.raises(NotFoundError, match="damaged"):
        export(made, format="raw", output=tmp_path, backend=backend, cancel=Flag())
    assert not list(tmp_path.iterdir())
