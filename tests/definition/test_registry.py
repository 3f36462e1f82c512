"""Digests of tags, asked of a real registry."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from ingot.definition.load import load
from ingot.definition.lock import describe_changes, missing_containers, read, resolve, text_of, write
from ingot.definition.registry import digest_of
from ingot.errors import DefinitionError, NotFoundError, TransientError
from ingot.model.definition import Definition
from ingot.model.lock import Lock
from ingot.model.reference import reference
from ingot.model.units import Seconds
from tests.definition.test_lock import in_cloud
from tests.registry import make_image, serving

PROJECT = """\
name: pulls
targets:
  local: {{backend: local}}
bases:
  disk: {{local: {{image: base.qcow2}}}}
images:
  node:
    base: disk
    steps:
      - containers: ["{host}/acme/hello:1.0", "{host}/acme/known@{known}"]
  big-node:
    from: node
    steps:
      - containers: {{images: ["{host}/acme/more"], with: podman}}
"""
KNOWN = "sha256:" + "a" * 64


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def project(folder: Path, host: str) -> Definition:
    (folder / "base.qcow2").write_bytes(b"disk")
    (folder / "ingot.yaml").write_text(PROJECT.format(host=host, known=KNOWN))
    return load(folder).definition


@pytest.mark.parametrize("login", [False, True])
@pytest.mark.parametrize("quiet_digest", [False, True])
def test_a_tag_is_its_index(tmp_path: Path, login: bool, quiet_digest: bool) -> None:
    digest = make_image(tmp_path, "acme/hello", "1.0", files={"hello": "hi\n"})
    with serving(tmp_path, login=login, quiet_digest=quiet_digest) as (host, asked):
        assert digest_of(reference(f"{host}/acme/hello:1.0")) == digest
    assert [line.split("?")[0] for line in asked] == [
        "HEAD /v2/acme/hello/manifests/1.0",
        *(["GET /token", "HEAD /v2/acme/hello/manifests/1.0"] if login else []),
        *(["GET /v2/acme/hello/manifests/1.0"] if quiet_digest else []),
    ]


def test_a_tag_that_is_not_there(tmp_path: Path) -> None:
    make_image(tmp_path, "acme/hello", "1.0", files={})
    with serving(tmp_path) as (host, _), pytest.raises(NotFoundError) as told:
        digest_of(reference(f"{host}/acme/hello:2.0"))
    assert told.value.message == f"the registry {host} has no {host}/acme/hello:2.0"


def test_a_registry_that_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(TransientError, match=r"is not reachable: .*refused") as told:
        digest_of(reference(f"127.0.0.1:{port}/acme/hello"), timeout=Seconds(5.0))
    assert told.value.hint == (
        f"check the network, or write the image by its digest: `127.0.0.1:{port}/acme/hello@sha256:…`"
    )


def test_the_lock_holds_what_tags_mean(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    first = make_image(tmp_path, "acme/hello", "1.0", files={"hello": "hi\n"})
    more = make_image(tmp_path, "acme/more", "latest", files={"more": "more\n"})
    with serving(tmp_path) as (host, asked):
        definition = project(folder, host)
        hello, later = f"{host}/acme/hello:1.0", f"{host}/acme/more:latest"
        assert missing_containers(definition, Lock()) == (hello, later)
        lock = resolve(definition, Lock(), update=False, fetch=no_fetch, find=in_cloud)
        assert lock.digests == {hello: first, later: more}
        write(folder, lock)
        assert read(folder) == lock
        moved = make_image(tmp_path, "acme/hello", "1.0", files={"hello": "hello\n"})
        asked.clear()
        assert resolve(definition, lock, update=False, fetch=no_fetch, find=in_cloud) == lock
        assert asked == []
        # One image's pins are looked up alone; those of others stay.
        part = resolve(definition, lock, update=True, fetch=no_fetch, find=in_cloud, images=["node"])
        assert part.digests == {hello: moved, later: more}
        assert list(describe_changes(lock, part)) == [f"{hello}: {first[7:19]} → {moved[7:19]}"]
    assert missing_containers(definition, part, ["big-node"]) == ()
    assert set(missing_containers(definition, Lock(), ["big-node"])) == {later, hello}


def no_fetch(url: str) -> bytes:
    raise AssertionError(url)


def test_a_lock_without_containers_is_as_it_was() -> None:
    assert "containers" not in text_of(Lock())


def test_a_digest_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "ingot.lock").write_text("format: 1\ncontainers:\n- {image: a, digest: b}\n")
    with pytest.raises(DefinitionError, match="lacks what it needs"):
        read(tmp_path)
