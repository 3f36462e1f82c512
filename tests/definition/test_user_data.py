"""Every file of tests/data/user-data: what is said of it, a line each (`?` before what may be meant as it is).

After a wanted change, `python -m tests.definition.test_user_data` writes the expectations anew.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ingot.definition.user_data import lint_user_data

FOLDER = Path(__file__).parent.parent / "data" / "user-data"
CASES = sorted(path for path in FOLDER.glob("*") if path.suffix != ".expected")


def said_of(case: Path) -> str:
    found = lint_user_data(case.read_bytes(), file=case.name)
    lines = [*map(str, found.problems), *(f"? {warning}" for warning in found.warnings)]
    return "".join(f"{line}\n" for line in lines)


def test_there_are_cases() -> None:
    assert len(CASES) > 20


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Path) -> None:
    assert said_of(case) == case.with_name(f"{case.name}.expected").read_text()


def test_places_are_lines_of_the_file() -> None:
    (found,) = lint_user_data(b"#cloud-config\n\npackages:\n  - 3\n", file="a/user-data.yaml").problems
    assert (found.file, found.line, found.column, found.path) == ("a/user-data.yaml", 4, 5, "packages[0]")


def test_a_large_file_is_not_read() -> None:
    (found,) = lint_user_data(b"#cloud-config\n" + b"#" * 2**20, file="x").problems
    assert "larger than 1 MiB" in found.message


if __name__ == "__main__":
    for case in CASES:
        case.with_name(f"{case.name}.expected").write_text(said_of(case))
