"""Container images pulled into an image, by its definition, from a real registry that is on the machine too."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from ingot.api import Workspace
from ingot.backends.local.backend import open_backend
from ingot.backends.local.holder import mounted
from ingot.errors import PlanError
from ingot.model.image import Outcome
from ingot.model.plan import LayerKey
from ingot.ports import BackendSettings
from tests import registry
from tests.local_fixtures import cached_base
from tests.registry import make_image, serving

__all__ = ["cached_base"]

# The machine cannot reach the builder's 127.0.0.1: the same registry runs on its own, in the layer that pulls.
PROJECT = """\
name: pulls
targets:
  local: {{backend: local, disk: 3 GiB}}
bases:
  small:
    local: {{image: base.qcow2}}
images:
  node:
    base: small
    machine: booted
    steps:
      - packages: [{packages}]
      - files:
          - {{src: registry, dest: /run/registry}}
          - {{src: registry.py, dest: /run/registry.py}}
          - dest: /run/systemd/system/registry.service
            text: |
              [Service]
              ExecStart=/usr/bin/python3 /run/registry.py /run/registry {port}
        layer: pulled
      - script: {{inline: systemctl daemon-reload && systemctl start registry}}
        layer: pulled
      - containers: {wanted}
        layer: pulled
"""
FILES = {"hello": "hi\n", "etc/.wh..wh..opq": "", "etc/motd": "of the second layer\n"}


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


def write_project(folder: Path, base: Path, *, packages: str, host: str, wanted: str) -> str:
    """A project that pulls `acme/hello:1.0`, which is in `served` too; the image's digest."""
    shutil.copyfile(base, folder / "base.qcow2")
    shutil.copyfile(registry.__file__, folder / "registry.py")
    digest = make_image(folder / "registry", "acme/hello", "1.0", files=FILES)
    shutil.copytree(folder / "registry", folder / "served")
    port = host.rpartition(":")[2]
    text = PROJECT.format(packages=packages, port=port, wanted=wanted.format(host=host))
    (folder / "ingot.yaml").write_text(text)
    return digest


def build(folder: Path, state: Path) -> Outcome:
    (outcome,) = Workspace.open(folder, state=state).build().outcomes
    assert not list((state / "local" / "work").glob("*"))
    return outcome


def read_disk(folder: Path, state: Path, key: LayerKey, *paths: str) -> tuple[list[str | None], list[str]]:
    """Files of a layer's disk, and the folders below /var/lib that hide what is below them, as the real root sees it."""
    backend = open_backend(BackendSettings(state=state, directory=state / "runs" / "look", root=folder))
    layer = backend.layer(key)
    assert layer
    chain = backend.store.chain(layer.content)
    assert chain
    with mounted(backend.store.files(chain), folder / "mounted", writable=False) as held:
        root = held.outside(held.root)
        opaque = [
            place.removeprefix(str(root))
            for place, _, _ in os.walk(root / "var/lib")
            if "trusted.overlay.opaque" in os.listxattr(place, follow_symlinks=False)
        ]
        return held.read(*paths), opaque


@pytest.mark.local
def test_podman_pulls_what_the_lock_names(cached_base: Path, tmp_path: Path, state: Path) -> None:
    with serving(tmp_path / "served") as (host, _):
        digest = write_project(
            tmp_path, cached_base, packages="podman, crun", host=host, wanted='["{host}/acme/hello:1.0"]'
        )
        outcome = build(tmp_path, state)
        assert outcome.error is None, json.dumps(outcome.error)
        assert digest in (tmp_path / "ingot.lock").read_text()
        place = "/var/lib/containers/storage/overlay-images/images.json"
        (text,), opaque = read_disk(tmp_path, state, outcome.layers[-1].key, place)
        (image,) = json.loads(text or "[]")
        assert f"{host}/acme/hello:1.0" in image["names"]
        assert digest in (image["digest"], *image.get("big-data-digests", {}).values()) or digest in str(
            image
        )
        # The system's own root could not write this mark, and without it files of lower layers would be seen again.
        assert [Path(place).name for place in opaque] == ["etc"]
        # What the tag means meanwhile changes nothing, until the lock is told to look.
        make_image(tmp_path / "served", "acme/hello", "1.0", files={"hello": "hello\n"})
        before = Workspace.open(tmp_path, state=state).plan()[0]
        Workspace.open(tmp_path, state=state).lock(update=True)
        after = Workspace.open(tmp_path, state=state).plan()[0]
    assert before.layers[2].key == outcome.layers[2].key
    (news,) = [layer.reason for layer in after.layers if layer.name == after.layers[2].name]
    assert after.layers[2].key != before.layers[2].key
    assert news


@pytest.mark.local
def test_docker_pulls_with_its_daemon(cached_base: Path, tmp_path: Path, state: Path) -> None:
    with serving(tmp_path / "served") as (host, _):
        digest = write_project(
            tmp_path,
            cached_base,
            packages="docker.io, iptables",
            host=host,
            wanted='{{images: ["{host}/acme/hello:1.0"], with: docker}}',
        )
        outcome = build(tmp_path, state)
    assert outcome.error is None, json.dumps(outcome.error)
    place = "/var/lib/docker/image/overlay2/repositories.json"
    (text,), _ = read_disk(tmp_path, state, outcome.layers[-1].key, place)
    names = json.loads(text or "{}")["Repositories"][f"{host}/acme/hello"]
    assert {f"{host}/acme/hello:1.0", f"{host}/acme/hello@{digest}"} <= {*names}


@pytest.mark.local
@pytest.mark.parametrize(
    ("wanted", "message", "hint"),
    [
        (
            '["{host}/acme/hello:1.0"]',
            "the machine has none of podman, docker, enroot, apptainer, which could pull container images",
            "install it in a step before: the package `podman`",
        ),
        (
            '{{images: ["{host}/acme/hello:1.0"], with: enroot}}',
            "the machine has no enroot, which could pull container images",
            "install it in a step before: NVIDIA's package `enroot`; Debian has none",
        ),
    ],
)
def test_what_pulls_is_missing(
    cached_base: Path, tmp_path: Path, state: Path, wanted: str, message: str, hint: str
) -> None:
    with serving(tmp_path / "served") as (host, _):
        write_project(tmp_path, cached_base, packages="procps", host=host, wanted=wanted)
        text = (tmp_path / "ingot.yaml").read_text().replace("      - packages: [procps]\n", "")
        (tmp_path / "ingot.yaml").write_text(text)
        error = build(tmp_path, state).error
    assert error is not None
    assert (error["code"], error["message"], error["hint"]) == (5, message, hint)


def test_without_pins_a_locked_build_refuses(cached_base: Path, tmp_path: Path) -> None:
    write_project(
        tmp_path, cached_base, packages="podman", host="127.0.0.1:9", wanted='["{host}/acme/hello:1.0"]'
    )
    with pytest.raises(PlanError, match=r"has no pins for small, 127\.0\.0\.1:9/acme/hello:1\.0"):
        Workspace.open(tmp_path, state=tmp_path / "state").plan(locked=True)
