"""User-data that cloud-init applies on a real machine, by its definition."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ingot.api import Workspace
from ingot.backends.local.backend import open_backend
from ingot.errors import PlanError
from ingot.model.events import Warned, ignore
from ingot.model.image import Outcome
from ingot.ports import BackendSettings, MachineSpec, Token
from ingot.system.waits import Flag
from tests.local_fixtures import cached_base, sh

__all__ = ["cached_base"]

HEAD = """\
name: told
variables:
  token: {sensitive: true, default: s3cr3t-of-the-test}
targets:
  local: {backend: local, disk: 3 GiB}
bases:
  small:
    local: {image: base.qcow2}
images:
  node:
    base: small
    steps:
      - packages: [cloud-init]
"""
STEPS = """\
      - cloud_init: user-data.yaml
      - cloud_init:
          inline: |
            #!/bin/sh -e
            test "${token}" = s3cr3t-of-the-test
            cat /etc/witness > /root/from-second
            systemctl is-active ssh >> /root/from-second
      - script:
          inline: |
            test ! -d /run/systemd/system
            tree --version
            test "$(stat -c %a /etc/witness)" = 640
            grep -x written /root/from-second
            grep -x active /root/from-second
            grep -x hello /root/from-runcmd
            grep NOPASSWD /etc/sudoers.d/90-cloud-init-users
            test -z "$(find /var/lib/cloud/instances -mindepth 1)"
            test ! -e /run/ingot-seed
"""
USER_DATA = """\
#cloud-config
packages: [tree]
users:
  - name: worker
    sudo: ALL=(ALL) NOPASSWD:ALL
write_files:
  - path: /etc/witness
    permissions: "0640"
    content: |
      written
runcmd:
  - echo hello > /root/from-runcmd
"""
LEFT = """\
ls /var/lib/cloud /etc/sudoers.d /etc/ssh /var/log /run
"""


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


def build(
    folder: Path, state: Path, base: Path, *, steps: str, user_data: str = ""
) -> tuple[Outcome, list[object]]:
    """What became of a project with these steps after the package cloud-init, and what was told."""
    shutil.copyfile(base, folder / "base.qcow2")
    (folder / "ingot.yaml").write_text(HEAD + steps)
    (folder / "user-data.yaml").write_text(user_data)
    events: list[object] = []
    (outcome,) = Workspace.open(folder, state=state).build(emit=events.append).outcomes
    assert not list((state / "local" / "work").glob("*"))
    return outcome, events


@pytest.mark.local
def test_user_data_takes_effect_and_nothing_else_stays(
    cached_base: Path, tmp_path: Path, state: Path
) -> None:
    outcome, events = build(tmp_path, state, cached_base, steps=STEPS, user_data=USER_DATA)
    assert outcome.error is None, json.dumps(outcome.error)
    assert [layer.status for layer in outcome.layers] == ["built"] * 6
    assert [event for event in events if isinstance(event, Warned)] == []
    backend = open_backend(BackendSettings(state=state, directory=state / "runs" / "look", root=tmp_path))
    sealed = backend.layer(outcome.layers[-1].key)
    assert sealed
    machine = backend.hosts.machine(MachineSpec(parent=sealed, purpose="look"))
    ref = machine.create(Token("ingot-look-1"))
    try:
        left = sh(backend.hosts.attach(ref, emit=ignore, cancel=Flag()), LEFT).stdout.split()
    finally:
        machine.delete(ref)
    # What the user-data wrote is the image's; of the machine that it was written on nothing is left.
    assert "90-cloud-init-users" in left
    assert not {"instance", "instances", "data", "sem", "ingot-seed", "cloud-init"} & {*left}
    assert not [word for word in left if "host_" in word or word.startswith("cloud-init")]
    (again,) = Workspace.open(tmp_path, state=state).build().outcomes
    assert [layer.status for layer in again.layers] == ["reused"] * 6


@pytest.mark.local
def test_a_command_that_fails_is_named_with_what_it_said(
    cached_base: Path, tmp_path: Path, state: Path
) -> None:
    user_data = "#cloud-config\nruncmd:\n  - set -e\n  - echo broken on purpose >&2; exit 3\n  - echo never\n"
    outcome, _ = build(
        tmp_path, state, cached_base, steps="      - cloud_init: user-data.yaml\n", user_data=user_data
    )
    assert outcome.error is not None
    assert outcome.error["code"] == 5
    message = outcome.error["message"]
    assert message.startswith("the module cc_scripts_user failed in the stage modules-final: ")
    assert "1 failures (runcmd)" in message and message.endswith("the last that was said: broken on purpose")
    assert outcome.error["facts"]["task"] == "cc_scripts_user"
    assert outcome.error["facts"]["file"] == "user-data.yaml"


@pytest.mark.local
def test_a_package_that_is_not_there_fails_the_build(cached_base: Path, tmp_path: Path, state: Path) -> None:
    user_data = "#cloud-config\npackages: [no-such-package]\n"
    outcome, _ = build(
        tmp_path, state, cached_base, steps="      - cloud_init: user-data.yaml\n", user_data=user_data
    )
    assert outcome.error is not None
    assert "cc_package_update_upgrade_install" in outcome.error["message"]
    assert any("Unable to locate package no-such-package" in line for line in outcome.error["facts"]["tail"])


@pytest.mark.local
def test_a_cloud_init_that_is_switched_off_is_told(cached_base: Path, tmp_path: Path, state: Path) -> None:
    steps = (
        "      - script: {inline: touch /etc/cloud/cloud-init.disabled}\n      - cloud_init: user-data.yaml\n"
    )
    outcome, _ = build(tmp_path, state, cached_base, steps=steps, user_data="#cloud-config\n{}\n")
    assert outcome.error is not None
    assert outcome.error["message"].startswith("cloud-init was not told of the user-data: it did not run: ")
    assert "disabled" in outcome.error["message"]


@pytest.mark.local
def test_a_disk_without_cloud_init_is_told(cached_base: Path, tmp_path: Path, state: Path) -> None:
    shutil.copyfile(cached_base, tmp_path / "base.qcow2")
    text = HEAD.replace("      - packages: [cloud-init]\n", "      - cloud_init: {inline: '#!/bin/true'}\n")
    (tmp_path / "ingot.yaml").write_text(text)
    (outcome,) = Workspace.open(tmp_path, state=state).build().outcomes
    assert outcome.error is not None
    assert outcome.error["message"] == "the machine has no cloud-init"


def test_its_layer_is_its_own(tmp_path: Path) -> None:
    shared = "        layer: both\n"
    steps = f"      - script: {{inline: ls}}\n{shared}        machine: booted\n      - cloud_init: user-data.yaml\n{shared}"
    (tmp_path / "ingot.yaml").write_text(HEAD + steps)
    (tmp_path / "base.qcow2").write_bytes(b"a disk")
    (tmp_path / "user-data.yaml").write_text("#cloud-config\npackages: [tree]\n")
    with pytest.raises(PlanError, match='"both" cannot be shared with the cloud_init step'):
        Workspace.open(tmp_path, state=tmp_path / "state").plan()
