"""`packer-manifest.json`, for tools that read what Packer's manifest post-processor writes.

Its shape is that of Packer 1.8–1.11 (post-processor/manifest): two spaces of indent, a list of builds that grows, and
the id of the run that added last.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingot.errors import UsageError
from ingot.system.files import write_atomically

NAME = "packer-manifest.json"
_RUNS = uuid.UUID("5d0b2f3e-9d3a-5c57-9a55-0e6f0c8f3b11")


@dataclass(frozen=True, kw_only=True, slots=True)
class PackerBuild:
    """One build as Packer tells of it. `build_time` is seconds since the epoch; `files` are (name, size)."""

    name: str
    builder_type: str
    build_time: int
    artifact_id: str
    files: tuple[tuple[str, int], ...] | None = None
    custom_data: Mapping[str, str] | None = field(default=None)


def run_uuid(run: str) -> str:
    """The UUID that stands for a run of ours: the same one each time."""
    return str(uuid.uuid5(_RUNS, run))


def write(path: Path, builds: Sequence[PackerBuild], *, run: str, force: bool = False) -> None:
    """Adds the builds of a run; with `force` they replace what was there.

    Raises UsageError for a file that is something else: it is not ours to overwrite.
    """
    before = [] if force else _read(path)
    last = run_uuid(run)
    entries = [*before, *(_entry(build, last) for build in builds)]
    text = json.dumps({"builds": entries, "last_run_uuid": last}, indent=2, ensure_ascii=False)
    write_atomically(path, text)


def _entry(build: PackerBuild, run: str) -> dict[str, Any]:
    files = None if build.files is None else [{"name": name, "size": size} for name, size in build.files]
    return {
        "name": build.name,
        "builder_type": build.builder_type,
        "build_time": build.build_time,
        "files": files,
        "artifact_id": build.artifact_id,
        "packer_run_uuid": run,
        "custom_data": None if build.custom_data is None else dict(build.custom_data),
    }


def _read(path: Path) -> list[Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise _not_ours(path) from error
    if not isinstance(found, dict) or not isinstance(found.get("builds"), (list, type(None))):
        raise _not_ours(path)
    return found.get("builds") or []


def _not_ours(path: Path) -> UsageError:
    return UsageError(
        f"{path} is not a Packer manifest, so nothing can be added to it",
        hint="move it away, or write elsewhere",
    )
