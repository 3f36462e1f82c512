"""What the shell completes names with. Never fails: a definition with mistakes completes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


def images(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The images of the project's definition that begin so."""
    try:
        from ingot.api import Workspace

        outer: dict[str, Any] = ctx.parent.params if ctx.parent else {}
        project = ctx.params.get("project") or outer.get("project") or "."
        return [name for name in Workspace.open(Path(project)).image_names() if name.startswith(incomplete)]
    except Exception:  # a half-written definition while somebody presses Tab
        return []
