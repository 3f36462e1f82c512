"""Keeping tidy: layers that nothing needs, and what dead runs left behind."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ingot.api import adapters
from ingot.api.looking import newest
from ingot.errors import CancelledError, IngotError, RefusedError, UsageError
from ingot.model.events import Emit, ResourceClosed, Warned
from ingot.model.plan import ContentId, LayerKey
from ingot.model.units import Bytes, Seconds
from ingot.model.views import Dropped, Garbage

if TYPE_CHECKING:
    from ingot.api.workspace import Workspace
    from ingot.engine.sweep import Swept
    from ingot.lifecycle.gc import Drop, ImageUse
    from ingot.model.views import SeenRun
    from ingot.ports import Backend, Cancel
    from ingot.stores.catalog import Catalog


def garbage(
    workspace: Workspace,
    *,
    target: str,
    max_size: Bytes | None,
    older_than: Seconds | None,
    dry_run: bool,
    emit: Emit,
) -> Garbage:
    """Decides which layers of the local store, or of a target's place, and which old runs go, and removes them unless
    `dry_run`."""
    from ingot.lifecycle import gc
    from ingot.stores.catalog import Catalog

    backend = _place(workspace, target)
    now = datetime.now(UTC)
    with Catalog(workspace.state.catalog) as catalog:
        layers = tuple(backend.layers.layers())
        keep = newest_layers(catalog, backend) if target else frozenset[LayerKey]()
        view = gc.View(now=now, layers=layers, images=image_uses(catalog), keep=keep)
        drops = gc.decide(view, max_bytes=max_size, older_than=older_than)
        runs = gc.old_runs(workspace.state.runs, now=now)
        if not dry_run:
            gone = gc.apply(
                drops,
                store=backend.layers,
                forget=lambda content: forget(catalog, backend, content),
                emit=emit,
            )
            runs = gc.prune_runs(workspace.state.runs, runs)
            drops = gone
    kept = sum(layer.ref.size for layer in layers) - sum(drop.ref.size for drop in drops)
    return Garbage(drops=tuple(_dropped(drop) for drop in drops), runs=runs, kept=Bytes(kept))


def _place(workspace: Workspace, target: str) -> Backend:
    """The backend of a target; this computer's own, which needs no definition, without one."""
    if not target:
        return adapters.open_backend(
            workspace, "local", options={}, directory=workspace.state.runs, project=False
        )
    known = workspace.definition.targets
    if target not in known:
        raise UsageError(f"there is no target {target!r}", hint=f"there are: {', '.join(known)}")
    return adapters.open_backend(
        workspace, known[target].backend, options=known[target].options, directory=workspace.state.runs
    )


def newest_layers(catalog: Catalog, backend: Backend) -> frozenset[LayerKey]:
    """The layers of the newest versions of all images at this place, where none tells what it was made on."""
    entries = [entry for project in catalog.projects() for entry in catalog.images(project)]
    here = (backend.name, backend.location)
    ours = [entry for entry in newest(entries) if (entry.backend, entry.location) == here]
    manifests = (catalog.manifest(entry.digest) for entry in ours)
    return frozenset(layer.key for manifest in manifests if manifest for layer in manifest.layers)


def image_uses(catalog: Catalog) -> dict[ContentId, ImageUse]:
    """The catalog's images by content, of all projects."""
    from ingot.lifecycle.gc import ImageUse

    entries = [entry for project in catalog.projects() for entry in catalog.images(project)]
    latest = {entry.digest for entry in newest(entries)}
    return {
        entry.digest: ImageUse(name=f"{entry.image}@{entry.version}", newest=entry.digest in latest)
        for entry in reversed(entries)
    }


def forget(catalog: Catalog, backend: Backend, content: ContentId) -> None:
    """Takes every image of this content at this place out of the catalog and the backend; copies elsewhere stay."""
    place = (backend.name, backend.location)
    for project in catalog.projects():
        for entry in catalog.images(project):
            if entry.digest == content and (entry.backend, entry.location) == place:
                catalog.forget(entry)
    for image in list(backend.images.list({})):
        if image.digest == content:
            backend.images.delete(image)


def sweep(workspace: Workspace, names: Sequence[str], *, dry_run: bool, emit: Emit) -> Swept:
    """Removes what dead runs left, or only tells of it."""
    from ingot.engine.sweep import Swept
    from ingot.engine.sweep import sweep as sweep_runs

    if dry_run:
        return Swept(left=unswept(workspace))
    return sweep_runs(workspace.state.runs, adapters.open_place(workspace), emit=emit, names=names)


def strays(workspace: Workspace, *, older_than: float, dry_run: bool, emit: Emit) -> Swept:
    """Removes what is found by its own marks alone in the places of the definition's targets, or only lists it."""
    from ingot.engine.sweep import Swept
    from ingot.engine.sweep import strays as find

    removed: list[str] = []
    left: list[str] = []
    for backend in _backends(workspace):
        for kind, ref in find(workspace.state.runs, backend, older_than=Seconds(older_than)):
            named = f"{backend.name} {backend.location}: {kind} {ref}"
            if dry_run:
                left.append(named)
                continue
            try:
                backend.resource(kind).delete(ref)
            except IngotError as error:
                left.append(named)
                emit(Warned(message=f"could not remove {named}: {error}", hint=error.hint))
            else:
                removed.append(named)
                emit(ResourceClosed(kind=kind, ref=ref))
    return Swept(removed=tuple(removed), left=tuple(left))


def _backends(workspace: Workspace) -> Iterator[Backend]:
    """Each place of the definition's targets once; this computer alone where there is no definition."""
    seen: set[tuple[str, str]] = set()
    try:
        targets = tuple((target.backend, target.options) for target in workspace.definition.targets.values())
    except IngotError:
        targets = (("local", {}),)
    for name, options in targets:
        backend = adapters.open_backend(
            workspace, name, options=options, directory=workspace.state.runs, project=False
        )
        if (backend.name, backend.location) not in seen:
            seen.add((backend.name, backend.location))
            yield backend


def cancel(workspace: Workspace, name: str, *, emit: Emit, cancel: Cancel) -> SeenRun:
    """Asks the process of a run to stop, and waits until the run has ended."""
    from ingot.api import looking
    from ingot.engine.asking import ask
    from ingot.engine.run import LOCK
    from ingot.system import locks, process
    from ingot.system.waits import poll

    found = looking.run(workspace.state.runs, name)
    if found.state != "running" and sweep(workspace, [found.id], dry_run=False, emit=emit).removed:
        return found  # it had kept a machine, which is gone now
    if found.state != "running":
        raise RefusedError(
            f"run {found.id} has ended already: {found.state}", hint="`ingot ps` lists those that go on"
        )
    holder = locks.holder(found.folder / LOCK)
    if holder is None:  # on another computer that shares this state folder
        ask(found.folder, CancelledError("stopped on request", hint="finished layers are kept", signal=15))
    else:
        process.ask_to_stop(holder)
    poll(
        lambda: None if looking.run(workspace.state.runs, found.id).state == "running" else True,
        what=f"the end of run {found.id}",
        every=Seconds(0.2),
        deadline=Seconds(300.0),
        cancel=cancel,
        emit=emit,
    )
    return looking.run(workspace.state.runs, found.id)


def unswept(workspace: Workspace) -> tuple[str, ...]:
    """What dead runs have open in their journals, as `<run>: <kind> <ref>`."""
    from ingot.engine.journal import NAME, Journal
    from ingot.engine.run import LOCK
    from ingot.system.locks import try_lock

    found: list[str] = []
    for run in sorted(path.parent for path in workspace.state.runs.glob(f"*/{NAME}")):
        with try_lock(run / LOCK) as free:
            records = Journal(run, run=run.name).read() if free else ()
        found += [f"{run.name}: {record.name}" for record in records if record.until < time.time()]
    return tuple(found)


def _dropped(drop: Drop) -> Dropped:
    return Dropped(
        name=drop.ref.labels.get("layer", ""),
        key=drop.ref.key,
        bytes=drop.ref.size,
        created=drop.ref.created,
        reason=drop.reason,
        image=drop.image,
    )
