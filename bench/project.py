"""A copy of `examples/slurm-node` to measure with: its own state, the downloads shared and warm."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.measure import CACHE, HERE, INGOT, command, surroundings
from ingot.system.files import write_atomically

IMAGE = "slurm-node"


@dataclass(frozen=True, kw_only=True, slots=True)
class Project:
    """A project folder and the state folder that its builds use."""

    folder: Path
    state: Path

    @property
    def environment(self) -> Mapping[str, str]:
        """What `ingot` is run with."""
        return {"INGOT_STATE": str(self.state), "CI": "1", "NO_COLOR": "1"}

    def ingot(self, *words: str) -> float:
        """Seconds that the verb takes."""
        return command([INGOT, *words, "-C", str(self.folder)], environment=self.environment)

    def read(self, *words: str) -> Any:
        """What the verb prints as JSON."""
        done = subprocess.run(
            [INGOT, *words, "--json", "-C", str(self.folder)],
            env=surroundings(self.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=True,
        )
        return json.loads(done.stdout)


def slurm_node(name: str) -> Project:
    """A fresh copy of the example with the collection beside it, so that a role can be changed."""
    folder = CACHE / "projects" / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(HERE / "examples" / IMAGE, folder)
    shutil.copytree(HERE / "collections", folder / "collections")
    return Project(folder=folder, state=CACHE / "state")


def forget_layers(project: Project) -> None:
    """Removes everything built, keeping the downloads and what is known of KVM: what a cold build starts from."""
    note = project.state / "local" / "accelerator.json"
    known = note.read_text() if note.exists() else ""
    for entry in project.state.iterdir() if project.state.exists() else ():
        if entry.name not in ("cache", "downloads"):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    if known:
        write_atomically(note, known)


def last_role(project: Project) -> Path:
    """The main task file of the last role of the definition."""
    text = (project.folder / "ingot.yaml").read_text()
    name: str = re.findall(r"ingot\.cluster\.(\w+)", text)[-1]
    return project.folder / "collections/ansible_collections/ingot/cluster/roles" / name / "tasks/main.yml"


def change(tasks: Path, number: int) -> None:
    """Changes one line of a task file so that what it leaves behind differs."""
    marker = "- name: Bench marker"
    text = tasks.read_text().split(marker)[0]
    tasks.write_text(
        text + f"{marker}\n  ansible.builtin.copy: {{dest: /etc/bench, content: '{number}', mode: '0644'}}\n"
    )
