"""Every folder of tests/data/definitions: the problems told, or the definition made.

After a wanted change, `python -m tests.definition.test_golden` writes the expectations anew.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.definition.cases import FOLDER, outcome

CASES = sorted(path.parent for path in FOLDER.glob("*/ingot.yaml"))


def test_there_are_cases() -> None:
    assert len(CASES) > 15


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Path) -> None:
    name, text = outcome(case)
    expected = [path.name for path in case.glob("expected.*")]
    assert expected == [name]
    assert text == (case / name).read_text()


if __name__ == "__main__":
    for case in CASES:
        for old in case.glob("expected.*"):
            old.unlink()
        name, text = outcome(case)
        (case / name).write_text(text)
