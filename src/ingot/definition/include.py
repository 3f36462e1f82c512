"""A definition's files: the first one and what it includes, merged into one set of sections."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from ingot.definition.nodes import Items, Node, Scalar, Table, key_place, problem
from ingot.definition.suggest import did_you_mean
from ingot.definition.yaml import MAX_BYTES, parse_yaml
from ingot.errors import Problem
from ingot.model.step import Place

SECTIONS = ("variables", "targets", "bases", "images")
SETTINGS = ("freshness", "cache")
_TOP = ("include", *SECTIONS)
_FIRST = ("name", *SETTINGS)
_MOST_FILES = 200


@dataclass(slots=True)
class Sources:
    """All files read: the project's name and settings, each section merged, the files' names."""

    name: Node | None = None
    settings: Table | None = None
    sections: dict[str, Table] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)


def read_sources(path: Path, *, problems: list[Problem]) -> Sources:
    """Reads the definition at `path` with its includes. Paths in messages are relative to its folder."""
    root = path.parent
    sources = Sources()
    merged: dict[str, tuple[dict[str, Node], dict[str, Place]]] = {section: ({}, {}) for section in SECTIONS}
    places: dict[str, Place] = {}
    waiting = [path.name]
    while waiting:
        name = waiting.pop(0)
        if name in sources.files:
            continue
        sources.files.append(name)
        if len(sources.files) > _MOST_FILES:
            hint = "narrow the pattern under `include`"
            problems.append(
                Problem(
                    message=f"more than {_MOST_FILES} files are included",
                    hint=hint,
                    file=path.name,
                    line=1,
                    column=1,
                )
            )
            break
        table = _read(root / name, name, problems)
        if table is None:
            continue
        first = name == path.name
        _check_keys(table, first, problems)
        if first:
            sources.name = table.entries.get("name")
            sources.settings = replace(
                table, entries={key: node for key, node in table.entries.items() if key in SETTINGS}
            )
        for section in SECTIONS:
            _merge(section, table, merged[section], places, problems)
        waiting.extend(_included(root, name, table.entries.get("include"), problems))
    for section, (entries, keys) in merged.items():
        place = places.get(section, Place(file=path.name, line=1, column=1))
        sources.sections[section] = Table(entries=entries, keys=keys, place=place)
    return sources


def _read(path: Path, name: str, problems: list[Problem]) -> Table | None:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES * 4 + 1).decode("utf-8-sig")
    except OSError as error:
        said = {FileNotFoundError: "there is no such file", IsADirectoryError: "this is a folder, not a file"}
        message = said.get(type(error), f"the file cannot be read: {error.strerror or error}")
        hint = "`ingot init` makes a project that builds as it is"
        problems.append(Problem(message=message, hint=hint, file=name, line=1, column=1))
        return None
    except UnicodeDecodeError as error:
        problems.append(
            Problem(
                message=f"the file is not UTF-8 text (byte {error.start})",
                hint="save it as UTF-8",
                file=name,
                line=1,
                column=1,
            )
        )
        return None
    node, told = parse_yaml(text, file=name)
    problems.extend(told)
    if node is None or (isinstance(node, Scalar) and node.value is None):
        if not told:
            hint = "a definition begins with `name: …`"
            problems.append(Problem(message="the file is empty", hint=hint, file=name, line=1, column=1))
        return None
    if not isinstance(node, Table):
        problems.append(problem("a definition is a map", node.place, hint="it begins with `name: …`"))
        return None
    return node


def _check_keys(table: Table, first: bool, problems: list[Problem]) -> None:
    allowed = (*_FIRST, *_TOP) if first else _TOP
    for key, place in table.keys.items():
        if key in allowed:
            continue
        if key in _FIRST:
            message, hint = f"`{key}` belongs to the first file alone", "remove it"
            problems.append(problem(message, place, path=(key,), hint=hint))
            continue
        problems.append(
            problem(f"there is no key `{key}`", place, path=(key,), hint=did_you_mean(key, allowed))
        )


def _merge(
    section: str,
    table: Table,
    into: tuple[dict[str, Node], dict[str, Place]],
    places: dict[str, Place],
    problems: list[Problem],
) -> None:
    node = table.entries.get(section)
    if node is None or (isinstance(node, Scalar) and node.value is None):
        return
    places.setdefault(section, key_place(table, (section,)))
    if not isinstance(node, Table):
        hint = f"`{section}` names each of its entries"
        problems.append(problem("a map is asked for here", node.place, path=(section,), hint=hint))
        return
    entries, keys = into
    for name, entry in node.entries.items():
        if name in entries:
            message = f"`{name}` is there already, at {keys[name]}"
            problems.append(
                problem(message, node.keys[name], path=(section, name), hint="rename or remove one")
            )
            continue
        entries[name], keys[name] = entry, node.keys[name]


def _included(root: Path, name: str, node: Node | None, problems: list[Problem]) -> Iterator[str]:
    """The files that `include` names, relative to the project, in the order written; a glob's are sorted."""
    if node is None:
        return
    if not isinstance(node, Items):
        problems.append(
            problem("`include` is a list of files", node.place, path=("include",), hint="write [file.yaml]")
        )
        return
    for index, item in enumerate(node.items):
        path = ("include", index)
        text = item.value if isinstance(item, Scalar) else None
        if not isinstance(text, str) or not text.strip():
            problems.append(
                problem(
                    "text is asked for: the path of a file",
                    item.place,
                    path=path,
                    hint="such as images/*.yaml",
                )
            )
        elif "${" in text:
            hint = "what is included is settled before variables have values"
            problems.append(problem("`include` takes no variables", item.place, path=path, hint=hint))
        elif text.startswith(("/", "~")) or ".." in text.split("/"):
            hint = "name files under the folder of the first one"
            problems.append(problem(f"{text!r} is outside the project", item.place, path=path, hint=hint))
        else:
            found = _glob((root / name).parent, text)
            if not found:
                hint = "paths are relative to the file that includes"
                problems.append(problem(f"there is no file {text!r}", item.place, path=path, hint=hint))
            yield from (str(file.relative_to(root)) for file in found)


def _glob(folder: Path, text: str) -> list[Path]:
    try:
        if not any(letter in text for letter in "*?["):
            return [folder / text] if (folder / text).is_file() else []
        return sorted(islice((path for path in folder.glob(text) if path.is_file()), _MOST_FILES + 1))
    except (OSError, ValueError, NotImplementedError):
        return []
