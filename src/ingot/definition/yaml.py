"""YAML and JSON text → nodes with places. YAML's traps end here: what it would misread is a problem.

The tree is composed from libyaml's events without recursion, so that no depth or alias of hostile input can
exhaust the stack or the memory: depth, size and the total of what aliases repeat are bounded.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import yaml

from ingot.definition.nodes import (
    MAX_DEPTH,
    MAX_NODES,
    Items,
    Node,
    Path,
    Scalar,
    Table,
    TooBigError,
    Value,
    from_plain,
    problem,
    weigh,
)
from ingot.errors import Problem
from ingot.model.step import Place

MAX_BYTES = 2**20
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_RESOLVERS: dict[str | None, list[tuple[str, re.Pattern[str]]]] = yaml.SafeLoader.yaml_implicit_resolvers
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?[0-9]+\.[0-9]*")
_TRUE = frozenset({"yes", "true", "on"})
_MERGE = "tag:yaml.org,2002:merge"
_REFUSED = ("\x00", "\ue000", "\ue001")

Parsed = tuple[Node | None, list[Problem]]


def parse_yaml(text: str, *, file: str, tags: Collection[str] = ()) -> Parsed:
    """The one document in `text` (None for an empty or unreadable one) and every problem met.

    Values with one of the `tags` are text as written; any other tag is a problem.
    """
    if len(text) > MAX_BYTES:
        return None, [
            Problem(message="the file is larger than 1 MiB", hint="split it with `include`", file=file)
        ]
    problems = list(_refused_characters(text, file))
    if problems:
        return None, problems
    composer = _Composer(file=file, problems=problems, tags=tags)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            composer.take(event)
    except TooBigError:
        hint = "at most 40 levels and 50,000 values"
        problems.append(
            problem(
                "the file is too deep or its aliases repeat too much",
                Place(file=file, line=1, column=1),
                hint=hint,
            )
        )
        return None, problems
    except yaml.MarkedYAMLError as error:
        problems.append(_syntax_problem(error, text, file))
        return None, problems
    except yaml.YAMLError as error:
        problems.append(_reader_problem(error, text, file))
        return None, problems
    return composer.root, problems


def parse_json(text: str, *, file: str) -> Parsed:
    """The same for JSON; everything but a syntax error stands at the file's beginning."""
    place = Place(file=file, line=1, column=1)
    twice: list[str] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice.extend({key for key, _ in pairs if sum(1 for other, _ in pairs if other == key) > 1})
        return dict(pairs)

    def no_constant(name: str) -> Any:
        raise ValueError(f"{name} is not a JSON number")

    try:
        if len(text) > MAX_BYTES:
            raise TooBigError
        value = json.loads(text.removeprefix("\ufeff"), object_pairs_hook=unique, parse_constant=no_constant)
        weigh(value)
    except json.JSONDecodeError as error:
        where = Place(file=file, line=error.lineno, column=error.colno)
        return None, [
            problem(f"this is not JSON: {error.msg}", where, hint="the same values may be written as YAML")
        ]
    except (TooBigError, RecursionError):
        return None, [
            problem("the file is too large or too deep", place, hint="at most 40 levels and 50,000 values")
        ]
    except ValueError as error:
        return None, [
            problem(f"this is not JSON: {error}", place, hint="the same values may be written as YAML")
        ]
    problems = [problem(f"`{key}` is written twice", place, hint="keep one of them") for key in twice]
    wrong = unusable(value)
    return (
        (None, [problem(wrong, place, hint="remove it")]) if wrong else (from_plain(value, place), problems)
    )


def unusable(value: Any) -> str:
    """Why a plain value from outside cannot enter a definition (NUL, lone surrogates, infinite numbers), or ""."""
    if isinstance(value, str):
        return (
            "a text holds a character that cannot be used (NUL, U+E000 or U+E001)"
            if _refused_at(value) >= 0
            else ""
        )
    if isinstance(value, float) and not math.isfinite(value):
        return "a number is infinite"
    if isinstance(value, int) and abs(value) >= 2**63:
        return "a number is larger than 64 bits"
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return next((wrong for part in parts if (wrong := unusable(part))), "")


@dataclass(slots=True)
class _Frame:
    """A list or map that is still open."""

    table: bool
    place: Place
    anchor: str | None
    items: list[Node] = field(default_factory=list)
    entries: dict[str, Node] = field(default_factory=dict)
    keys: dict[str, Place] = field(default_factory=dict)
    merged: list[Table] = field(default_factory=list)
    key: tuple[str, Place] | None = None
    merging: bool = False
    skipping: bool = False
    size: int = 1
    depth: int = 1


@dataclass(slots=True)
class _Composer:
    """Takes libyaml's events in order; `root` is there at the end."""

    file: str
    problems: list[Problem]
    tags: Collection[str] = ()
    root: Node | None = None
    open: list[_Frame] = field(default_factory=list)
    anchors: dict[str, tuple[Node, int, int]] = field(default_factory=dict)
    documents: int = 0
    total: int = 0

    def take(self, event: yaml.Event) -> None:
        match event:
            case yaml.DocumentStartEvent():
                self.documents += 1
                if self.documents == 2:
                    self._tell(
                        "a second document begins here", event, "one file holds one document; remove `---`"
                    )
            case _ if self.documents > 1:
                pass
            case yaml.ScalarEvent():
                self._attach(self._scalar(event), event.anchor)
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                if len(self.open) >= MAX_DEPTH:
                    raise TooBigError
                if event.tag and not event.implicit:
                    self._tag(event)
                table = isinstance(event, yaml.MappingStartEvent)
                self.open.append(_Frame(table=table, place=self._place(event), anchor=event.anchor))
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                self._close(self.open.pop())
            case yaml.AliasEvent():
                self._alias(event)
            case _:
                pass

    def _close(self, frame: _Frame) -> None:
        if not frame.table:
            self._attach(
                Items(items=tuple(frame.items), place=frame.place),
                frame.anchor,
                size=frame.size,
                depth=frame.depth,
            )
            return
        entries, keys = frame.entries, frame.keys
        for table in frame.merged:  # what is written beside `<<` wins over what is merged
            for key, node in table.entries.items():
                if key not in entries:
                    entries[key], keys[key] = node, table.keys[key]
        made = Table(entries=entries, keys=keys, place=frame.place)
        self._attach(made, frame.anchor, size=frame.size, depth=frame.depth)

    def _alias(self, event: yaml.AliasEvent) -> None:
        if event.anchor not in self.anchors:
            inside = any(frame.anchor == event.anchor for frame in self.open)
            what = "refers to itself" if inside else "has no anchor"
            self._tell(
                f"the alias `*{event.anchor}` {what}", event, f"write `&{event.anchor}` at a value above"
            )
            self._attach(Scalar(value=None, hollow=True, place=self._place(event)), None)
            return
        node, size, depth = self.anchors[event.anchor]
        self._attach(node, None, size=size, depth=depth)

    def _attach(self, node: Node, anchor: str | None, *, size: int = 1, depth: int = 0) -> None:
        self.total += 1
        if anchor:
            self.anchors[anchor] = (node, size, depth)
        if not self.open:
            self.root = node
            return
        frame = self.open[-1]
        frame.size += size
        frame.depth = max(frame.depth, depth + 1)
        if max(frame.size, self.total) > MAX_NODES or len(self.open) + depth > MAX_DEPTH:
            raise TooBigError
        if not frame.table:
            frame.items.append(node)
        elif frame.key is None and not (frame.merging or frame.skipping):
            self._key(frame, node)
        else:
            self._value(frame, node)

    def _key(self, frame: _Frame, node: Node) -> None:
        if isinstance(node, Scalar) and node.raw == "<<" and not node.quoted:
            frame.merging = True
        elif not isinstance(node, Scalar) or (node.value is None and not node.quoted):
            hint = 'text that begins with `{{` or `${` needs quotes: "{{ name }}"'
            self.problems.append(problem("a key must be text", node.place, path=self._path(), hint=hint))
            frame.skipping = True
        elif node.raw in frame.keys:
            first = frame.keys[node.raw].line
            message = f"`{node.raw}` is written twice; first at line {first}"
            self.problems.append(
                problem(message, node.place, path=(*self._path(), node.raw), hint="keep one of them")
            )
            frame.skipping = True
        else:
            frame.key = (node.raw, node.place)

    def _value(self, frame: _Frame, node: Node) -> None:
        if frame.merging:
            tables = node.items if isinstance(node, Items) else (node,)
            if not all(isinstance(table, Table) for table in tables):
                self.problems.append(
                    problem(
                        "`<<` merges maps, and this is none",
                        node.place,
                        path=self._path(),
                        hint="such as <<: *anchor",
                    )
                )
            frame.merged.extend(table for table in tables if isinstance(table, Table))
        elif frame.key:
            name, place = frame.key
            frame.entries[name], frame.keys[name] = node, place
        frame.key, frame.merging, frame.skipping = None, False, False

    def _scalar(self, event: yaml.ScalarEvent) -> Scalar:
        place, raw = self._place(event), event.value
        if event.tag and event.tag not in ("tag:yaml.org,2002:str", *self.tags):
            self._tag(event)
        if _refused_at(raw) >= 0:
            self._tell(
                "the text holds a character that cannot be used (NUL, U+E000 or U+E001)", event, "remove it"
            )
            return Scalar(value=raw, raw=raw, hollow=True, place=place)
        if event.style or not event.implicit[0] or event.tag:
            return Scalar(value=raw, raw=raw, place=place)
        value, wrong = read_plain(raw)
        if wrong:
            self._tell(wrong, event, f'quote it: "{raw}"')
            return Scalar(value=raw, raw=raw, place=place)
        return Scalar(value=value, raw=raw, quoted=False, place=place)

    def _tag(self, event: Any) -> None:
        hint = (
            "vaulted values belong in group_vars or host_vars" if event.tag == "!vault" else "remove the tag"
        )
        self._tell(f"the tag `{event.tag}` means nothing here", event, hint)

    def _place(self, event: yaml.Event) -> Place:
        mark: Any = event.start_mark
        return Place(file=self.file, line=mark.line + 1, column=mark.column + 1)

    def _tell(self, message: str, event: yaml.Event, hint: str) -> None:
        self.problems.append(problem(message, self._place(event), path=self._path(), hint=hint))

    def _path(self) -> Path:
        """Where the next node belongs."""
        parts = [
            (frame.key[0] if frame.key else "") if frame.table else len(frame.items) for frame in self.open
        ]
        return tuple(part for part in parts if part != "")


def read_plain(raw: str) -> tuple[Value, str]:
    """What YAML 1.1 (as Ansible reads it) makes of unquoted text, and why that is refused, or ""."""
    candidates = [*_RESOLVERS.get(raw[:1], ()), *_RESOLVERS.get(None, ())]
    tag = next((tag for tag, pattern in candidates if pattern.match(raw)), "")
    match tag.rpartition(":")[2]:
        case "null":
            return None, ""
        case "bool":
            return raw.lower() in _TRUE, ""
        case "int" if _DECIMAL.fullmatch(raw) and len(raw) <= 18:
            return int(raw), ""
        case "float" if _FLOAT.fullmatch(raw) and len(raw) <= 40:
            return float(raw), ""
        case "int" if re.fullmatch("0[0-7_]+", raw):
            return raw, f"YAML reads `{raw}` as an octal number"
        case "int" | "float":
            return raw, f"YAML reads `{raw}` as a number of another spelling"
        case "timestamp":
            return raw, f"YAML reads `{raw}` as a date"
        case "merge":
            return raw, ""
        case "":
            return raw, ""
        case _:
            return raw, f"`{raw}` has a meaning of its own in YAML"


def _refused_characters(text: str, file: str) -> list[Problem]:
    index = _refused_at(text)
    if index < 0:
        return []
    message = f"the character U+{ord(text[index]):04X} cannot be used"
    return [problem(message, _place_of(text, index, file), hint="remove it")]


def _refused_at(text: str) -> int:
    """Where the first character stands that a definition may not hold, a lone surrogate too; -1 for none."""
    found = [index for mark in _REFUSED if (index := text.find(mark)) >= 0]
    try:
        text.encode()
    except UnicodeEncodeError as error:
        found.append(error.start)
    return min(found, default=-1)


def _place_of(text: str, index: int, file: str) -> Place:
    before = text[:index]
    return Place(file=file, line=before.count("\n") + 1, column=index - (before.rfind("\n") + 1) + 1)


def _reader_problem(error: yaml.YAMLError, text: str, file: str) -> Problem:
    position = getattr(error, "position", None)
    if not isinstance(position, int):
        return Problem(message=f"this is not YAML: {error}", file=file, line=1, column=1)
    # libyaml counts in bytes of the encoded text.
    index = len(text.encode()[:position].decode(errors="ignore"))
    return problem("a control character stands here", _place_of(text, index, file), hint="remove it")


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    place = (
        Place(file=file, line=mark.line + 1, column=mark.column + 1)
        if mark
        else Place(file=file, line=1, column=1)
    )
    lines = text.splitlines()
    line = lines[place.line - 1] if place.line <= len(lines) else ""
    message = f"this is not YAML: {error.problem or error.context or 'unreadable'}"
    hint = " ".join((error.context or "look at this line and the one above it").split())
    if line[place.column - 1 : place.column] == "\t" or line[: place.column].endswith("\t"):
        message, hint = "a tab stands where YAML wants spaces", "indent with spaces"
    elif "${" in line:
        hint = 'inside [ ] and { } a reference needs quotes: "${name}"'
    elif "{{" in line:
        hint = 'text with {{ }} needs quotes: "{{ name }}"'
    elif line.count(": ") > 1:
        hint = "text that holds `: ` needs quotes"
    elif (error.problem or "").startswith("mapping values"):
        hint = "a key begins in the same column as the keys beside it; look at the line above too"
    return problem(message, place, hint=hint)
