"""Definition → Plan: every input pinned, every layer keyed. Pure: what it reads comes through a `Tree`."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import groupby

from ingot.errors import DefinitionError, PlanError, UsageError
from ingot.model.definition import BaseSource, Definition, ImageDefinition, Target, made_by
from ingot.model.digest import plain
from ingot.model.plan import Base, Destination, Layer, LayerKey, Plan, base_key, layer_key
from ingot.model.secret import secret_names
from ingot.model.step import CloudInitStep, SealStep, Step
from ingot.model.units import Bytes, format_bytes
from ingot.planning.checkpoints import Part, checkpoints
from ingot.planning.contents import Contents
from ingot.planning.names import layer_names
from ingot.ports import Tree

PinsOf = Callable[[str, BaseSource, Target], Mapping[str, str]]
"""The lock's pins of a base (its name, what it is made from, for which target) that count in its key."""


def select(
    definition: Definition, names: Sequence[str] = (), targets: Sequence[str] = ()
) -> tuple[tuple[str, str], ...]:
    """The (image, target) pairs that the globs mean, parents before children, in the definition's order.

    No globs mean everything. Raises UsageError for a glob that means nothing, with near matches.
    """
    _check_globs("image", names, definition.images)
    _check_globs("target", targets, definition.targets)
    chosen = [
        (image, target)
        for image in _parents_first(definition)
        if _matches(image, names)
        for target in targets_of(definition, image)
        if _matches(target, targets)
    ]
    if not chosen:
        raise UsageError(
            "no image is built for what was asked",
            hint=f"images: {', '.join(definition.images)}; targets: {', '.join(definition.targets)}",
        )
    return tuple(chosen)


def targets_of(definition: Definition, image: str) -> tuple[str, ...]:
    """The targets that an image is built for: its own, or its parent's, or else all."""
    for ancestor in reversed(_lineage(definition, image)):
        if ancestor.targets:
            return ancestor.targets
    return tuple(definition.targets)


def plan(
    definition: Definition,
    *,
    image: str,
    target: str,
    tree: Tree,
    pins: PinsOf,
    ansible: str,
    epoch: str = "",
    backends: Collection[str] = ("local",),
    contents: Contents | None = None,
) -> Plan:
    """The plan of one image for one target.

    `ansible` is ansible-core's version, `epoch` the lock's freshness epoch ("" without one), `backends` those
    that can be opened. Several plans over one tree share `contents`, and so read each file once. Raises
    DefinitionError with every file and role that is not there, PlanError for what this target cannot do.
    """
    contents = contents or Contents(tree)
    place = definition.targets[target]
    lineage = _lineage(definition, image)
    _check_target(lineage[-1], place, backends)
    base = _base(definition, lineage[0], place, pins)
    steps = [
        contents.resolve(step, ansible=ansible, epoch=epoch) for one in lineage for step in one.steps
    ]  # all of them, so that one error names all that is missing
    if contents.problems:
        raise DefinitionError(problems=contents.take_problems())
    layers, disk = _layers(definition, lineage, base, steps, most=place.checkpoints)
    native = place.build == "native"
    there = Destination(
        backend=place.backend, location=place.location or place.backend, options=place.options
    )
    return Plan(
        project=definition.name,
        image=image,
        target=target,
        backend=made_by(place),
        location=place.location or place.backend if native else made_by(place),
        arch=place.arch,
        disk=disk,
        base=base,
        layers=layers,
        checks=tuple(dict.fromkeys(check for one in lineage for check in one.checks)),
        check_timeout=lineage[-1].check_timeout,
        options=place.options if native else {},
        imported=None if native else there,
        secrets=tuple(sorted(secret_names(plain(steps)))),
    )


def _base(definition: Definition, root: ImageDefinition, target: Target, pins: PinsOf) -> Base:
    source = _source(definition, root, target)
    disk = root.disk or target.disk
    pinned = dict(pins(root.base, source, target))
    return Base(
        name=root.base,
        source=source,
        arch=target.arch,
        disk=disk,
        pins=pinned,
        key=base_key(source, arch=target.arch, disk=disk, pins=pinned),
    )


def _source(definition: Definition, root: ImageDefinition, target: Target) -> BaseSource:
    source = definition.bases[root.base].source_for(target)
    if source is None:
        raise PlanError(
            f'the base "{root.base}" of image "{root.name}" says nothing of target "{target.name}"',
            hint=f"give `bases.{root.base}` an entry `{target.name}:` or `{made_by(target)}:`",
        )
    return source


def _layers(
    definition: Definition,
    lineage: Sequence[ImageDefinition],
    base: Base,
    steps: Sequence[Step],
    *,
    most: int | None,
) -> tuple[tuple[Layer, ...], Bytes]:
    """The chain of layers, each image's after its parent's, and the size of the disk in the end.

    At `most` so many of them are kept beside the last one.
    """
    parts: list[Part] = []
    ends: list[int] = []
    parents = {one.parent for one in definition.images.values()}
    rest, disk = iter(steps), base.disk
    for one in lineage:
        if one.disk and one.disk != disk:
            if one.disk < disk:
                raise PlanError(
                    f'image "{one.name}" asks for a disk of {format_bytes(one.disk)}, but what it is built on has '
                    f"{format_bytes(disk)}, and a disk is never shrunk",
                    hint="leave `disk` out, or make its parent's smaller",
                )
            disk = one.disk
            parts.append(((), disk))
        parts += [(_fit_together(part), None) for part in _grouped([next(rest) for _ in one.steps])]
        if one.name in parents:
            ends.append(len(parts) - 1)
    parts.append(((SealStep(),), None))
    layers: list[Layer] = []
    parent = base.key
    kept = checkpoints(parts, most=most, ends=ends)
    for index, (name, (part, grow)) in enumerate(zip(layer_names(base.name, parts), parts, strict=True)):
        layer = _layer(definition, name, parent=parent, arch=base.arch, steps=part, grow=grow)
        layers.append(replace(layer, keep=index in kept))
        parent = layer.key
    return tuple(layers), disk


def _layer(
    definition: Definition,
    name: str,
    *,
    parent: LayerKey,
    arch: str,
    steps: tuple[Step, ...],
    grow: Bytes | None,
) -> Layer:
    known = definition.variables
    secrets = sorted(secret_names(plain(steps)))
    revs = {secret: known[secret].rev for secret in secrets if secret in known and known[secret].rev}
    key = layer_key(parent, arch=arch, steps=steps, grow=grow, revs=revs)
    return Layer(name=name, key=key, parent=parent, steps=steps, grow=grow, revs=revs)


def _grouped(steps: Sequence[Step]) -> Iterator[tuple[Step, ...]]:
    """Neighbours that name the same layer together, every other step alone."""
    for _, group in groupby(enumerate(steps), key=lambda item: item[1].layer or item[0]):
        yield tuple(step for _, step in group)


def _fit_together(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The steps of one layer. Raises PlanError where they cannot share a machine."""
    alone = next((step for step in steps if isinstance(step, CloudInitStep)), None)
    if alone and len(steps) > 1:
        raise PlanError(
            f'the layer "{alone.layer}" cannot be shared with the cloud_init step at {alone.place}: it has a machine '
            "that no other step has touched",
            hint="leave its `layer` out",
        )
    kinds = {step.machine for step in steps}
    if len(kinds) > 1:
        raise PlanError(
            f'the steps that share the layer "{steps[0].layer}" ({steps[0].place}) want different machines: '
            f"{' and '.join(sorted(kinds))}",
            hint="give them the same `machine`, or layers of their own",
        )
    return steps


def _check_target(image: ImageDefinition, target: Target, backends: Collection[str]) -> None:
    if target.backend not in backends:
        raise PlanError(
            f'target "{target.name}" of image "{image.name}" needs the backend "{target.backend}", '
            "which is not available in this version",
            hint=f"available: {', '.join(sorted(backends))}",
        )


def _lineage(definition: Definition, image: str) -> tuple[ImageDefinition, ...]:
    """The image and those it continues, the first one first. Raises PlanError for a circle."""
    found: list[ImageDefinition] = []
    name = image
    while name:
        one = definition.images[name]
        if one in found:
            raise PlanError(f'image "{image}" continues itself', hint="break the circle of `from`")
        found.append(one)
        name = one.parent
    return tuple(reversed(found))


def _parents_first(definition: Definition) -> tuple[str, ...]:
    ordered = dict.fromkeys(one.name for image in definition.images for one in _lineage(definition, image))
    return tuple(ordered)


def _matches(name: str, globs: Sequence[str]) -> bool:
    return not globs or any(fnmatchcase(name, glob) for glob in globs)


def _check_globs(what: str, globs: Sequence[str], known: Collection[str]) -> None:
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in known):
            near = difflib.get_close_matches(glob, list(known), n=3)
            listed = ", ".join(near or sorted(known)) or "none"
            raise UsageError(
                f'no {what} of this definition is called "{glob}"',
                hint=f"did you mean {listed}?" if near else f"there are: {listed}",
            )
