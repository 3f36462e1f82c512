"""What Ansible costs on each kind of machine: to start, and for each further trivial task."""

from __future__ import annotations

import json
import shutil
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from bench.measure import CACHE, Row, absolute, reference
from bench.project import Project

START, TASK = 1.5, 0.06
ONE, FEW, MANY = 1, 20, 100

_DEFINITION = """\
name: bench-ansible
targets:
  local: {{backend: local, disk: 4 GiB}}
bases:
  debian-12:
    local: {{debootstrap: bookworm}}
images:
{images}
"""
_IMAGE = """\
  {image}:
    base: debian-12
    targets: [local]
    machine: {machine}
    steps:
      - playbook: tasks-{count}.yml
        engine: {engine}
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """An engine on a kind of machine, and what of it is judged."""

    engine: str
    machine: str
    start: float | None = None
    task: float | None = None
    once: bool = False
    """Measured a single time: each measurement boots a machine, and nothing is judged by it."""

    def image(self, number: int) -> str:
        """The image whose only step has so many tasks."""
        return f"{self.machine}-{self.engine}-{number}"


CASES = (
    Case(engine="mitogen", machine="chroot", start=START, task=TASK),
    Case(engine="ansible", machine="chroot"),
    Case(engine="mitogen", machine="booted", task=TASK),
    Case(engine="mitogen", machine="vm", once=True),
)


def measure(rounds: int) -> list[Row]:
    """Seconds of the playbook step alone, by the events of a build that starts from a cached base."""
    project = prepare()
    rule = reference(rounds)
    return [
        row
        for case in CASES
        for row in case_rows(project, case, rounds=1 if case.once else rounds, rule=rule)
    ]


def case_rows(project: Project, case: Case, *, rounds: int, rule: float) -> list[Row]:
    """The play of one task, and what each further one adds, by plays of two lengths."""
    seconds = {
        number: statistics.median(step_seconds(project, case, number) for _ in range(rounds))
        for number in (ONE, FEW, MANY)
    }
    name = f"{case.engine} on a {case.machine} machine"
    figures = (
        (f"{name}: one task", seconds[ONE], case.start),
        (f"{name}: each further task", (seconds[MANY] - seconds[FEW]) / (MANY - FEW), case.task),
    )
    return [
        Row(name=figure, value=value, limit=None)
        if limit is None
        else absolute(figure, value, limit=limit, rule=rule)
        for figure, value, limit in figures
    ]


def prepare() -> Project:
    """A project with a playbook of each length; its base is built with the first image."""
    folder = CACHE / "projects" / "ansible"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    images = "".join(
        _IMAGE.format(image=case.image(number), machine=case.machine, engine=case.engine, count=number)
        for case in CASES
        for number in (ONE, FEW, MANY)
    )
    (folder / "ingot.yaml").write_text(_DEFINITION.format(images=images))
    for number in (ONE, FEW, MANY):
        write_playbook(folder / f"tasks-{number}.yml", number, salt=0)
    return Project(folder=folder, state=CACHE / "state")


def write_playbook(path: Path, number: int, *, salt: int) -> None:
    """So many trivial tasks that each start a process on the machine; another `salt` is another playbook."""
    tasks = "".join(
        f"    - {{name: Task {i}, ansible.builtin.command: /bin/true {salt}}}\n" for i in range(number)
    )
    path.write_text(f"- hosts: all\n  gather_facts: false\n  tasks:\n{tasks}")


def step_seconds(project: Project, case: Case, number: int) -> float:
    """How long the playbook's step took in a build that made it anew (its base is reused)."""
    events = project.folder / "events.jsonl"
    events.unlink(missing_ok=True)
    write_playbook(project.folder / f"tasks-{number}.yml", number, salt=time.monotonic_ns())
    project.ingot("build", case.image(number), "--events", str(events))
    found = [json.loads(line) for line in events.read_text().splitlines()]
    return sum(
        float(event["seconds"])
        for event in found
        if event["event"] == "StepFinished" and event["step"].startswith("playbook")
    )
