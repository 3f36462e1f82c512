"""Values with the place they were written at: what every later part of loading reads."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ingot.errors import Problem
from ingot.model.step import Place

Path = tuple[str | int, ...]
"""How a value is reached from the file's top: `("images", "node", "steps", 2)`."""
Value = str | int | float | bool | None

MAX_NODES = 50_000
MAX_DEPTH = 40


class TooBigError(Exception):
    """A value that is larger or deeper than a definition may be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scalar:
    """A single value. `raw` is its text as written; `hollow` says that what belongs here is known to be wrong."""

    value: Value
    raw: str = ""
    quoted: bool = True
    hollow: bool = False
    place: Place


@dataclass(frozen=True, kw_only=True, slots=True)
class Items:
    """A list."""

    items: tuple[Node, ...]
    place: Place


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A map. `keys` tells where each key stands."""

    entries: Mapping[str, Node]
    keys: Mapping[str, Place] = field(default_factory=dict)
    place: Place


Node = Scalar | Items | Table


def plain(node: Node) -> Any:
    """The node as plain Python values."""
    match node:
        case Scalar(value=value):
            return value
        case Items(items=items):
            return [plain(item) for item in items]
        case Table(entries=entries):
            return {key: plain(entry) for key, entry in entries.items()}


def without(node: Table, names: Collection[str]) -> Table:
    """The map without these keys."""
    kept = {key: item for key, item in node.entries.items() if key not in names}
    return replace(node, entries=kept, keys={key: node.keys[key] for key in kept})


def from_plain(value: Any, place: Place, *, raw: str = "") -> Node:
    """Plain values as nodes that all stand at one place."""
    if isinstance(value, Mapping):
        entries = {key: from_plain(item, place) for key, item in value.items()}
        return Table(entries=entries, keys=dict.fromkeys(entries, place), place=place)
    if isinstance(value, (list, tuple)):
        return Items(items=tuple(from_plain(item, place) for item in value), place=place)
    return Scalar(value=value, raw=raw, place=place)


def weigh(value: Any, *, limit: int = MAX_NODES, depth: int = 0) -> int:
    """The number of values in a plain value. Raises TooBigError past `limit` or deeper than MAX_DEPTH."""
    if depth > MAX_DEPTH:
        raise TooBigError
    parts: Any = value.values() if isinstance(value, Mapping) else value
    if not isinstance(parts, (list, tuple)) and not isinstance(value, Mapping):
        return 1
    total = 1
    for part in parts:
        total += weigh(part, limit=limit - total, depth=depth + 1)
        if total > limit:
            raise TooBigError
    return total


def leaves(node: Node, path: Path = ()) -> Iterator[tuple[Path, Scalar]]:
    """Every single value with its path."""
    match node:
        case Scalar():
            yield path, node
        case Items(items=items):
            for index, item in enumerate(items):
                yield from leaves(item, (*path, index))
        case Table(entries=entries):
            for key, entry in entries.items():
                yield from leaves(entry, (*path, key))


def find(node: Node, path: Path) -> Node | None:
    """What stands at the path, or None."""
    here: Node | None = node
    for part in path:
        match here:
            case Table(entries=entries) if isinstance(part, str):
                here = entries.get(part)
            case Items(items=items) if isinstance(part, int) and part < len(items):
                here = items[part]
            case _:
                return None
    return here


def place_at(node: Node, path: Path) -> Place:
    """Where the path was written: a single value itself, a list or map at its key; else the nearest around it."""
    here, best = node, node.place
    for part in path:
        match here:
            case Table(entries=entries, keys=keys) if isinstance(part, str) and part in entries:
                here = entries[part]
                best = here.place if isinstance(here, Scalar) else keys.get(part, here.place)
            case Items(items=items) if isinstance(part, int) and part < len(items):
                here = items[part]
                best = here.place
            case _:
                break
    return best


def key_place(node: Node, path: Path) -> Place:
    """Where the path's last key was written."""
    around = find(node, path[:-1])
    if isinstance(around, Table) and path:
        return around.keys.get(str(path[-1]), around.place)
    return place_at(node, path)


def path_text(path: Path) -> str:
    """`images.node.steps[2].roles`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def problem(message: str, place: Place, *, path: Path = (), hint: str = "") -> Problem:
    """A problem at a place. A place without a line is no file but a source such as `--var name`."""
    if not place.line:
        return Problem(message=message, hint=hint, path=place.file or path_text(path))
    return Problem(
        message=message,
        hint=hint,
        file=place.file,
        line=place.line,
        column=place.column,
        path=path_text(path),
    )
