"""Evidence of real machines, kept as the bundles that were written of them (`tests/data/forensics/<case>/`)."""

from __future__ import annotations

import json
from pathlib import Path

from ingot.model.forensics import Disk, Evidence, Port

DATA = Path(__file__).parents[1] / "data/forensics"
_OURS = ("summary.txt", "evidence.json", "console.log", "journal.log", "sshd.log")


def cases() -> list[str]:
    """The names of all that were kept."""
    return sorted(path.name for path in DATA.iterdir())


def load(folder: Path) -> Evidence:
    """The evidence that a bundle was written of."""
    about = json.loads((folder / "evidence.json").read_text())
    about.pop("cause")
    about.pop("stage")
    port, disk = about.pop("port"), about.pop("disk")
    texts = {path.name: path.read_text() for path in folder.iterdir() if path.name not in _OURS}
    about |= {
        "port": Port(**{**port, "said": tuple(port["said"])}),
        "disk": Disk(**disk) if disk else None,
        "jobs": tuple(about["jobs"]),
        "console": _text(folder / "console.log"),
        "journal": _text(folder / "journal.log"),
        "logs": texts,
    }
    return Evidence(**about)


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
