"""Files that Ansible reads on this computer, and what is said of those that the plan did not count."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingot.errors import ProvisionError
from ingot.model.events import Event, Warned
from ingot.model.step import PlaybookStep
from ingot.ports import Machine
from ingot.provision import Provisioners
from ingot.provision.ansible.results import uncounted
from ingot.system.waits import Flag


def test_a_file_in_a_counted_folder_is_counted(tmp_path: Path) -> None:
    read = {
        tmp_path / "roles/a/tasks/main.yml",
        tmp_path / "site.yml",
        tmp_path / "roles-b",
        tmp_path.parent / "beside",
        tmp_path / "galaxy/ansible_collections/a/b/roles/c/tasks/main.yml",
        Path("/etc/x"),
    }
    left = uncounted(
        read,
        counted=("roles", "site.yml", "../beside", "ansible_collections/a/b/roles/c/tasks/main.yml"),
        roots=(tmp_path, tmp_path / "galaxy"),
    )
    assert left == (Path("/etc/x"), tmp_path / "roles-b")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "group_vars").mkdir(parents=True)
    (root / "group_vars/all.yml").write_text("a: 1\n")
    (root / "templates").mkdir()
    (root / "templates/t.j2").write_text("{{ a }}\n")
    (tmp_path / "beside.txt").write_text("beside\n")
    (root / "site.yml").write_text(
        "- hosts: all\n  gather_facts: false\n  tasks:\n"
        "    - template: {src: t.j2, dest: /etc/t}\n"
        "    - copy: {src: ../beside.txt, dest: /etc/b}\n"
        f"    - debug: {{msg: \"{{{{ lookup('file', '{tmp_path}/looked-up') }}}}\"}}\n"
    )
    (tmp_path / "looked-up").write_text("x")
    return root


@pytest.mark.local
@pytest.mark.parametrize("engine", ["mitogen", "ansible"])
def test_uncounted_files_are_told(engine: str, machine: Machine, project: Path, tmp_path: Path) -> None:
    heard: list[Event] = []
    counted = (("site.yml", "x"), ("templates/t.j2", "x"))
    Provisioners(root=project, directory=tmp_path).apply(
        PlaybookStep(path="site.yml", reads=counted, engine=engine),
        machine,
        subject="x",
        emit=heard.append,
        cancel=Flag(),
    )
    warned = [event.message for event in heard if isinstance(event, Warned)]
    assert warned == [
        f"Ansible read files that the plan did not count: {tmp_path}/beside.txt, {tmp_path}/looked-up"
    ]


@pytest.mark.local
def test_with_strict_they_are_an_error(machine: Machine, project: Path, tmp_path: Path) -> None:
    with pytest.raises(ProvisionError, match="the plan did not count"):
        Provisioners(root=project, directory=tmp_path, strict=True).apply(
            PlaybookStep(path="site.yml", reads=(("site.yml", "x"),)),
            machine,
            subject="x",
            emit=lambda _: None,
            cancel=Flag(),
        )
