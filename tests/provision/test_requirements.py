"""requirements.yml: what is there already, and what is fetched."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from ingot.errors import ProvisionError
from ingot.model.events import Event, TaskFinished
from ingot.model.step import RolesStep
from ingot.ports import Machine
from ingot.provision import Provisioners
from ingot.provision.ansible import AnsibleProject, fetch_requirements
from ingot.provision.ansible.config import Config, environment
from ingot.provision.ansible.requirements import (
    Requirements,
    fits,
    install_requirements,
    missing_requirements,
    read_requirements,
)
from ingot.system.waits import Flag


@pytest.mark.parametrize(
    ("version", "wanted", "expected"),
    [
        ("1.2.3", "*", True),
        ("1.2.3", "1.2.3", True),
        ("1.2.3", "==1.2.4", False),
        ("1.10.0", ">=1.9.0,<2.0.0", True),
        ("2.0.0", ">=1.9.0,<2.0.0", False),
        ("1.5.0", ">=1.0.0,!=1.5.0", False),
        ("2.1.0-beta.1", ">2.0", True),
        ("", ">=9", True),
        ("1.0.0", "main branch", False),
    ],
)
def test_versions_fit_as_galaxy_has_it(version: str, wanted: str, expected: bool) -> None:
    assert fits(version, wanted) is expected


def collection(folder: Path, name: str, version: str) -> None:
    place = folder / "ansible_collections" / name.replace(".", "/")
    place.mkdir(parents=True)
    (place / "MANIFEST.json").write_text(json.dumps({"collection_info": {"version": version}}))


def test_what_is_there_is_not_missing(tmp_path: Path) -> None:
    (tmp_path / "requirements.yml").write_text(
        "roles:\n  - geerlingguy.nfs\n  - {src: https://example.org/common.git, version: main}\n"
        "collections:\n  - acme.here\n  - {name: acme.old, version: '>=2.0.0'}\n  - community.general\n"
    )
    (tmp_path / "roles/common").mkdir(parents=True)
    collection(tmp_path, "acme.here", "1.0.0")
    collection(tmp_path, "acme.old", "1.9.9")
    missing = missing_requirements(
        read_requirements([tmp_path]), roles=(tmp_path / "roles",), collections=(tmp_path,)
    )
    # community.general comes with the `ansible` package of this environment.
    assert [entry["name"] for entry in missing.roles] == ["geerlingguy.nfs"]
    assert [entry["name"] for entry in missing.collections] == ["acme.old"]
    assert missing and not Requirements()


def test_a_list_of_roles_alone_is_read(tmp_path: Path) -> None:
    (tmp_path / "roles").mkdir()
    (tmp_path / "roles/requirements.yml").write_text("- src: ../elsewhere/ntp\n  name: ntp\n")
    wanted = read_requirements([tmp_path, tmp_path])
    assert wanted.roles == ({"src": str(tmp_path / "elsewhere/ntp"), "name": "ntp"},)


def test_a_file_that_is_not_yaml_is_named(tmp_path: Path) -> None:
    (tmp_path / "requirements.yml").write_text("roles: [\n")
    with pytest.raises(ProvisionError, match=r"requirements\.yml is not YAML"):
        read_requirements([tmp_path])


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True)


@pytest.mark.local
def test_what_is_missing_is_fetched_once_and_applied(machine: Machine, tmp_path: Path) -> None:
    project, source = tmp_path / "project", tmp_path / "source"
    (source / "tasks").mkdir(parents=True)
    (source / "meta").mkdir()
    (source / "meta/main.yml").write_text(
        "galaxy_info: {author: test, description: test, license: Apache-2.0}\n"
    )
    (source / "tasks/main.yml").write_text("- name: Mark\n  debug: {msg: fetched}\n")
    git(source, "init", "-q", "-b", "main")
    git(source, "add", ".")
    git(source, "commit", "-q", "-m", "role")
    project.mkdir()
    ansible = AnsibleProject(
        root=project, directory=tmp_path, collections=tmp_path, galaxy=project / ".ingot/galaxy"
    )
    assert not fetch_requirements(ansible, cancel=Flag())
    (project / "requirements.yml").write_text(
        f"roles:\n  - {{name: fetched, src: 'git+file://{source}', version: main}}\n"
    )
    assert fetch_requirements(ansible, cancel=Flag())
    (source / ".git").rename(tmp_path / "gone")
    heard: list[Event] = []
    for _ in range(2):
        Provisioners(root=project, directory=tmp_path).apply(
            RolesStep(roles=("fetched",)), machine, subject="x", emit=heard.append, cancel=Flag()
        )
    assert [event.task for event in heard if isinstance(event, TaskFinished)] == [
        "Gathering Facts",
        "Mark",
    ] * 2
    assert (project / ".ingot/galaxy/roles/fetched/tasks/main.yml").is_file()


def test_galaxy_that_is_not_reached_is_one_sentence(tmp_path: Path) -> None:
    wanted = Requirements(collections=({"name": "acme.nowhere", "source": "http://127.0.0.1:9/"},))
    config = Config(folder=tmp_path)
    empty = tmp_path / "ansible.cfg"
    empty.touch()
    env = environment(config, empty=empty, scratch=tmp_path, roles=(), collections=(tmp_path / "c",))
    with pytest.raises(ProvisionError) as caught:
        install_requirements(
            wanted, galaxy=tmp_path / "galaxy", config=config, env=env, log=tmp_path / "log", cancel=Flag()
        )
    assert caught.value.message == (
        "the collections acme.nowhere of requirements.yml are not installed, and Galaxy cannot be reached"
    )
    assert "`collections/` folder" in caught.value.hint
