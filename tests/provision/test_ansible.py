"""Playbooks and roles as users have them, applied to a real machine: each folder of `tests/data/ansible` is a case."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from ingot.errors import ProvisionError
from ingot.model.events import Event, TaskFinished, Warned
from ingot.model.secret import Secret, placeholder
from ingot.model.step import PlaybookStep, RolesStep
from ingot.ports import Machine
from ingot.provision import Provisioners
from ingot.provision.log import log_path
from ingot.system.waits import Flag
from tests.provision.conftest import read, read_folder

DATA = Path(__file__).parents[1] / "data" / "ansible"
EVERY = {path.parent.name: yaml.safe_load(path.read_text()) for path in sorted(DATA.glob("*/case.yml"))}
CASES = [name for name, case in EVERY.items() if not case.get("online")]
ONLINE = [name for name, case in EVERY.items() if case.get("online")]


def test_there_are_cases() -> None:
    assert len(CASES) >= 15 and len(ONLINE) >= 3


@dataclass
class Heard:
    """What a step told of itself."""

    events: list[Event] = field(default_factory=list)

    @property
    def tasks(self) -> list[TaskFinished]:
        return [event for event in self.events if isinstance(event, TaskFinished)]

    @property
    def warnings(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Warned)]


def run_case(
    project: Path, machine: Machine, *, engine: str, directory: Path, case: Mapping[str, Any]
) -> tuple[Heard, ProvisionError | None]:
    secrets = {name: Secret(value) for name, value in case.get("secrets", {}).items()}
    heard = Heard()
    provisioner = Provisioners(root=project, directory=directory, secrets=secrets)
    try:
        provisioner.apply(
            make_step(case["step"], engine, tuple(secrets)),
            machine,
            subject="case",
            emit=heard.events.append,
            cancel=Flag(),
        )
    except ProvisionError as error:
        return heard, error
    return heard, None


def make_step(fields: Mapping[str, Any], engine: str, secrets: tuple[str, ...]) -> PlaybookStep | RolesStep:
    """The step as loading a definition would make it: `${name}` of a secret becomes its placeholder."""
    kept: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in fields.items()
        if name not in ("playbook", "vars")
    }
    variables = {
        name: placeholder(value[2:-1])
        if isinstance(value, str) and value[2:-1] in secrets and value.startswith("${")
        else value
        for name, value in fields.get("vars", {}).items()
    }
    if "playbook" in fields:
        return PlaybookStep(path=fields["playbook"], vars=variables, engine=engine, **kept)
    return RolesStep(vars=variables, engine=engine, **kept)


def tell(task: TaskFinished, *, among: list[str]) -> str:
    """The event in the words of a case: outcome, role, task, and the message where the case names one."""
    text = f"{task.outcome} " + (f"{task.role} : " if task.role else "") + task.task
    full = f"{text}: {task.message}"
    return full if full in among else text


@pytest.mark.local
@pytest.mark.parametrize("engine", ["auto", "ansible"])
@pytest.mark.parametrize("name", CASES)
def test_case(name: str, engine: str, machine: Machine, tmp_path: Path) -> None:
    try_case(name, machine, engine=engine, folder=tmp_path)


@pytest.mark.local
@pytest.mark.network
@pytest.mark.parametrize("name", ONLINE)
def test_case_with_packages(name: str, online_machine: Machine, tmp_path: Path) -> None:
    try_case(name, online_machine, engine="auto", folder=tmp_path)


def try_case(name: str, machine: Machine, *, engine: str, folder: Path) -> None:
    case, project, directory = EVERY[name], folder / "project", folder / "run"
    shutil.copytree(DATA / name, project)
    directory.mkdir()

    heard, error = run_case(project, machine, engine=engine, directory=directory, case=case)

    expect_error(error, case.get("error"))
    if "tasks" in case:
        wanted = case["tasks"]
        assert [tell(task, among=wanted) for task in heard.tasks] == wanted, error
    assert heard.warnings == case.get("warnings", [])
    for path, content in case.get("files", {}).items():
        assert read(machine, path) == content, path
    assert read_folder(machine, "/root/.ansible") == "", "Ansible left something in the image"
    expect_secrecy(case, heard, error, log=log_path(directory, "case").read_text())
    assert sorted(path.name for path in directory.iterdir()) == ["case.log"]


def expect_secrecy(case: Mapping[str, Any], heard: Heard, error: Exception | None, *, log: str) -> None:
    assert "PLAY" in log or error
    for secret in case.get("secrets", {}).values():
        for text in (log, repr(heard.events), str(error)):
            assert secret not in text


def expect_error(error: ProvisionError | None, wanted: Mapping[str, Any] | None) -> None:
    if wanted is None:
        assert error is None, (error, error and error.facts)
        return
    assert error is not None
    assert error.message.startswith(wanted.get("message", "")), error.message
    facts = {name: error.facts[name] for name in wanted if name not in ("message", "tail")}
    assert facts == {name: value for name, value in wanted.items() if name not in ("message", "tail")}
    assert set(wanted.get("tail", [])) <= set(error.facts["tail"])
    assert Path(error.facts["log"]).is_file()
