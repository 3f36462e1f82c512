"""What was built, what it contains, and what runs did: read from the catalog and the state folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ingot.errors import NotFoundError, UsageError
from ingot.model.units import Seconds
from ingot.model.views import Inspected, Listed, SeenRun

if TYPE_CHECKING:
    from ingot.api.workspace import Workspace
    from ingot.stores.catalog import Catalog, Entry


def listed(
    workspace: Workspace, names: Sequence[str], *, targets: Sequence[str] = (), everything: bool = False
) -> tuple[Listed, ...]:
    """The newest version of each image and target, or all versions."""
    from ingot.stores.catalog import Catalog

    project = workspace.definition.name
    with Catalog(workspace.state.catalog) as catalog:
        found = [entry for name in names or ("*",) for entry in catalog.images(project, name)]
        if names and not found:
            catalog.find(project, names[0])  # says what there is
        unique = [entry for entry in dict.fromkeys(found) if not targets or entry.target in targets]
        return tuple(_listed(catalog, entry) for entry in (unique if everything else newest(unique)))


def newest(entries: Sequence[Entry]) -> list[Entry]:
    """The first, and so newest, of each image, target and location."""
    first: dict[tuple[str, str, str, str], Entry] = {}
    for entry in entries:
        first.setdefault((entry.image, entry.target, entry.backend, entry.location), entry)
    return list(first.values())


def one(workspace: Workspace, catalog: Catalog, name: str, *, target: str = "") -> Entry:
    """The newest version of an image. Raises UsageError where it is there for several targets and none was named."""
    project = workspace.definition.name
    entry = catalog.find(project, name, target=target)
    others = newest(catalog.images(project, entry.image))
    targets = sorted({other.target for other in others})
    if not target and len(targets) > 1:
        raise UsageError(
            f"{name!r} was built for several targets: {', '.join(targets)}",
            hint=f"add `--target {targets[0]}`",
        )
    return entry


def inspect(workspace: Workspace, name: str, *, target: str) -> Inspected:
    """All that is known of an image."""
    from ingot.stores.catalog import Catalog

    with Catalog(workspace.state.catalog) as catalog:
        entry = one(workspace, catalog, name, target=target)
        manifest = catalog.manifest(entry.digest)
        checks = catalog.checks(entry.digest)
        seen = _listed(catalog, entry)
    if manifest is None:
        return Inspected(listed=seen, layers=(), checks=checks)
    return Inspected(
        listed=seen,
        layers=manifest.layers,
        packages=manifest.packages,
        os_release=manifest.os_release,
        kernel=manifest.kernel,
        ingot=manifest.ingot,
        checks=checks,
    )


def _listed(catalog: Catalog, entry: Entry) -> Listed:
    checks = catalog.checks(entry.digest)
    state: Literal["passed", "failed", "not run"] = "not run"
    if checks:
        state = "passed" if checks[0].passed else "failed"
    return Listed(
        project=entry.project,
        image=entry.image,
        target=entry.target,
        backend=entry.backend,
        location=entry.location,
        version=entry.version,
        ref=entry.ref,
        digest=entry.digest,
        size=entry.size,
        arch=entry.arch,
        created=entry.created,
        run=entry.run,
        checks=state,
    )


def runs(folder: Path) -> tuple[SeenRun, ...]:
    """All runs, the newest first: their ids begin with the time."""
    from ingot.engine.run import EVENTS

    names = (
        sorted((path.name for path in folder.iterdir()), key=_age, reverse=True) if folder.is_dir() else []
    )
    return tuple(_run(folder / name) for name in names if (folder / name / EVENTS).exists())


def _age(name: str) -> tuple[str, bool, str]:
    """Sorts runs by their time; a run counts as newer than the jobs that it began."""
    from ingot.engine.run import first_run

    first = first_run(name)
    return first, name == first, name


def living(folder: Path) -> tuple[SeenRun, ...]:
    """Runs that go on, and dead ones that left something, with what they hold; the newest first."""
    from ingot.engine.journal import Journal

    found = []
    for one in runs(folder):
        records = Journal(one.folder, run=one.id).read()
        if records or one.state == "running":
            until = max((record.until for record in records), default=0.0)
            kept = datetime.fromtimestamp(until, UTC).isoformat(timespec="seconds") if until else ""
            found.append(replace(one, held=tuple(record.name for record in records), kept_until=kept))
    return tuple(found)


def run(folder: Path, name: str) -> SeenRun:
    """The run of this id or that begins so; the newest one without a name."""
    found = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    chosen = sorted((one for one in found if one.startswith(name)), key=_age, reverse=True)
    if not chosen:
        wanted = f"no run {name!r}" if name else "no run yet"
        raise NotFoundError(f"there is {wanted} in {folder}", hint="`ingot logs --list` lists them")
    return _run(folder / chosen[0])


def _run(folder: Path) -> SeenRun:
    from ingot.api.logs import log_of
    from ingot.engine.run import EVENTS, LOCK
    from ingot.system.locks import try_lock

    events = folder / EVENTS
    first, last = _ends(events)
    plans = tuple(str(plan) for plan in first.get("plans", ()))
    code = last.get("exit_code") if last.get("event") == "RunFinished" else None
    if code is not None:
        state = "done" if code == 0 else "failed"
    else:
        with try_lock(folder / LOCK) as free:
            state = "interrupted" if free else "running"
    return SeenRun(
        id=folder.name,
        folder=folder,
        events=events,
        state=state,
        verb=str(first.get("verb", "")),
        plans=plans,
        logs=tuple(str(path) for path in (log_of(folder, plan) for plan in plans) if path.exists()),
        seconds=Seconds(float(last.get("seconds", 0.0)) if code is not None else 0.0),
        exit_code=code,
    )


def _ends(events: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first and the last whole event of a file; empty where it has none."""
    try:
        lines = events.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    found = [_object(line) for line in (*lines[:1], *lines[-1:])]
    return (found[0], found[-1]) if found else ({}, {})


def _object(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
