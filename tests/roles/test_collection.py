"""What every role of `ingot.cluster` keeps, read from its files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

COLLECTION = Path(__file__).parents[2] / "collections/ansible_collections/ingot/cluster"
ROLES = sorted(path for path in (COLLECTION / "roles").iterdir() if path.is_dir())


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def options(role: Path) -> dict[str, Any]:
    specs = read(role / "meta/argument_specs.yml")
    return dict(specs["argument_specs"]["main"].get("options", {}))


def tasks_of(node: Any) -> Iterator[dict[str, Any]]:
    """Every task of a task file, those of blocks too."""
    for task in node:
        yield task
        for part in ("block", "rescue", "always"):
            yield from tasks_of(task.get(part, []))


def tasks(role: Path) -> list[dict[str, Any]]:
    return [task for file in sorted(role.glob("tasks/*.yml")) for task in tasks_of(read(file))]


def test_the_roles_are_there() -> None:
    names = {role.name for role in ROLES}
    assert names >= {"munge", "slurm", "openmpi", "node_exporter", "chrony"}


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
class TestRole:
    def test_every_variable_is_specified_and_has_its_default(self, role: Path) -> None:
        defaults = read(role / "defaults/main.yml")
        specs = options(role)
        assert set(specs) == set(defaults)
        said = {name: spec["default"] for name, spec in specs.items() if "default" in spec}
        assert said == {name: defaults[name] for name in said}

    def test_every_variable_is_typed_described_and_in_the_readme(self, role: Path) -> None:
        readme = (role / "README.md").read_text()
        for name, spec in options(role).items():
            assert spec.get("type") and spec.get("description"), name
            assert f"`{name}`" in readme, name
            assert name.startswith(role.name), name
            assert spec["type"] != "list" or spec.get("elements"), name

    def test_readme_names_the_role_and_shows_it_used(self, role: Path) -> None:
        readme = (role / "README.md").read_text()
        assert readme.startswith(f"# {role.name}\n")
        assert f"ingot.cluster.{role.name}" in readme and "Debian 12" in readme

    def test_a_build_starts_nothing_and_pins_nothing_to_latest(self, role: Path) -> None:
        for task in tasks(role):
            for module, arguments in task.items():
                if isinstance(arguments, dict) and module.startswith("ansible."):
                    assert arguments.get("state") not in ("started", "restarted", "reloaded", "latest"), task[
                        "name"
                    ]

    def test_every_task_has_tags_and_a_name_of_its_own(self, role: Path) -> None:
        names = [(file.name, task["name"]) for file in role.glob("tasks/*.yml") for task in read(file)]
        assert len(set(names)) == len(names)
        for task in tasks(role):
            assert task.get("tags"), task["name"]

    def test_what_belongs_to_a_family_of_systems_is_in_its_file(self, role: Path) -> None:
        families = {"debian.yml", "redhat.yml", "suse.yml"}
        assert (role / "tasks/debian.yml").exists()
        shared = [file for file in role.glob("tasks/*.yml") if file.name not in families]
        assert shared
        for file in shared:
            assert "ansible.builtin.apt" not in file.read_text()
