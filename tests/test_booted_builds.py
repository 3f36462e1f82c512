"""A build that goes from a chroot to the booted system and back, by its definition."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ingot.api import Workspace
from ingot.errors import PlanError
from tests.local_fixtures import cached_base

__all__ = ["cached_base"]

DEFINITION = """\
name: booted
targets:
  local: {backend: local, disk: 3 GiB}
bases:
  small:
    local: {image: base.qcow2}
images:
  node:
    base: small
    targets: [local]
    steps:
      - script: {inline: "ls -d /run/systemd/system && exit 1; cp /etc/hostname /root/from-chroot"}
        layer: prepared
      - playbook: site.yml
        machine: booted
      - script: {inline: "test ! -d /run/systemd/system && grep -x active /root/from-booted"}
        layer: looked-at
    checks: [test_system.py]
    check_machine: booted
"""
CHECK = """\
def test_services_run(host):
    assert host.service("ssh").is_running
    assert host.file("/root/from-booted").content_string == "active\\n"
"""
PLAYBOOK = """\
- hosts: all
  tasks:
    - name: Write a unit
      ansible.builtin.copy:
        dest: /etc/systemd/system/answer.service
        content: |
          [Service]
          ExecStart=/bin/sleep infinity
    - name: Start it
      ansible.builtin.systemd_service: {name: answer, state: started, daemon_reload: true}
    - name: See that it runs
      ansible.builtin.command: systemctl is-active answer
      register: said
      changed_when: false
    - name: Leave a word
      ansible.builtin.copy: {dest: /root/from-booted, content: "{{ said.stdout }}\\n"}
"""


@pytest.mark.local
def test_from_chroot_to_booted_and_back(cached_base: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    shutil.copyfile(cached_base, project / "base.qcow2")
    (project / "ingot.yaml").write_text(DEFINITION)
    (project / "site.yml").write_text(PLAYBOOK)
    (project / "test_system.py").write_text(CHECK)
    events: list[object] = []
    workspace = Workspace.open(project, state=tmp_path / "state")
    built = workspace.build(emit=events.append)
    (outcome,) = built.outcomes
    assert outcome.error is None, json.dumps(outcome.error)
    assert [layer.status for layer in outcome.layers] == ["built"] * 5
    checked = workspace.check().outcomes[0]
    assert checked.error is None and checked.checks is not None, json.dumps(checked.error)
    assert checked.checks.machine == "booted"
    assert {result.name: result.outcome for result in checked.checks.results} == {
        "boots": "passed",
        "cloud-init is done": "skipped",
        "no failed units": "passed",
        "test_system.py::test_services_run": "passed",
    }
    again = Workspace.open(project, state=tmp_path / "state").build()
    assert [layer.status for layer in again.outcomes[0].layers] == ["reused"] * 5
    assert not list((tmp_path / "state" / "local" / "work").glob("*"))


def test_steps_of_one_layer_want_the_same_machine(tmp_path: Path) -> None:
    (tmp_path / "ingot.yaml").write_text(
        DEFINITION.replace("layer: prepared", "layer: looked-at")
        .replace("layer: looked-at\n", "layer: looked-at\n        machine: booted\n", 1)
        .replace("      - playbook: site.yml\n        machine: booted\n", "")
    )
    (tmp_path / "base.qcow2").write_bytes(b"a disk")
    (tmp_path / "test_system.py").write_text(CHECK)
    with pytest.raises(PlanError, match="want different machines: booted and chroot"):
        Workspace.open(tmp_path, state=tmp_path / "state").plan()
