"""From the definition to plans, pins and explanations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ingot.api import adapters
from ingot.errors import PlanError
from ingot.model.events import Emit, Progress, Warned

if TYPE_CHECKING:
    from ingot.api.workspace import Workspace
    from ingot.model.definition import BaseSource, Target
    from ingot.model.lock import Lock
    from ingot.model.plan import Plan
    from ingot.model.views import Locked, Planned, Valid
    from ingot.planning.explain import LayerNews
    from ingot.ports import Cancel


def validate(workspace: Workspace) -> Valid:
    """That all of the definition can be planned, whatever its bases will be pinned to."""
    from ingot.model.views import Valid
    from ingot.planning.planner import select, targets_of

    definition = workspace.definition
    _plans(workspace, select(definition), None)
    return Valid(
        name=definition.name,
        files=definition.files,
        images={name: targets_of(definition, name) for name in definition.images},
        variables={name: variable.origin for name, variable in definition.variables.items()},
        warnings=tuple(str(warning) for warning in workspace.loaded.warnings),
    )


def lock(workspace: Workspace, *, update: bool, dry_run: bool, emit: Emit, cancel: Cancel) -> Locked:
    """Pins what is missing, or everything anew; what requirements.yml asks for is fetched first."""
    from ingot.definition import lock as locks
    from ingot.definition.fetch import fetch
    from ingot.model.views import Locked

    if not dry_run:
        adapters.fetch_requirements(workspace, emit=emit, cancel=cancel)
    before = locks.read(workspace.root)
    emit(Progress(what="looking up what to pin", done=0))
    current = locks.begin_epoch(workspace.definition, before, now=workspace.clock.now(), update=update)
    find = adapters.base_finder(workspace)
    after = locks.resolve(workspace.definition, current, update=update, fetch=fetch, find=find)
    if not dry_run:
        locks.write(workspace.root, after)
    return Locked(
        path=workspace.root / locks.FILE,
        pins=sum(len(pin.pins) for pin in after.bases) + len(after.containers),
        changes=tuple(locks.describe_changes(before, after)),
    )


def plans(
    workspace: Workspace,
    names: Sequence[str],
    *,
    targets: Sequence[str],
    locked: bool,
    keep_pins: bool,
    emit: Emit,
) -> tuple[Plan, ...]:
    """The plans that the globs mean, with every pin."""
    from ingot.planning.planner import select

    for warning in workspace.loaded.warnings:
        emit(Warned(message=str(warning)))
    chosen = select(workspace.definition, names, targets)
    images = tuple(dict.fromkeys(image for image, _ in chosen))
    pins = _pinned(workspace, images, locked=locked, keep=keep_pins, emit=emit)
    return _plans(workspace, chosen, pins)


def possible(workspace: Workspace, names: Sequence[str], *, targets: Sequence[str]) -> tuple[Plan, ...]:
    """The plans that the globs mean, with the pins that there are: nothing is looked up."""
    from ingot.definition import lock as locks
    from ingot.planning.planner import select

    return _plans(workspace, select(workspace.definition, names, targets), locks.read(workspace.root))


def plan(
    workspace: Workspace,
    names: Sequence[str],
    *,
    targets: Sequence[str],
    locked: bool,
    no_cache: bool,
    emit: Emit,
) -> tuple[Planned, ...]:
    """Each plan with what is there of it and, for the rest, what changed since the last build."""
    from ingot.engine.build import standing_layers
    from ingot.engine.records import layer_keys
    from ingot.engine.sharing import Wanted, offered
    from ingot.planning.explain import explain

    cache = None if no_cache else adapters.layer_cache(workspace)
    views = []
    for one in plans(workspace, names, targets=targets, locked=locked, keep_pins=False, emit=emit):
        backend = adapters.open_backend(
            workspace, one.backend, options=one.options, directory=workspace.state.runs
        )
        previous = workspace.state.last_plan(one.project, one.image, one.target)
        standing = () if no_cache else standing_layers(one, backend)
        pulled = offered(Wanted(plan=one, standing=standing), cache, backend, emit=emit)
        have = frozenset(layer_keys(one)[: len(standing)])
        news = explain(
            one, previous=previous, have=have.__contains__, cached={parcel.key for parcel in pulled}
        )
        views.append(_view(one, news))
    return tuple(views)


def _view(one: Plan, news: Sequence[LayerNews]) -> Planned:
    from ingot.model.views import Planned, PlannedLayer

    return Planned(
        image=one.image,
        target=one.target,
        backend=one.backend,
        location=one.location,
        arch=one.arch,
        disk=one.disk,
        key=one.key,
        to_build=sum(layer.status == "miss" for layer in news),
        layers=tuple(
            PlannedLayer(name=layer.name, key=layer.key, status=layer.status, reason=layer.reason)
            for layer in news
        ),
    )


def _plans(workspace: Workspace, chosen: Sequence[tuple[str, str]], pins: Lock | None) -> tuple[Plan, ...]:
    from ingot.definition.lock import pins_of
    from ingot.planning.contents import Contents
    from ingot.planning.planner import plan as plan_one

    definition = workspace.definition
    tree = adapters.project_tree(workspace)
    contents = Contents(tree, digests=pins.digests if pins is not None else {})

    def pinned(base: str, source: BaseSource, target: Target) -> Mapping[str, str]:
        return pins_of(pins, base, source, target) if pins is not None else {}

    backends = adapters.backend_names({definition.targets[target].backend for _, target in chosen})
    return tuple(
        plan_one(
            definition,
            image=image,
            target=target,
            tree=tree,
            pins=pinned,
            ansible=adapters.ansible_version(),
            epoch=pins.epoch if pins is not None else "",
            backends=backends,
            contents=contents,
        )
        for image, target in chosen
    )


def _pinned(workspace: Workspace, images: Sequence[str], *, locked: bool, keep: bool, emit: Emit) -> Lock:
    """The lock of this time, with a pin for everything that these images begin with."""
    from ingot.definition import lock as locks

    found = locks.read(workspace.root)
    current = locks.begin_epoch(workspace.definition, found, now=workspace.clock.now())
    if locked and current.epoch and current.epoch != found.epoch:
        raise PlanError(
            f"`{locks.FILE}` is of {found.epoch or 'no epoch'}, and `freshness` asks for {current.epoch} by now; "
            "`--locked` moves no pin",
            hint="`ingot lock` begins the new epoch; commit the file",
        )
    bases = [one.base for one in locks.missing(workspace.definition, current, images)]
    missing = [*bases, *locks.missing_containers(workspace.definition, current, images)]
    if not missing:
        if keep and current != found:
            locks.write(workspace.root, current)
        return current
    names = ", ".join(dict.fromkeys(missing))
    if locked:
        raise PlanError(
            f"`{locks.FILE}` has no pins for {names}, and `--locked` asks for all of them",
            hint="`ingot lock` adds what is missing; commit the file",
        )
    from ingot.definition.fetch import fetch

    emit(Progress(what=f"looking up what to pin for {names}", done=0))
    find = adapters.base_finder(workspace)
    full = locks.resolve(workspace.definition, current, update=False, fetch=fetch, find=find, images=images)
    if keep:
        locks.write(workspace.root, full)
    return full
