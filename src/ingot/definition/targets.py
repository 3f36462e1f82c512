"""Targets and bases as written → the frozen values of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ingot.definition.fields import check_name
from ingot.definition.messages import Bad, validate
from ingot.definition.nodes import Node, Scalar, Table, plain, problem, without
from ingot.definition.schema import DebootstrapModel, LocalBaseModel, TargetModel
from ingot.definition.suggest import did_you_mean
from ingot.errors import Problem
from ingot.model.definition import (
    BaseDefinition,
    BaseSource,
    CloudBase,
    DebootstrapBase,
    DiskImageBase,
    Target,
    made_by,
)
from ingot.model.step import Place
from ingot.model.units import parse_bytes
from ingot.ports import Shape, ShapeOf

BACKENDS = ("local", "aws", "azure", "gcp", "openstack", "memory")
"""Backends that a base may speak of before any target does."""
_ON_DISK = ("local", "memory")
"""Backends whose bases are made or read here: their shape is known."""
_LOCAL_OPTIONS: tuple[str, ...] = ()
"""Options of the local backend's targets: none yet, so that any further key is a slip of the pen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """Targets and bases that are sound, and the names of all that were written."""

    targets: Mapping[str, Target]
    bases: Mapping[str, BaseDefinition]
    target_names: frozenset[str]
    base_names: frozenset[str]
    nodes: Mapping[tuple[str, str], Node] = field(default_factory=dict)
    """(base, its key) → what was written there."""


def no_shapes(backend: str) -> Shape | None:
    """Whatever a backend is told is taken as it is."""
    return None


def read_places(
    targets: Table, bases: Table, *, problems: list[Problem], shape_of: ShapeOf = no_shapes
) -> Places:
    """Reads both sections; what is not sound is told and left out. `shape_of` knows what backends can be told."""
    made = {
        name: target
        for name, node in targets.entries.items()
        if (target := _target(name, node, targets.keys[name], problems, shape_of))
    }
    backends = {target.backend for target in made.values()} | set(BACKENDS)
    known = backends | set(targets.entries)
    sources: dict[str, BaseDefinition] = {}
    nodes: dict[tuple[str, str], Node] = {}
    for name, node in bases.entries.items():
        place, path = bases.keys[name], ("bases", name)
        if not usable_name(name, place, path, problems):
            continue
        if not isinstance(node, Table) or not node.entries:
            hint = "such as `local: {debootstrap: bookworm}`"
            problems.append(
                problem("a base says what it is on each target or backend", place, path=path, hint=hint)
            )
            continue
        nodes.update({(name, key): item for key, item in node.entries.items()})
        _refuse_unknown(node, known, path, problems)
        kinds = {key: made_by(made[key]) if key in made else key for key in node.entries}
        sources[name] = _base(name, node, kinds, place, problems, shape_of)
    return Places(
        targets=made,
        bases=sources,
        target_names=frozenset(targets.entries),
        base_names=frozenset(bases.entries),
        nodes=nodes,
    )


def _refuse_unknown(node: Table, known: set[str], path: tuple[str, ...], problems: list[Problem]) -> None:
    for key, place in node.keys.items():
        if key not in known:
            message, hint = f"`{key}` is neither a target nor a backend", did_you_mean(key, known)
            problems.append(problem(message, place, path=(*path, key), hint=hint))


def usable_name(name: str, place: Place, path: tuple[str, ...], problems: list[Problem]) -> bool:
    """Whether `name` may name an entry of a section; tells why not."""
    try:
        check_name(name)
    except Bad as error:
        problems.append(problem(str(error), place, path=path, hint=error.hint))
        return False
    return True


def _target(name: str, node: Node, place: Place, problems: list[Problem], shape_of: ShapeOf) -> Target | None:
    path = ("targets", name)
    if not usable_name(name, place, path, problems):
        return None
    if isinstance(node, Scalar):
        hint = f"write {{backend: {node.raw or 'local'}}}"
        problems.append(problem("a target is a map", place, path=path, hint=hint))
        return None
    model = validate(TargetModel, node, path=path, problems=problems, partial=True)
    if model is None:
        return None
    options: dict[str, Any] = model.model_extra or {}
    if model.backend == "local" and isinstance(node, Table):
        for key in options:
            if key not in _LOCAL_OPTIONS:
                hint = did_you_mean(key, (*TargetModel.model_fields, *_LOCAL_OPTIONS))
                problems.append(
                    problem(
                        f"the local backend has no option `{key}`",
                        node.keys[key],
                        path=(*path, key),
                        hint=hint,
                    )
                )
    shape = shape_of(model.backend)
    if shape and isinstance(node, Table):
        own = without(node, TargetModel.model_fields)
        if validate(shape.target, own, path=path, problems=problems) is None:
            return None
    return Target(
        name=name,
        backend=model.backend,
        arch=model.arch,
        disk=parse_bytes(model.disk),
        options=options,
        build=model.build,
        location=shape.location(options) if shape else "",
        checkpoints=shape.checkpoints(options) if shape and model.build == "native" else None,
        place=place,
    )


def _base(
    name: str,
    node: Table,
    kinds: Mapping[str, str],
    place: Place,
    problems: list[Problem],
    shape_of: ShapeOf,
) -> BaseDefinition:
    sources: dict[str, BaseSource] = {}
    for key, item in node.entries.items():
        path = ("bases", name, key)
        if kinds[key] in _ON_DISK:
            model = validate(LocalBaseModel, item, path=path, problems=problems)
            if model:
                sources[key] = _source(model)
        elif not isinstance(item, Table):
            problems.append(
                problem("a map is asked for here", item.place, path=path, hint="such as {ami: …}")
            )
        else:
            shape = shape_of(kinds[key])
            if shape is None or validate(shape.base, item, path=path, problems=problems):
                sources[key] = CloudBase(backend=kinds[key], query=plain(item))
    return BaseDefinition(name=name, sources=sources, place=place)


def _source(model: LocalBaseModel) -> BaseSource:
    made = model.root
    if isinstance(made, DebootstrapModel):
        return DebootstrapBase(
            suite=made.debootstrap,
            mirror=made.mirror.rstrip("/"),
            security=made.security.rstrip("/"),
            components=tuple(made.components),
            keyring=made.keyring or "",
            kernel=made.kernel,
            include=tuple(made.include),
        )
    return DiskImageBase(url=made.image, sha256=made.sha256)
