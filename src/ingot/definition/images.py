"""Images as written → one frozen image for each combination of its matrix."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ingot.definition.interpolate import Interpolation, Scope
from ingot.definition.matrix import Variant, Written, multiply
from ingot.definition.messages import validate
from ingot.definition.nodes import Items, Node, Path, Scalar, Table, key_place, path_text, place_at, problem
from ingot.definition.schema import ImageModel
from ingot.definition.steps import is_wanted, read_step, to_steps
from ingot.definition.targets import usable_name
from ingot.errors import Problem
from ingot.model.definition import ImageDefinition
from ingot.model.step import MachineKind, Step
from ingot.model.units import parse_bytes, parse_seconds

_SECRETS = re.compile(
    r"images\..*\.steps\[\d+\]\.(vars|script\.(inline|args|env)|cloud_init\.inline|files(\[\d+\])?\.text)\b.*"
)
_AXIS_VALUE = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where a step, or an image, was written: its node and path."""

    node: Node
    path: Path


@dataclass(slots=True)
class Images:
    """The sound images by full name; where each image and each of its steps was written; all names written."""

    images: dict[str, ImageDefinition] = field(default_factory=dict)
    written: dict[str, Origin] = field(default_factory=dict)
    steps: dict[tuple[str, int], Origin] = field(default_factory=dict)


def read_images(table: Table, *, scope: Scope, problems: list[Problem]) -> Images:
    """Reads the section: matrix and `from` first, then each image with its own values."""
    nodes = _image_tables(table, problems)
    written = {
        name: Written(axes=_axes(name, node, scope, problems), parent=_parent_of(node, scope))
        for name, node in nodes.items()
    }

    def tell(name: str, message: str, hint: str) -> None:
        place = place_at(nodes[name], ("from",)) if "from" in nodes[name].entries else table.keys[name]
        problems.append(problem(message, place, path=("images", name), hint=hint))

    variants = multiply(written, tell)
    made = Images()
    for name in variants:
        node = nodes[name]
        _one_beginning(name, node, problems)
        for variant in variants[name] or (None,):
            _read_image(
                name,
                node,
                variant=variant,
                axes=written[name].axes,
                scope=scope,
                made=made,
                problems=problems,
            )
    order = {
        variant.name: index
        for index, variant in enumerate(v for name in nodes for v in variants.get(name, ()))
    }
    made.images = {name: made.images[name] for name in sorted(made.images, key=lambda name: order[name])}
    return made


def _image_tables(table: Table, problems: list[Problem]) -> dict[str, Table]:
    """The images that are maps and have a usable name, each placed at its name."""
    found: dict[str, Table] = {}
    for name, node in table.entries.items():
        place, path = table.keys[name], ("images", name)
        if not usable_name(name, place, path, problems):
            continue
        if isinstance(node, Table):
            found[name] = replace(node, place=place)
        else:
            hint = "an image has a `base` or a `from`, and `steps`"
            problems.append(problem("an image is a map", place, path=path, hint=hint))
    return found


def _one_beginning(name: str, node: Table, problems: list[Problem]) -> None:
    both = [key for key in ("base", "from") if key in node.entries]
    if len(both) == 2:
        hint = "keep one of them: an image begins with a base, or continues another image"
        problems.append(
            problem(
                "`base` and `from` exclude each other",
                key_place(node, ("from",)),
                path=("images", name),
                hint=hint,
            )
        )
    elif not both:
        hint = "name a base of `bases`, or an image to continue"
        problems.append(
            problem(
                "neither `base` nor `from` says what the image begins with",
                node.place,
                path=("images", name),
                hint=hint,
            )
        )


def _axes(name: str, node: Table, scope: Scope, problems: list[Problem]) -> dict[str, tuple[Any, ...]]:
    """The image's own matrix, as far as it is sound; the model tells what has the wrong shape."""
    path: Path = ("images", name, "matrix")
    told: list[Problem] = []  # interpolation is told when the image itself is read
    found = Interpolation(scope=scope, problems=told).apply(
        node.entries.get("matrix", Table(entries={}, place=node.place)), path
    )
    axes: dict[str, tuple[Any, ...]] = {}
    for axis, values in (found.entries if isinstance(found, Table) else {}).items():
        if not isinstance(values, Items) or not values.items:
            continue
        sound: list[Any] = []
        for index, item in enumerate(values.items):
            if _is_axis_value(item, (*path, axis, index), problems) and isinstance(item, Scalar):
                if item.value in sound:
                    problems.append(
                        problem(
                            "this value is there already",
                            item.place,
                            path=(*path, axis, index),
                            hint="remove it",
                        )
                    )
                else:
                    sound.append(item.value)
        axes[axis] = tuple(sound)
    return axes


def _is_axis_value(item: Node, path: Path, problems: list[Problem]) -> bool:
    if isinstance(item, Scalar) and item.hollow:
        return False
    value = item.value if isinstance(item, Scalar) else None
    if isinstance(value, bool) or value is None:
        raw = item.raw if isinstance(item, Scalar) else ""
        hint = f'quote it: "{raw}"' if raw else "such as [slurm, pbs]"
        problems.append(problem("a matrix value is text or a number", item.place, path=path, hint=hint))
        return False
    if not _AXIS_VALUE.fullmatch(str(value)):
        hint = "it becomes part of the image's name: lowercase letters, digits, `-` and `.`"
        problems.append(
            problem(f"{str(value)[:60]!r} cannot be a matrix value", item.place, path=path, hint=hint)
        )
        return False
    if isinstance(item, Scalar) and isinstance(value, float) and str(value) != item.raw:
        problems.append(
            problem(
                f"YAML reads {item.raw} as {value}", item.place, path=path, hint=f'quote it: "{item.raw}"'
            )
        )
        return False
    return True


def _parent_of(node: Table, scope: Scope) -> Callable[[Mapping[str, Any]], str]:
    def parent(values: Mapping[str, Any]) -> str:
        written = node.entries.get("from")
        if written is None:
            return ""
        filled = Interpolation(scope=scope.with_values(values), problems=[]).apply(written)
        found = filled.value if isinstance(filled, Scalar) and not filled.hollow else ""
        return found if isinstance(found, str) else ""

    return parent


def _read_image(
    name: str,
    node: Table,
    *,
    variant: Variant | None,
    axes: Mapping[str, Any],
    scope: Scope,
    made: Images,
    problems: list[Problem],
) -> None:
    """Reads one variant; without one (its `from` is wrong) the image is only looked through for problems."""
    path: Path = ("images", name)
    inner = scope.with_values(variant.values) if variant else _without(scope, axes)
    filling = Interpolation(
        scope=inner,
        problems=problems,
        secrets_allowed=_may_hold_secret,
    )
    filled = filling.apply(node, path)
    assert isinstance(filled, Table)
    written = filled.entries.get("steps")
    if isinstance(written, Items):
        frame = replace(filled, entries={key: item for key, item in filled.entries.items() if key != "steps"})
    else:
        frame = filled
    model = validate(ImageModel, frame, path=path, problems=problems, partial=True)
    steps = _read_steps(
        written,
        name=variant.name if variant else name,
        path=path,
        scope=inner,
        made=made,
        problems=problems,
        machine=model.machine if model else "chroot",
    )
    if model is None or variant is None:
        return
    if variant.name in made.images:
        message = f"the image `{variant.name}` is there already, at {made.images[variant.name].place}"
        problems.append(problem(message, node.place, path=path, hint="rename one of them"))
        return
    if len(variant.name) > 63:
        message = f"the name `{variant.name[:40]}…` is longer than 63 characters"
        problems.append(
            problem(message, node.place, path=path, hint="shorten the image's name or its matrix values")
        )
    made.written[variant.name] = Origin(node=filled, path=path)
    made.images[variant.name] = _image(model, variant, node, steps)


def _may_hold_secret(at: Path) -> bool:
    return bool(_SECRETS.fullmatch(path_text(at)))


def _without(scope: Scope, axes: Mapping[str, Any]) -> Scope:
    """The scope of an image whose matrix values are not known: what refers to them is not looked at."""
    values = {key: value for key, value in scope.values.items() if key not in axes}
    return replace(scope, broken={*scope.broken, *axes}, values=values)


def _image(model: ImageModel, variant: Variant, node: Table, steps: tuple[Step, ...]) -> ImageDefinition:
    return ImageDefinition(
        name=variant.name,
        base=model.base or "" if not variant.parent else "",
        parent=variant.parent,
        targets=tuple(model.targets or ()),
        steps=steps,
        checks=tuple(model.checks),
        matrix=variant.values,
        disk=parse_bytes(model.disk) if model.disk else None,
        check_timeout=parse_seconds(model.check_timeout),
        check_machine=model.check_machine,
        place=node.place,
    )


def _read_steps(
    node: Node | None,
    *,
    name: str,
    path: Path,
    scope: Scope,
    made: Images,
    problems: list[Problem],
    machine: MachineKind,
) -> tuple[Step, ...]:
    """The steps whose `when` holds; the place of each is noted."""
    found: list[Step] = []
    for index, item in enumerate(node.items if isinstance(node, Items) else ()):
        at: Path = (*path, "steps", index)
        model = read_step(item, path=at, problems=problems)
        if model is None:
            continue
        told: list[Problem] = []
        wanted = is_wanted(model, item, values=dict(scope.values), path=at, problems=told)
        if told and isinstance(model.when, str) and any(word in model.when for word in scope.broken):
            continue  # it leans on a variable whose own problem is told already
        problems.extend(told)
        if not wanted:
            continue
        for step in to_steps(model, item, fallback_layer=f"files-{index + 1}", machine=machine):
            made.steps[name, len(found)] = Origin(node=item, path=at)
            found.append(step)
    return tuple(found)
