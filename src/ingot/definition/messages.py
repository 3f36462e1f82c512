"""Nodes checked against a pydantic model: its errors become problems with a place, a path and a remedy."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, RootModel, ValidationError

from ingot.definition.nodes import (
    Items,
    Node,
    Path,
    Scalar,
    Table,
    find,
    key_place,
    leaves,
    place_at,
    plain,
    problem,
)
from ingot.definition.suggest import did_you_mean
from ingot.errors import Problem

M = TypeVar("M", bound=BaseModel)

_ASKED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a map",
    "model_type": "a map",
    "model_attributes_type": "a map",
    "none_required": "nothing",
}


class Bad(ValueError):  # noqa: N818 -- said by a validator about a value, then read here; never raised to users
    """What a validator of the schema has to say: a message and its hint."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def validate(
    model: type[M], node: Node, *, path: Path, problems: list[Problem], partial: bool = False
) -> M | None:
    """The node as the model has it, or None; every problem is told.

    With `partial`, a map that is wrong in some entries is read without them, so that whatever leans on the sound
    ones can be checked as well: the result of a node with problems is good for looking, not for building.
    """
    value = plain(node)
    hollow = {where for where, leaf in leaves(node) if leaf.hollow}
    try:
        made = model.model_validate(value)
    except ValidationError as error:
        faults = error.errors(include_url=False)
    else:
        return _rest(model, value, hollow) if hollow and partial else None if hollow else made
    wrong = [_written(node, fault) for fault in faults]
    problems.extend(
        _problem(model, node, where, fault, path)
        for where, fault in zip(wrong, faults, strict=True)
        if not any(_covers(where, gone) for gone in hollow)
    )
    return _rest(model, value, {*wrong, *hollow}) if partial else None


def _rest(model: type[M], value: Any, gone: Iterable[Path]) -> M | None:
    dropped = {where[0] for where in gone if where}
    if not isinstance(value, dict) or not dropped:
        return None
    try:
        return model.model_validate({key: item for key, item in value.items() if key not in dropped})
    except ValidationError:
        return None


def _covers(where: Path, gone: Path) -> bool:
    """Whether a problem at `where` only follows from what is wrong at `gone`."""
    short = min(len(where), len(gone))
    return where[:short] == gone[:short]


def _written(node: Node, error: Any) -> Path:
    """The path as the user wrote it: pydantic's own without the names of union members."""
    here: Node | None = node
    path: list[str | int] = []
    last = len(error["loc"]) - 1
    for index, part in enumerate(error["loc"]):
        following = find(here, (part,)) if here is not None else None
        names_nothing = index == last and error["type"] in ("missing", "extra_forbidden")
        if following is None and not names_nothing:
            continue
        path.append(part)
        here = following
    return tuple(path)


def _problem(model: type[BaseModel], node: Node, where: Path, error: Any, path: Path) -> Problem:
    kind = error["type"]
    here = find(node, where)
    place = place_at(node, where)
    if kind == "extra_forbidden":
        around = f" in `{where[-2]}`" if len(where) > 1 and isinstance(where[-2], str) else ""
        hint = did_you_mean(str(where[-1]), _known(model, node, where)) or "remove it"
        message = f"there is no key `{where[-1]}`{around}"
        return problem(message, key_place(node, where), path=(*path, *where), hint=hint)
    if kind == "missing":
        hint = f"add `{where[-1]}: …`"
        return problem(f"`{where[-1]}` is missing", place, path=(*path, *where[:-1]), hint=hint)
    message, hint = _say(kind, here, error)
    return problem(message, place, path=(*path, *where), hint=hint)


def _say(kind: str, here: Node | None, error: Any) -> tuple[str, str]:
    given = describe(here)
    context = error.get("ctx", {})
    if kind in _ASKED:
        return f"{_ASKED[kind]} is asked for, not {given}", _quote(kind, here)
    match kind:
        case "value_error":
            cause = context["error"]
            message, _, remedy = str(cause).partition("; ")  # units say both in one sentence
            return message, getattr(
                cause, "hint", ""
            ) or remedy or "see the reference for what can stand here"
        case "literal_error":
            known = _choices(str(context["expected"]))
            value = here.value if isinstance(here, Scalar) else None
            hint = did_you_mean(value, known) if isinstance(value, str) else "known: " + ", ".join(known)
            return f"{given} is not a choice", hint or "known: " + ", ".join(known)
        case "greater_than_equal" | "greater_than":
            return (
                f"{given} is too small; the least is {context.get('ge', context.get('gt'))}",
                "write a larger one",
            )
        case "less_than_equal":
            return f"{given} is too large; the most is {context['le']}", "write a smaller one"
        case "too_short":
            return "this is empty", "name at least one, or leave it out"
        case "union_tag_not_found" | "union_tag_invalid":
            return _no_step(here, given)
        case "shape":
            instead = "" if isinstance(here, Table) else f", not {given}"
            return f"{context['asked']} is asked for{instead}", context["hint"]
        case _:
            return str(error["msg"]), "see the reference for what can stand here"


def _no_step(here: Node | None, given: str) -> tuple[str, str]:
    from ingot.definition.step_schema import KINDS

    if not isinstance(here, Table):
        return f"a step is a map, not {given}", "such as `packages: [htop]`"
    kinds = [key for key in here.entries if key in KINDS]
    if len(kinds) > 1:
        both = " and ".join(f"`{kind}`" for kind in kinds)
        return f"a step does one thing, and this has {both}", "begin a new step with `- ` for each"
    known = ", ".join(f"`{kind}`" for kind in KINDS)
    close = [hint for key in here.entries if (hint := did_you_mean(key, KINDS)).startswith("did")]
    return "this is not a step of a kind known here", close[0] if close else f"a step has one of {known}"


def describe(node: Node | None) -> str:
    """A node in words: "the number 1.24", "a list"."""
    match node:
        case None:
            return "nothing"
        case Items():
            return "a list"
        case Table():
            return "a map"
        case Scalar(value=None):
            return "nothing"
        case Scalar(value=bool(), raw=raw):
            return f"the boolean {raw}"
        case Scalar(value=int() | float(), raw=raw):
            return f"the number {raw}"
        case Scalar(value=text):
            shown = str(text) if len(str(text)) <= 60 else str(text)[:59] + "…"
            return f"the text {shown!r}"


def _quote(kind: str, node: Node | None) -> str:
    match node:
        case Scalar(value=None):
            return "write a value after the `:` or remove the line"
        case Scalar(raw=raw, quoted=False) if kind == "string_type":
            return f'quote it: "{raw}"'
        case Scalar(raw=raw) if kind == "string_type" and "${" in raw:
            return "give the variable the type `string`"
        case Scalar(value=str() as text) if kind == "list_type" and "\n" not in text and text:
            return f"write [{text}]" if len(text) < 60 and "$" not in text else "write a list"
        case Scalar(value=str(), raw=raw) if (
            kind in ("int_type", "bool_type", "float_type") and "${" not in raw
        ):
            return "write it without quotes"
        case _:
            return f"write {_ASKED[kind]}"


def _choices(expected: str) -> list[str]:
    """`'a', 'b' or 'c'`, as pydantic tells them, one by one."""
    return [part for index, part in enumerate(expected.split("'")) if index % 2]


def _known(model: type[BaseModel], node: Node, wrong: Path) -> list[str]:
    """The keys that could stand in place of a wrong one, of those shapes that fit best what is there."""
    where, key = wrong[:-1], wrong[-1]
    around: list[Any] = [model.model_fields["root"].annotation if issubclass(model, RootModel) else model]
    for part in where:
        around = [inner for annotation in around for inner in _inside(annotation, part)]
    models = [found for annotation in around for found in _models(annotation)]
    here = find(node, where)
    given = here.entries.keys() if isinstance(here, Table) else ()
    known = [[field.alias or name for name, field in found.model_fields.items()] for found in models]
    known = [names for names in known if key not in names]
    best = max((len(given & set(names)) for names in known), default=0) if given else 0
    return [name for names in known if not given or len(given & set(names)) == best for name in names]


def _inside(annotation: Any, part: str | int) -> Iterable[Any]:
    for found in _models(annotation):
        for name, field in found.model_fields.items():
            if part == (field.alias or name):
                yield field.annotation
    for argument in _unions(annotation):
        if typing.get_origin(argument) in (list, dict, Mapping):
            yield typing.get_args(argument)[-1]


def _unions(annotation: Any) -> Iterable[Any]:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        yield from _unions(typing.get_args(annotation)[0])
    elif origin in (typing.Union, types.UnionType):
        for argument in typing.get_args(annotation):
            yield from _unions(argument)
    else:
        yield annotation


def _models(annotation: Any) -> list[type[BaseModel]]:
    return [
        found for found in _unions(annotation) if isinstance(found, type) and issubclass(found, BaseModel)
    ]
