from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from ingot.definition.load import load
from ingot.errors import DefinitionError, Problem
from ingot.model.secret import Secret, reveal
from ingot.model.step import ScriptStep
from tests.definition.cases import FOLDER, load_case
from tests.definition.test_golden import CASES

SMALL = """\
name: small
variables: {extra: "", token: {sensitive: true, default: ""}}
targets: {local: {backend: local}}
bases: {debian: {local: {debootstrap: bookworm}}}
images:
  node:
    base: debian
    steps: [STEP]
"""


def _write(folder: Path, step: str) -> Path:
    (folder / "ingot.yaml").write_text(SMALL.replace("STEP", step))
    return folder


def _problems(path: Path, **arguments: object) -> tuple[Problem, ...]:
    with pytest.raises(DefinitionError) as caught:
        load(path, **arguments)  # type: ignore[arg-type]
    problems: tuple[Problem, ...] = caught.value.problems
    return problems


def test_every_problem_has_a_place_and_a_hint() -> None:
    told = [problem for case in CASES if case.name.startswith("bad-") for problem in _case_problems(case)]
    assert len(told) > 150
    assert [str(problem) for problem in told if not problem.hint] == []
    assert [str(problem) for problem in told if problem.file and not (problem.line and problem.column)] == []


def _case_problems(case: Path) -> tuple[Problem, ...]:
    with pytest.raises(DefinitionError) as caught:
        load_case(case)
    problems: tuple[Problem, ...] = caught.value.problems
    return problems


def test_the_file_or_its_folder(tmp_path: Path) -> None:
    _write(tmp_path, "{packages: [htop]}")
    assert load(tmp_path) == load(tmp_path / "ingot.yaml")


def test_images_keep_their_order() -> None:
    names = list(load_case(FOLDER / "matrix").definition.images)
    assert names[:4] == ["tools", "child-slurm", "child-pbs", "node-slurm"]


def test_a_project_that_is_not_there(tmp_path: Path) -> None:
    (problem,) = _problems(tmp_path)
    assert (problem.file, problem.message) == ("ingot.yaml", "there is no such file")


def test_secrets_stay_out_and_can_be_revealed(tmp_path: Path) -> None:
    _write(tmp_path, '{script: {inline: "login ${token}"}}')
    loaded = load(tmp_path, variables={"token": "hunter2"})
    assert "hunter2" not in repr(loaded)
    assert loaded.secrets == {"token": Secret("hunter2")}
    (step,) = loaded.definition.images["node"].steps
    assert isinstance(step, ScriptStep)
    assert reveal(step.inline, loaded.secrets) == "login hunter2"


def test_a_wrong_secret_is_not_told(tmp_path: Path) -> None:
    (tmp_path / "ingot.yaml").write_text(
        SMALL.replace('default: ""', "choices: [aaa, bbb]").replace("STEP", "{packages: [htop]}")
    )
    problems = _problems(tmp_path, variables={"token": "hunter2"})
    assert len(problems) == 1
    assert "hunter2" not in str(problems[0])


@pytest.mark.parametrize("value", ["a\x00b", "\ue000token\ue001", "\udcff"])
def test_characters_from_outside_are_refused(tmp_path: Path, value: str) -> None:
    _write(tmp_path, "{packages: [htop]}")
    (problem,) = _problems(tmp_path, variables={"extra": value})
    assert "character" in problem.message
    (problem,) = _problems(tmp_path, environment={"INGOT_VAR_extra": value})
    assert problem.path == "the environment's INGOT_VAR_extra"


def test_values_are_not_filled_in_twice(tmp_path: Path) -> None:
    _write(tmp_path, '{script: {inline: "echo ${extra}"}}')
    loaded = load(tmp_path, variables={"extra": "${token} {{ x }}"})
    (step,) = loaded.definition.images["node"].steps
    assert isinstance(step, ScriptStep)
    assert step.inline == "echo ${token} {{ x }}"


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ingot.yaml").write_text("name: x\n" + "# padding\n" * 200_000)
    (problem,) = _problems(tmp_path)
    assert "1 MiB" in problem.message


def test_deep_anchors_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 3000)]
    (tmp_path / "ingot.yaml").write_text("\n".join(lines))
    (problem,) = _problems(tmp_path)
    assert "too deep" in problem.message


def test_many_problems_are_cut(tmp_path: Path) -> None:
    steps = ", ".join("{packages: [1.5]}" for _ in range(400))
    problems = _problems(_write(tmp_path, steps))
    assert len(problems) == 201
    assert problems[-1].message == "and 200 problems more"


def test_loading_imports_nothing_heavy(tmp_path: Path) -> None:
    _write(tmp_path, "{packages: [htop]}")
    program = (
        "import sys, pathlib; from ingot.definition.load import load; "
        f"load(pathlib.Path({str(tmp_path)!r})); "
        "print([name for name in ('jinja2', 'ansible', 'sqlalchemy', 'rich', 'click') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout) == []
