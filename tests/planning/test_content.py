"""What of Ansible content counts. The cases are data: `tests/data/planning/content.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from ingot.planning.roles import Content, ContentReader

from .trees import tree

DATA: dict[str, Any] = yaml.safe_load((Path(__file__).parents[1] / "data/planning/content.yaml").read_text())


def contents(files: Mapping[str, str], *, modes: Mapping[str, int] | None = None) -> dict[str, Content]:
    """The content of each step of the data file, over these files."""
    reader = ContentReader(tree(files, modes=modes))
    return {
        name: reader.playbook(step["playbook"])
        if "playbook" in step
        else reader.roles(step["roles"], groups=step.get("groups", ()))
        for name, step in DATA["steps"].items()
    }


BEFORE = contents(DATA["files"])


@pytest.mark.parametrize("case", DATA["cases"], ids=lambda case: f"{case['path']}: {case['why']}")
def test_what_moves_a_digest(case: dict[str, Any]) -> None:
    after = contents({**DATA["files"], case["path"]: case["to"]})
    moved = [name for name in BEFORE if BEFORE[name].digest != after[name].digest]
    assert sorted(moved) == sorted(case["moves"])
    for name in moved:
        before = dict(BEFORE[name].reads)
        assert any(before.get(path) != value for path, value in after[name].reads)


def test_nothing_is_missing_from_the_sound_project() -> None:
    assert {name: content.missing for name, content in BEFORE.items()} == dict.fromkeys(BEFORE, ())


def test_permission_bits_of_what_is_copied_count() -> None:
    after = contents(DATA["files"], modes={"roles/slurm/files/x.yml": 0o755})
    assert after["slurm"].digest != BEFORE["slurm"].digest
    for path in ("roles/slurm/tasks/main.yml", "ansible.cfg", "library/mine.py", "group_vars/all.yml"):
        after = contents(DATA["files"], modes={path: 0o600})
        assert after["slurm"].digest == BEFORE["slurm"].digest


def test_where_a_role_lies_does_not_count() -> None:
    moved = {path.replace("shared/roles/", "roles/"): text for path, text in DATA["files"].items()}
    assert contents(moved)["slurm"].digest == BEFORE["slurm"].digest


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ({}, "r"),
        ({"roles/r/meta/main.yml": "dependencies: [gone]"}, "gone"),
        ({"roles/r/tasks/main.yml": "- import_role: {name: gone}"}, "gone"),
        ({"roles/r/tasks/main.yml": "- ansible.builtin.import_role: name=gone"}, "gone"),
    ],
)
def test_missing_roles_are_named(files: dict[str, str], missing: str) -> None:
    (found,) = ContentReader(tree(files)).roles(["r"]).missing
    assert f'"{missing}"' in found


def test_what_requirements_will_bring_is_not_missing() -> None:
    files = {"requirements.yml": "roles: [{name: r, version: 1.0.0}]"}
    content = ContentReader(tree(files)).roles(["r"])
    later = ContentReader(tree({"requirements.yml": "roles: [{name: r, version: 2.0.0}]"})).roles(["r"])
    assert content.missing == ()
    assert content.digest != later.digest


def test_a_missing_playbook_is_named() -> None:
    (found,) = ContentReader(tree({})).playbook("site.yml").missing
    assert '"site.yml"' in found


@pytest.mark.parametrize(
    "text",
    [
        "a: [1\n",
        "\t- x\n",
        "a: !vault |\n  abc\n",
        "&a [*a]\n",
        "x: " + "[" * 3000,
        "a: \x00b",
        "- {name: {x: [}}",
        "? [a, b]\n: c\n",
        "a: &x [1]\nb: *x\n",
        "--- 1\n--- 2\n",
        "a: .nan\n",
    ],
)
def test_strange_yaml_counts_and_does_no_harm(text: str) -> None:
    """Broken files are Ansible's to complain about; odd ones still count by what they say."""
    with_text = ContentReader(tree({"roles/r/tasks/main.yml": text})).roles(["r"])
    other = ContentReader(tree({"roles/r/tasks/main.yml": text + "\n- more: 1\n"})).roles(["r"])
    assert with_text.missing == ()
    assert with_text.digest != other.digest


def test_many_aliases_cost_no_more_than_they_are_long() -> None:
    """Nine levels of nine aliases would be a thousand million nodes."""
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    content = ContentReader(tree({"roles/r/vars/main.yml": "\n".join(lines)})).roles(["r"])
    assert len(content.reads) == 1


def test_an_inventory_and_the_groups_it_names_count() -> None:
    files = {
        "roles/r/tasks/main.yml": "[]",
        "inventory/hosts": "[images]\ndefault\n",
        "inventory/group_vars/images.yml": "a: 1",
        "inventory/group_vars/others.yml": "a: 1",
    }
    before = ContentReader(tree(files)).roles(["r"])
    named = ContentReader(tree({**files, "inventory/group_vars/images.yml": "a: 2"})).roles(["r"])
    unnamed = ContentReader(tree({**files, "inventory/group_vars/others.yml": "a: 2"})).roles(["r"])
    moved = ContentReader(tree({**files, "inventory/hosts": "[all]\ndefault\n"})).roles(["r"])
    assert before.digest != named.digest
    assert before.digest == unnamed.digest
    assert before.digest != moved.digest
