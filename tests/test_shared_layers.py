"""Computers that share layers: whole builds over one cache, each computer a state folder of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.local_fixtures import cached_base
from tests.test_killed_builds import leftovers

__all__ = ["cached_base"]

pytestmark = pytest.mark.local

SECRET = "q8Zt0kP3vWx9LmN2aBcD"
DEFINITION = """\
name: shared
cache: {url: "${cache}", key: "${key}"}
variables:
  cache: {type: string}
  key: {type: string, default: ""}
  word: {type: string, default: hello}
  token: {sensitive: true, env: TOKEN}
targets:
  local: {backend: local, disk: 3 GiB}
bases:
  small:
    local: {image: base.qcow2}
images:
  node:
    base: small
    steps:
      - script: {inline: "cat /proc/sys/kernel/random/uuid > /etc/one"}
      - script: {inline: "echo ${word} > /etc/two"}
  leaky:
    base: small
    steps:
      - script: {inline: "echo ${token} > /root/token"}
      - script: {inline: "shred -z -u -n 1 /root/token; sync"}
"""
LAYERS = ["small", "script", "script-2", "seal"]


class Computers:
    """A project, a builder's key that it allows, and a cache."""

    def __init__(self, root: Path, base: Path) -> None:
        self.root = root
        self.cache = root / "cache"
        self.key = root / "builder"
        self.project = root / "project"
        self.project.mkdir()
        (self.project / "ingot.yaml").write_text(DEFINITION)
        os.link(base, self.project / "base.qcow2")
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)]
        subprocess.run(words, check=True)
        public = self.key.with_suffix(".pub").read_text()
        (self.project / "ingot.signers").write_text(f'builder@here namespaces="ingot-layer" {public}')

    def state(self, name: str) -> Path:
        return self.root / name

    def run(
        self, name: str, *words: str, url: str = "", within: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """The program on the computer of this name."""
        address = url or self.cache.as_uri()
        argv = [*within, sys.executable, "-m", "ingot", *words, "-C", str(self.project)]
        return subprocess.run(
            [*argv, "--json", "--var", f"cache={address}"],
            env={**os.environ, "INGOT_STATE": str(self.state(name)), "TOKEN": SECRET},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,
        )

    def build(self, name: str, *words: str, image: str = "node", **how: Any) -> dict[str, Any]:
        """The outcome of a build that must succeed, with what was told on the way."""
        done = self.run(name, "build", image, *words, **how)
        assert done.returncode == 0, done.stderr
        (outcome,) = json.loads(done.stdout)["outcomes"]
        return {**outcome, "said": done.stderr}

    @property
    def pushing(self) -> tuple[str, str]:
        return "--var", f"key={self.key}"

    def records(self) -> set[str]:
        return {path.stem for path in self.cache.rglob("*.json")}


def layers(outcome: dict[str, Any]) -> list[tuple[str, str, bool]]:
    return [(layer["name"], layer["status"], layer["pulled"]) for layer in outcome["layers"]]


PULLED = [(name, "reused", True) for name in LAYERS]
BUILT = [(name, "built", False) for name in LAYERS]
THERE = [(name, "reused", False) for name in LAYERS]


@pytest.fixture(scope="module")
def given(cached_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Computers, dict[str, Any]]:
    """One computer has built and pushed."""
    computers = Computers(tmp_path_factory.mktemp("shared"), cached_base)
    outcome = computers.build("first", *computers.pushing)
    assert layers(outcome) == BUILT
    return computers, outcome


def test_a_second_computer_builds_nothing(given: tuple[Computers, dict[str, Any]]) -> None:
    computers, first = given
    planned = json.loads(computers.run("second", "plan", "node").stdout)["plans"][0]
    assert planned["to_build"] == 0
    assert [(layer["status"], layer["reason"]) for layer in planned["layers"]] == [
        ("hit", "in the cache")
    ] * 4
    second = computers.build("second")
    assert layers(second) == PULLED
    assert (second["status"], second["digest"]) == ("reused", first["digest"])
    assert all(layer["seconds"] > 0 for layer in second["layers"])
    assert layers(computers.build("second")) == THERE
    assert not leftovers(computers.state("second"))
    changed = computers.build("second", "--var", "word=other")
    assert [status for _, status, _ in layers(changed)] == ["reused", "reused", "built", "built"]


def test_what_was_pushed_is_not_pushed_again(given: tuple[Computers, dict[str, Any]]) -> None:
    computers, _ = given
    before = {path: path.stat().st_mtime_ns for path in computers.cache.rglob("*")}
    again = computers.build("first", *computers.pushing)
    assert layers(again) == THERE and "pushed" not in again["said"]
    assert {path: path.stat().st_mtime_ns for path in computers.cache.rglob("*")} == before


def test_what_changed_is_pushed_and_only_that_is_pulled(given: tuple[Computers, dict[str, Any]]) -> None:
    computers, _ = given
    changed = computers.build("first", "--var", "word=new", *computers.pushing)
    assert layers(changed) == [*THERE[:2], *BUILT[2:]]
    assert re.findall(r"layer (\S+) pushed in", changed["said"]) == ["script-2", "seal"]
    second = computers.build("second", "--var", "word=new")
    assert layers(second) == [*THERE[:2], *PULLED[2:]]
    assert second["digest"] == changed["digest"]


def test_what_was_tampered_with_is_built(given: tuple[Computers, dict[str, Any]], tmp_path: Path) -> None:
    computers, first = given
    copy = tmp_path / "cache"
    shutil.copytree(computers.cache, copy, copy_function=os.link)
    key = next(layer["key"] for layer in first["layers"] if layer["name"] == "script")
    (path,) = (copy / key[7:]).glob("*.zst")
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    outcome = computers.build("careful", url=copy.as_uri())
    assert "its bytes are not those that were signed" in outcome["said"] and "hint:" in outcome["said"]
    assert layers(outcome) == [*PULLED[:1], *BUILT[1:]]
    assert not leftovers(computers.state("careful"))


def test_a_layer_with_a_secret_is_never_pushed(given: tuple[Computers, dict[str, Any]]) -> None:
    """The image is clean, for a later step overwrites it; the layer below is not."""
    computers, _ = given
    before = computers.records()
    outcome = computers.build("first", *computers.pushing, image="leaky")
    assert [status for _, status, _ in layers(outcome)] == ["reused", "built", "built", "built"]
    assert "is not shared, nor what stands on it: it holds what looks like a secret" in outcome["said"]
    assert computers.records() == before


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("mount -t tmpfs -o size=8m none CACHE", "No space left on device"),
        ("mount -t tmpfs -o ro none CACHE", "Read-only file system"),
    ],
    ids=["full", "read-only"],
)
def test_a_cache_that_takes_nothing_is_no_reason_to_fail(
    given: tuple[Computers, dict[str, Any]], tmp_path: Path, trouble: str, said: str
) -> None:
    computers, _ = given
    script = trouble.replace("CACHE", str(tmp_path)) + '; exec "$@"'
    within = ("unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "sh")
    outcome = computers.build("first", *computers.pushing, url=tmp_path.as_uri(), within=within)
    assert outcome["status"] == "reused"
    assert "cannot be used" in outcome["said"] and said in outcome["said"]
    assert not leftovers(computers.state("first"))


def test_a_cache_out_of_reach_is_no_reason_to_fail(given: tuple[Computers, dict[str, Any]]) -> None:
    computers, _ = given
    words = ("--var", "word=offline", *computers.pushing)
    outcome = computers.build("first", *words, url="ftp://127.0.0.1:9/layers")
    assert layers(outcome) == [*THERE[:2], *BUILT[2:]]
    assert outcome["said"].count("cannot be used: it could not be listed") == 1
    assert "what was built is not shared" in outcome["said"]
