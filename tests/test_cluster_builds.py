"""Real disks built by the workers of a dask cluster, one of which is killed in the middle of a job."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ingot.model.units import Seconds
from ingot.system.waits import Flag, poll
from tests.cluster import cluster
from tests.local_fixtures import cached_base
from tests.test_killed_builds import leftovers

__all__ = ["cached_base"]

DEFINITION = """\
name: cluster
targets:
  local: {backend: local, disk: 3 GiB}
bases:
  small:
    local: {image: base.qcow2}
images:
  one:
    base: small
    targets: [local]
    steps:
      - script: {inline: "echo one > /etc/first"}
        layer: first
      - playbook: site.yml
  two:
    base: small
    targets: [local]
    steps:
      - script: {inline: "echo two > /etc/first"}
        layer: first
      - playbook: site.yml
  three:
    from: one
    steps:
      - script: {inline: "grep -x one /etc/first && test -e /root/went"}
"""
PLAYBOOK = """\
- hosts: all
  gather_facts: false
  tasks:
    - name: Wait for a word
      ansible.builtin.wait_for: {path: "{{ playbook_dir }}/go", timeout: 900}
      delegate_to: localhost
    - name: Go on
      ansible.builtin.copy: {dest: /root/went, content: "on\\n"}
"""


def told(state: Path, kind: str) -> list[dict[str, Any]]:
    """The events of a kind that jobs told, each with the run that told it as `by`."""
    return [
        {**event, "by": file.parent.name}
        for file in sorted(state.glob("runs/*-j*/events.jsonl"))
        for event in (json.loads(line) for line in file.read_text().splitlines() if line.endswith("}"))
        if event["event"] == kind
    ]


def process_of(state: Path, run: str) -> int:
    """The process that holds the lock of a run."""
    return int((state / "runs" / run / "lock").read_text())


@pytest.mark.local
def test_a_killed_worker_leaves_nothing_and_the_build_finishes(cached_base: Path, tmp_path: Path) -> None:
    project, state = tmp_path / "project", tmp_path / "state"
    project.mkdir()
    shutil.copyfile(cached_base, project / "base.qcow2")
    (project / "ingot.yaml").write_text(DEFINITION)
    (project / "site.yml").write_text(PLAYBOOK)

    def both_in_their_playbooks() -> bool | None:
        assert build.poll() is None, build.communicate()
        steps = [event for event in told(state, "StepStarted") if event["step"] == "playbook site.yml"]
        return True if len(steps) == 2 else None

    with cluster(tmp_path / "cluster") as dask:
        build = subprocess.Popen(
            [sys.executable, "-m", "ingot", "build", "--json", "--executor", dask.address],
            cwd=project,
            env={**os.environ, "INGOT_STATE": str(state)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            poll(
                both_in_their_playbooks,
                what="the playbook of each image",
                every=Seconds(0.1),
                deadline=Seconds(600.0),
                cancel=Flag(),
            )
            (victim,) = {
                event["by"] for event in told(state, "StepStarted") if event["subject"].startswith("one/")
            }
            before = leftovers(state)
            assert any("mapper" in left or "disk" in left or "work" in left for left in before)
            dask.worker_of(process_of(state, victim)).send_signal(signal.SIGKILL)
            (project / "go").write_text("go\n")
            out, err = build.communicate(timeout=900)
        finally:
            build.kill()
            build.communicate()
    assert build.returncode == 0, err
    outcomes = {one["image"]: one for one in json.loads(out)["outcomes"]}
    assert {name: one["status"] for name, one in outcomes.items()} == dict.fromkeys(
        ("one", "two", "three"), "built"
    )
    # The second attempt stood on what the first had finished.
    assert [layer["status"] for layer in outcomes["one"]["layers"]] == ["reused", "reused", "built", "built"]
    again = [event for event in told(state, "JobStarted") if event["attempt"] == 2]
    assert [event["subject"] for event in again] == ["one/local"]
    swept = [event["ref"] for event in told(state, "ResourceClosed") if event["by"] == again[0]["run"]]
    assert any(victim in ref for ref in swept)
    assert leftovers(state) == []
    assert not list(state.glob("runs/*/journal.jsonl"))
    layers = {layer["key"] for one in outcomes.values() for layer in one["layers"]}
    assert layers == known_layers(state)


def known_layers(state: Path) -> set[str]:
    """The keys of the layers in the store: none that is half there, none that no image stands on."""
    from ingot.backends.local.backend import open_backend
    from ingot.ports import BackendSettings

    backend = open_backend(BackendSettings(state=state, directory=state / "runs", root=state))
    return {layer.ref.key for layer in backend.layers.layers()}
