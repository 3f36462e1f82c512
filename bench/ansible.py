"""What Ansible costs inside a chroot machine: to start, and for each further trivial task."""

from __future__ import annotations

import json
import shutil
import statistics
import time
from pathlib import Path

from bench.measure import CACHE, Row, absolute, reference
from bench.project import Project

START, TASK = 1.5, 0.06
ENGINES = ("mitogen", "ansible")
COUNTS = (1, 20, 100)

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
  {engine}-{count}:
    base: debian-12
    targets: [local]
    steps:
      - playbook: tasks-{count}.yml
        engine: {engine}
"""


def measure(rounds: int) -> list[Row]:
    """Seconds of the playbook step alone, by the events of a build that starts from a cached base."""
    project = prepare()
    rows = []
    rule = reference(rounds)
    for engine in ENGINES:
        seconds = {
            number: statistics.median(step_seconds(project, f"{engine}-{number}") for _ in range(rounds))
            for number in COUNTS
        }
        each = (seconds[100] - seconds[20]) / 80
        one, further = f"{engine}: one task", f"{engine}: each further task"
        if engine == "mitogen":
            rows += [
                absolute(one, seconds[1], limit=START, rule=rule),
                absolute(further, each, limit=TASK, rule=rule),
            ]
        else:
            rows += [
                Row(name=one, value=seconds[1], limit=None),
                Row(name=further, value=each, limit=None),
            ]
    return rows


def prepare() -> Project:
    """A project with a playbook of each length, and its base built."""
    folder = CACHE / "projects" / "ansible"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    images = "".join(_IMAGE.format(engine=engine, count=number) for engine in ENGINES for number in COUNTS)
    (folder / "ingot.yaml").write_text(_DEFINITION.format(images=images))
    for number in COUNTS:
        write_playbook(folder / f"tasks-{number}.yml", number, salt=0)
    return Project(folder=folder, state=CACHE / "state")


def write_playbook(path: Path, number: int, *, salt: int) -> None:
    """So many trivial tasks that each start a process on the machine; another `salt` is another playbook."""
    tasks = "".join(
        f"    - {{name: Task {i}, ansible.builtin.command: /bin/true {salt}}}\n" for i in range(number)
    )
    path.write_text(f"- hosts: all\n  gather_facts: false\n  tasks:\n{tasks}")


def step_seconds(project: Project, image: str) -> float:
    """How long the playbook's step took in a build that made it anew (its base is reused)."""
    events = project.folder / "events.jsonl"
    events.unlink(missing_ok=True)
    number = int(image.rsplit("-", 1)[1])
    write_playbook(project.folder / f"tasks-{number}.yml", number, salt=time.monotonic_ns())
    project.ingot("build", image, "--events", str(events))
    found = [json.loads(line) for line in events.read_text().splitlines()]
    return sum(
        float(event["seconds"])
        for event in found
        if event["event"] == "StepFinished" and event["step"].startswith("playbook")
    )
