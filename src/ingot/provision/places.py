"""Where what Ingot brings along lies."""

from __future__ import annotations

from pathlib import Path

import ingot


def collections_path() -> Path:
    """The folder whose `ansible_collections` holds `ingot.cluster`: of a checkout, or of the installed package."""
    package = Path(ingot.__file__).resolve().parent
    checkout = package.parent.parent / "collections"
    return checkout if (checkout / "ansible_collections").is_dir() else package / "_collections"
