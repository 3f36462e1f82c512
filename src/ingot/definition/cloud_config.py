"""What is wrong with a `#cloud-config`, told without running it: by cloud-init's own JSON Schema, and by what that leaves open.

The schema (`schemas/schema-cloud-config-v1.json`) is cloud-init 25.1's, unchanged.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from ingot.definition.messages import describe
from ingot.definition.nodes import Items, Node, Path, Scalar, Table, find, key_place, place_at, plain, problem
from ingot.definition.suggest import did_you_mean
from ingot.definition.yaml import parse_yaml
from ingot.errors import Problem

if TYPE_CHECKING:
    from jsonschema import Draft4Validator
    from jsonschema.exceptions import ValidationError

HOLE = "\ue002"
"""Stands in text for a character that is only known on the machine: what holds it is not judged by its value."""
_NAMES = {
    "string": "text",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "array": "a list",
    "object": "a map",
    "null": "nothing",
}
_MODE = re.compile(r"(0o?)?[0-7]{3,4}")
_BASE64 = ("b64", "base64", "gz+b64", "gz+base64", "gzip+b64", "gzip+base64")
_BELONGS = {"default_user": "system_info"}
_ENDS = "the machine would be switched off or started anew before the layer is complete"


def lint_cloud_config(text: str, *, file: str, above: int = 0) -> tuple[list[Problem], list[Problem]]:
    """(problems, warnings) of a cloud-config that begins below so many lines of its file."""
    node, problems = parse_yaml("\n" * above + text, file=file, tags=("tag:yaml.org,2002:binary",))
    if node is None:
        return problems, []
    if not isinstance(node, Table):
        hint = "such as `packages: [htop]`"
        return [
            *problems,
            problem(f"a cloud-config is a map, not {describe(node)}", node.place, hint=hint),
        ], []
    problems += _unknown(node)
    problems += (found for fault in _faults(node) for found in _told(node, fault))
    problems += (*_files(node), *_power(node))
    return _once(problems), list(_deprecated(node))


def _once(problems: Iterable[Problem]) -> list[Problem]:
    """One problem a place: several parts of the schema may speak of the same value."""
    kept: dict[tuple[int, int, str], Problem] = {}
    for found in problems:
        kept.setdefault((found.line, found.column, found.path), found)
    return sorted(kept.values(), key=lambda found: (found.line, found.column))


def _unknown(node: Table) -> Iterator[Problem]:
    known = _schema()["properties"]
    for key, place in node.keys.items():
        if key in node.entries and key not in known:
            hint = did_you_mean(key, known)
            if key in _BELONGS:
                hint = f"it belongs under `{_BELONGS[key]}`"
            elif not hint.startswith("did"):
                hint = "cloud-init would leave it out; remove it"
            yield problem(f"cloud-init knows no key `{key}`", place, path=(key,), hint=hint)


def _faults(node: Table) -> Iterator[ValidationError]:
    for fault in _validator().iter_errors(plain(node)):
        if fault.validator != "additionalProperties" or fault.absolute_path:
            yield _nearest(fault)


def _nearest(fault: ValidationError) -> ValidationError:
    """Of a choice among shapes, the deepest fault of the one that was meant: the first whose type is right."""
    while fault.validator in ("oneOf", "anyOf"):
        branches: dict[Any, list[ValidationError]] = {}
        for one in fault.context or ():
            branches.setdefault(one.relative_schema_path[0], []).append(one)
        fitting = [faults for faults in branches.values() if not any(_misfits(one, fault) for one in faults)]
        if not fitting or any(one.validator == "required" for faults in fitting[1:] for one in faults):
            return fault
        fault = max(fitting[0], key=lambda one: len(one.absolute_path))
    return fault


def _misfits(fault: ValidationError, around: ValidationError) -> bool:
    """Whether it is the type itself, at the same place, that is wrong."""
    if fault.absolute_path != around.absolute_path:
        return False
    if fault.validator in ("oneOf", "anyOf"):
        return bool(fault.context) and all(_misfits(one, around) for one in fault.context or ())
    return bool(fault.validator == "type")


def _types(fault: ValidationError) -> set[str]:
    """The types that would have been right at a fault's place."""
    if fault.validator == "type":
        wanted = fault.validator_value
        return {wanted} if isinstance(wanted, str) else set(wanted)
    inner = (one for one in fault.context or () if one.absolute_path == fault.absolute_path)
    return set().union(*(_types(one) for one in inner))


def _told(node: Table, fault: ValidationError) -> Iterator[Problem]:
    path: Path = tuple(fault.absolute_path)
    here = find(node, path)
    if isinstance(here, Scalar) and (here.hollow or HOLE in here.raw):
        return
    place = place_at(node, path)
    match fault.validator:
        case "additionalProperties":
            known = fault.schema.get("properties", {})
            patterns = fault.schema.get("patternProperties", {})
            for key in here.entries if isinstance(here, Table) else ():
                if key not in known and not any(re.search(pattern, key) for pattern in patterns):
                    hint = did_you_mean(key, known) or "remove it"
                    where = (*path, key)
                    yield problem(
                        f"there is no key `{key}` in `{_name(path)}`",
                        key_place(node, where),
                        path=where,
                        hint=hint,
                    )
            return
        case "required":
            missing = next(
                (
                    key
                    for key in fault.validator_value
                    if not isinstance(here, Table) or key not in here.entries
                ),
                "",
            )
            yield problem(f"`{missing}` is missing", place, path=path, hint=f"add `{missing}: …`")
            return
        case "type" | "oneOf" | "anyOf" if types := _types(fault):
            message = f"{_listed(_NAMES[name] for name in types)} is asked for, not {describe(here)}"
            hint = _remedy(here, types)
        case "enum":
            known = [str(value) for value in fault.validator_value]
            value = here.value if isinstance(here, Scalar) else None
            message, hint = f"{describe(here)} is not a choice", did_you_mean(str(value), known)
        case "minItems" | "minProperties":
            message, hint = "this is empty", "name at least one, or leave it out"
        case "oneOf" | "anyOf":
            needs = sorted(
                {
                    name
                    for one in fault.context or ()
                    if one.validator == "required"
                    for name in one.validator_value
                }
            )
            message = (
                f"one of {', '.join(f'`{name}`' for name in needs)} is missing"
                if needs
                else "this has no shape that cloud-init knows"
            )
            hint = f"add `{needs[0]}: …`" if needs else "see cloud-init's reference of this module"
        case _:
            message, hint = fault.message[:200], "see cloud-init's reference of this module"
    yield problem(message, place, path=path, hint=hint)


def _name(path: Path) -> str:
    return str(next((part for part in reversed(path) if isinstance(part, str)), ""))


def _listed(names: Iterable[str]) -> str:
    *others, last = sorted(set(names) - {_NAMES["null"]}) or [_NAMES["null"]]
    return f"{', '.join(others)} or {last}" if others else last


def _remedy(here: Node | None, types: Collection[str]) -> str:
    match here:
        case Scalar(raw=raw, quoted=False) if "string" in types and raw and "\n" not in raw:
            return f'quote it: "{raw}"'
        case Scalar(value=str() as text) if "boolean" in types and text.lower() in (
            "yes",
            "no",
            "true",
            "false",
            "on",
            "off",
        ):
            return "write it without quotes"
        case Scalar(value=str() as text) if "array" in types and "\n" not in text and len(text) < 60:
            return f"write [{text}]"
        case Table(entries=entries) if "string" in types and len(entries) == 1:
            return "text that holds `: ` needs quotes"
    return f"write {_listed(_NAMES[name] for name in types)}"


def _files(node: Table) -> Iterator[Problem]:
    """Files whose mode or content cloud-init could not read; it would warn on the machine, and go on."""
    listed = node.entries.get("write_files")
    for index, entry in enumerate(listed.items if isinstance(listed, Items) else ()):
        if not isinstance(entry, Table):
            continue
        path: Path = ("write_files", index)
        match entry.entries.get("permissions"):
            case Scalar(value=str() as mode, hollow=False, place=place) if (
                not _MODE.fullmatch(mode) and HOLE not in mode
            ):
                hint = "octal digits in quotes, such as '0644'"
                yield problem(f"{mode[:40]!r} is not a mode", place, path=(*path, "permissions"), hint=hint)
        match entry.entries.get("encoding"), entry.entries.get("content"):
            case Scalar(value=encoding), Scalar(value=str() as text, place=place) if (
                encoding in _BASE64 and HOLE not in text
            ):
                if not _is_base64(text):
                    hint = "`base64 FILE` prints it; leave `encoding` out for plain text"
                    yield problem("this is not base64", place, path=(*path, "content"), hint=hint)


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _power(node: Table) -> Iterator[Problem]:
    """What would end the machine that the layer is made on."""
    if "power_state" in node.entries:
        hint = "leave it out: an image starts anew anyway"
        yield problem(_ENDS, node.keys["power_state"], path=("power_state",), hint=hint)
    match node.entries.get("package_reboot_if_required"):
        case Scalar(value=True, place=place):
            yield problem(
                _ENDS,
                place,
                path=("package_reboot_if_required",),
                hint="leave it out: an image starts anew anyway",
            )


def _deprecated(node: Table) -> Iterator[Problem]:
    parts = (part.get("properties", {}) for part in _schema()["$defs"].values() if isinstance(part, dict))
    known = {key: given for part in parts for key, given in part.items() if isinstance(given, dict)}
    for key, place in node.keys.items():
        given = known.get(key, {})
        if given.get("deprecated"):
            since = given.get("deprecated_version", "")
            said = str(given.get("deprecated_description", "")).replace("**", "`").strip()
            yield problem(
                f"`{key}` is deprecated" + (f" since cloud-init {since}" if since else ""),
                place,
                path=(key,),
                hint=said or "see cloud-init's reference",
            )


@cache
def _schema() -> dict[str, Any]:
    text = resources.files("ingot.definition").joinpath("schemas/schema-cloud-config-v1.json").read_text()
    schema: dict[str, Any] = json.loads(text)
    return schema


@cache
def _validator() -> Draft4Validator:
    from jsonschema import Draft4Validator  # a third of a second, for those who have a cloud-config

    return Draft4Validator(_schema())
