"""Golden files: what a screen looked like when somebody last looked at it and liked it.

`INGOT_GOLDEN=write pytest tests/cli` writes them anew; the difference is then read in `git diff`.
"""

from __future__ import annotations

import os
from pathlib import Path

DATA = Path(__file__).parent.parent / "data" / "cli"


def compare(text: str, path: Path) -> None:
    """Asserts that the text is the file's."""
    if os.environ.get("INGOT_GOLDEN") == "write":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert text == path.read_text(), f"{path.name} differs; INGOT_GOLDEN=write takes the new text"
