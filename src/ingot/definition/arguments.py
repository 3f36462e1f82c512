"""A step's `vars` against what its roles take, and against YAML's ways of misreading them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ingot.definition.interpolate import NAME
from ingot.definition.messages import describe
from ingot.definition.nodes import Items, Node, Path, Scalar, Table, leaves, place_at, plain, problem
from ingot.definition.roles import Interface
from ingot.definition.suggest import did_you_mean
from ingot.errors import Problem

_BOOLEANS = frozenset({"y", "yes", "on", "1", "true", "t", "1.0", "n", "no", "off", "0", "false", "f", "0.0"})
_PLAIN_BOOLEANS = frozenset({"true", "false", "True", "False", "yes", "no"})


def wrong_types(variables: Table, interfaces: Mapping[str, Interface], path: Path) -> Iterator[Problem]:
    """Values that a role's argument_specs would refuse when it runs."""
    for name, node in variables.entries.items():
        for role, interface in interfaces.items():
            spec = interface.options.get(name)
            if spec is None:
                continue
            at = (*path, name)
            if wrong := next(_refusals(node, spec, at), None):
                asked, item, there = wrong
                hint = f"the role `{role}` declares it in meta/argument_specs.yml"
                message = f"`{name}` is {asked}, and this is {describe(item)}"
                yield problem(message, item.place, path=there, hint=hint)
            elif choices := _not_chosen(node, spec):
                message = f"{describe(node)} is not a choice for `{name}`"
                yield problem(message, node.place, path=at, hint=did_you_mean(str(plain(node)), choices))
            break


def unknown_names(
    variables: Table, interfaces: Mapping[str, Interface], path: Path
) -> Iterator[tuple[bool, Problem]]:
    """(certain, problem) for variables that none of the step's roles takes. Certain: it bears a role's prefix."""
    known = {name for interface in interfaces.values() for name in {*interface.options, *interface.others}}
    for name, place in variables.keys.items():
        if name in known or name.startswith("ansible_") or not NAME.fullmatch(name):
            continue
        owner = next((role for role in interfaces if name.startswith(_prefix(role))), "")
        who = (
            f"the role `{owner}` has no variable `{name}`"
            if owner
            else f"no role of this step has a variable `{name}`"
        )
        hint = did_you_mean(name, known)
        yield (
            bool(owner),
            problem(
                who,
                place,
                path=(*path, name),
                hint=hint if hint.startswith("did") else "see the role's README",
            ),
        )


def _prefix(role: str) -> str:
    return re.split(r"[./]", role)[-1].replace("-", "_") + "_"


def unusable_names(variables: Table, path: Path) -> Iterator[Problem]:
    """Names that Ansible cannot use."""
    for name, place in variables.keys.items():
        if not NAME.fullmatch(name):
            hint = f"for example `{re.sub('[^A-Za-z0-9_]', '_', name)[:40]}`"
            yield problem(
                f"`{name[:60]}` is not the name of an Ansible variable", place, path=(*path, name), hint=hint
            )


def changed_numbers(variables: Table, path: Path) -> Iterator[Problem]:
    """Numbers that lose what was written: `22.10` is read as 22.1."""
    for at, leaf in leaves(variables):
        if leaf.quoted or isinstance(leaf.value, bool) or not isinstance(leaf.value, (int, float)):
            continue
        if str(leaf.value) != leaf.raw:
            message = f"YAML reads {leaf.raw} as the number {leaf.value}"
            hint = f'quote it: "{leaf.raw}", or write {leaf.value}'
            yield problem(message, leaf.place, path=(*path, *at), hint=hint)


def odd_booleans(variables: Table, path: Path) -> Iterator[Problem]:
    """Words that YAML reads as true or false, though they may be meant as text: `NO`, `on`."""
    for at, leaf in leaves(variables):
        if isinstance(leaf.value, bool) and not leaf.quoted and leaf.raw not in _PLAIN_BOOLEANS:
            word = "true" if leaf.value else "false"
            message = f"YAML reads {leaf.raw} as {word}"
            hint = f'write {word}, or quote it: "{leaf.raw}"'
            yield problem(message, place_at(variables, at), path=(*path, *at), hint=hint)


def _refusals(node: Node, spec: Mapping[str, Any], path: Path) -> Iterator[tuple[str, Node, Path]]:
    """(what is asked for, the node that is not that, its path): of the node itself, or of a list's items."""
    if asked := _refused(node, spec):
        yield asked, node, path
    elif isinstance(node, Items) and isinstance(elements := spec.get("elements"), str):
        for index, item in enumerate(node.items):
            if asked := _refused(item, {"type": elements}):
                yield f"a list of {asked}", item, (*path, index)


def _refused(node: Node, spec: Mapping[str, Any]) -> str:
    """What the spec asks for where Ansible would refuse the node, or "". Templates and references may be anything."""
    if isinstance(node, Scalar) and (node.hollow or "{{" in str(node.value)):
        return ""
    value = plain(node)
    match spec.get("type", "str"):
        case "str" | "path" if isinstance(value, (list, dict)):
            return "text"
        case "int" if isinstance(value, bool) or not _is(int, value):
            return "a whole number"
        case "float" if isinstance(value, bool) or not _is(float, value):
            return "a number"
        case "bool" if not isinstance(value, bool) and str(value).lower() not in _BOOLEANS:
            return "true or false"
        case "list" if isinstance(value, (dict, bool)) or value is None:
            return "a list"
        case "dict" if not isinstance(value, dict) and not (
            isinstance(value, str) and re.search(r"[={]", value)
        ):
            return "a map"
        case _:
            return ""


def _is(kind: type[int] | type[float], value: Any) -> bool:
    try:
        return kind(value) == float(value)
    except (TypeError, ValueError, OverflowError):
        return False


def _not_chosen(node: Node, spec: Mapping[str, Any]) -> list[str]:
    """The choices, where the node is none of them."""
    choices = spec.get("choices")
    if (
        not isinstance(choices, list)
        or not isinstance(node, Scalar)
        or node.hollow
        or "{{" in str(node.value)
    ):
        return []
    known = [str(choice) for choice in choices]
    return [] if str(node.value) in known else known
