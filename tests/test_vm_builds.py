"""A build that goes from a chroot to a virtual machine and back, by its definition: two reboots, a newer kernel."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from ingot.api import Workspace
from ingot.backends.local import holder
from ingot.backends.local.store import Store
from ingot.model.events import Event, Output
from ingot.model.units import Seconds
from ingot.provision import seal
from ingot.system import process
from tests.backends.local import bases
from tests.backends.local.test_rootless import NOBODY

pytestmark = [pytest.mark.local, pytest.mark.network, pytest.mark.boot]

DEFINITION = """\
name: virtual
targets:
  local: {backend: local, disk: 4 GiB}
bases:
  debian:
    local: {image: base.qcow2}
images:
  node:
    base: debian
    targets: [local]
    machine: vm
    steps:
      - script: {inline: "test ! -d /run/systemd/system; uname -r >/root/builder-kernel"}
        machine: chroot
        layer: prepared
      - playbook: site.yml
      - script: {inline: "systemctl is-active mine && exit 1; test ! -e /tmp/left; uname -r >/root/kernel-after"}
        layer: looked-at
      - reboot: true
        when: needs_reboot
      - script: {inline: "test ! -d /run/systemd/system; test ! -e /var/lib/ingot-build; test ! -e /etc/apt/apt.conf.d/zz-ingot-build; cmp /root/kernel /root/kernel-after"}
        machine: chroot
        layer: back-again
"""
PLAYBOOK = """\
- hosts: all
  tasks:
    - name: Which kernel runs
      ansible.builtin.command: uname -r
      register: before
      changed_when: false
    - name: Reboot once
      ansible.builtin.reboot: {reboot_timeout: 900}
    - name: Install another kernel
      ansible.builtin.apt: {name: linux-image-cloud-amd64, install_recommends: false}
    - name: Make it the one that boots
      ansible.builtin.shell: |
        dpkg-query -W -f '${Package}\\n' 'linux-image-[0-9]*' | grep -v cloud | xargs apt-get remove -y --purge
        update-grub
      environment: {DEBIAN_FRONTEND: noninteractive}
      changed_when: true
    - name: Reboot into it
      ansible.builtin.reboot: {reboot_timeout: 900}
    - name: Which kernel runs now
      ansible.builtin.command: uname -r
      register: after
      changed_when: false
    - name: It is another one
      ansible.builtin.assert:
        that: before.stdout != after.stdout and 'cloud' in after.stdout
    - name: Leave something running
      ansible.builtin.shell: systemd-run --unit=mine sleep 1000; touch /tmp/left; echo {{ after.stdout }} >/root/kernel
      changed_when: true
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "base.qcow2").symlink_to(bases.debian("bookworm"))
    (folder / "ingot.yaml").write_text(DEFINITION)
    (folder / "site.yml").write_text(PLAYBOOK)
    return folder


@pytest.mark.slow
def test_two_reboots_and_another_kernel(project: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    workspace = Workspace.open(project, state=tmp_path / "state")
    (outcome,) = workspace.build(emit=events.append).outcomes
    assert outcome.error is None, json.dumps(outcome.error)
    assert [layer.status for layer in outcome.layers] == ["built"] * len(outcome.layers)
    said = [event.text for event in events if isinstance(event, Output)]
    assert "no reboot is needed" in said, "the newest kernel runs already"
    assert not list((tmp_path / "state" / "local" / "work").iterdir())
    again = workspace.build().outcomes[0]
    assert again.status == "reused"


ROOTLESS = """\
name: rootless
targets:
  local: {backend: local, disk: 5 GiB}
bases:
  debian:
    local: {image: base.qcow2}
images:
  node:
    base: debian
    targets: [local]
    machine: vm
    steps:
      - script:
          inline: |
            uname -r >/root/kernel
            df --output=size -k / | tail -1 >/root/size
            systemctl is-system-running >/root/state || :
"""


def test_without_root(project: Path, tmp_path: Path) -> None:
    (project / "ingot.yaml").write_text(ROOTLESS)
    env = process.environment(
        {"PYTHONPATH": ":".join(sys.path), "INGOT_STATE": str(tmp_path / "state"), "HOME": str(tmp_path)}
    )
    argv = [*NOBODY, sys.executable, "-m", "ingot", "build", "-C", str(project), "--json"]
    done = process.run(argv, env=env, timeout=Seconds(1800.0), check=False)
    assert done.code == 0, done.tail
    (outcome,) = json.loads(done.stdout)["outcomes"]
    assert [layer["name"] for layer in outcome["layers"]][1:] == ["script", "seal"]
    workspace = Workspace.open(project, state=tmp_path / "state")
    store = Store(tmp_path / "state" / "local")
    records = store.verify(outcome["digest"])
    with holder.mounted(store.files(records), tmp_path / "look", writable=False) as held:
        root = held.outside(held.root)
        assert seal.verify(root) == ()
        assert int((root / "root/size").read_text()) > 4 * 2**20, "the file system grew with the disk"
        assert not (root / "var/lib/ingot-build").exists()
        assert (root / "root/state").read_text().strip() in ("running", "degraded"), "all was started before"
    assert workspace.build().outcomes[0].status == "reused", "root's own builds share its layers"
