"""What Ansible content refers to: roles, task files, variable files, playbooks, files, collections. Pure reading."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["role", "tasks", "vars", "playbook", "file", "collection"]

_BUILTIN = re.compile(r"^ansible\.(builtin|legacy)\.")
_QUALIFIED = re.compile(r"\b([a-z][a-z0-9_]*\.[a-z][a-z0-9_]*)\.[a-z]\w*")
_LOOKUP = re.compile(r"(?:lookup|query|q)\(\s*['\"](?:ansible\.builtin\.)?(?:file|template|fileglob|unvault|lines"
                     r"|ini|csvfile)['\"]\s*,\s*['\"]([^'\"]+)['\"]")  # fmt: skip
_ASSIGNED = re.compile(r"\b(?P<key>name|role|file|src|dir)=(?P<value>\"[^\"]*\"|'[^']*'|\{\{.*?\}\}\S*|\S+)")
_ROLES = frozenset({"include_role", "import_role"})
_TASKS = frozenset({"include_tasks", "import_tasks", "include"})
_FILE_LOOPS = frozenset({"with_file", "with_fileglob", "with_first_found", "with_template", "with_lines"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """A thing referred to, in the words used. `required`: Ansible cannot start without it."""

    kind: Kind
    name: str
    required: bool = False

    @property
    def dynamic(self) -> bool:
        """Whether its name is only known while the play runs."""
        return "{{" in self.name


def references(documents: tuple[Any, ...]) -> tuple[Reference, ...]:
    """Everything that the documents of a tasks file or playbook refer to, each once, in order."""
    return tuple(dict.fromkeys(_walk(list(documents), set())))


def dependencies(documents: tuple[Any, ...]) -> tuple[Reference, ...]:
    """The roles and collections that a role's `meta/main.yml` asks for."""
    found: list[Reference] = []
    for meta in documents:
        if isinstance(meta, dict):
            found += _roles(meta.get("dependencies"))
            found += _collections(meta.get("collections"))
    return tuple(found)


def _walk(value: Any, seen: set[int]) -> Iterator[Reference]:
    if isinstance(value, str):
        yield from _in_text(value)
        return
    if not isinstance(value, (dict, list)) or id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, list):
        for item in value:
            yield from _walk(item, seen)
        return
    if "hosts" in value:
        yield from _roles(value.get("roles"))
        yield from _listed("vars", value.get("vars_files"))
    yield from _collections(value.get("collections"))
    for key, item in value.items():
        yield from _in_text(key)
        yield from _in_entry(_BUILTIN.sub("", key), item)
        yield from _walk(item, seen)


def _in_entry(key: str, value: Any) -> Iterator[Reference]:
    """What one entry of a mapping refers to by its key: `include_role: {name: x}`, `copy: src=y dest=z`."""
    if key in _ROLES:
        for name in _named(value, "name", "role"):
            yield Reference(kind="role", name=name, required=key == "import_role" and "{{" not in name)
    elif key in _TASKS:
        yield from _files("tasks", value)
    elif key == "import_playbook":
        yield from _files("playbook", value)
    elif key == "include_vars":
        yield from _files("vars", value)
    elif key == "src" and isinstance(value, str):
        yield Reference(kind="file", name=value)
    elif key == "script":
        text = value.get("cmd", "") if isinstance(value, dict) else value
        if isinstance(text, str) and text.strip():
            yield Reference(kind="file", name=text.split()[0])
    elif key in _FILE_LOOPS:
        yield from _listed("file", value if isinstance(value, list) else [value])
    elif isinstance(value, str) and "src=" in value:
        yield from (Reference(kind="file", name=name) for name in _named(value, "src"))


def _in_text(text: str) -> Iterator[Reference]:
    for name in _QUALIFIED.findall(text):
        if not name.startswith("ansible."):
            yield Reference(kind="collection", name=name)
    if "(" in text:
        yield from (Reference(kind="file", name=name) for name in _LOOKUP.findall(text))


def _roles(value: Any) -> list[Reference]:
    found = []
    for item in value if isinstance(value, list) else []:
        name = (item.get("role") or item.get("name") or "") if isinstance(item, dict) else item
        if isinstance(name, str) and name:
            found.append(Reference(kind="role", name=name, required="{{" not in name))
    return found


def _collections(value: Any) -> list[Reference]:
    items = value if isinstance(value, list) else []
    return [Reference(kind="collection", name=item) for item in items if isinstance(item, str)]


def _files(kind: Kind, value: Any) -> Iterator[Reference]:
    """`include_tasks: x.yml`, `include_tasks: {file: x.yml}`, `include_vars: {dir: y}`, `include: x.yml tags=a`."""
    if isinstance(value, dict) or (isinstance(value, str) and _ASSIGNED.match(value.strip())):
        names = list(_named(value, "file", "dir"))
    elif isinstance(value, str):
        names = [value if "{{" in value else value.split(" ")[0]]
    else:
        names = []
    for name in names:
        yield Reference(kind=kind, name=name, required=kind == "playbook" and "{{" not in name)


def _listed(kind: Kind, value: Any) -> Iterator[Reference]:
    """Names of a list whose items may be lists (the first that is there is taken) or `{files: […], paths: […]}`."""
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str) and item:
            yield Reference(kind=kind, name=item)
        elif isinstance(item, list):
            yield from _listed(kind, item)
        elif isinstance(item, dict):
            files, paths = item.get("files"), item.get("paths")
            yield from _listed(kind, files)
            for folder in [paths] if isinstance(paths, str) else paths if isinstance(paths, list) else []:
                for name in [files] if isinstance(files, str) else files if isinstance(files, list) else []:
                    if isinstance(folder, str) and isinstance(name, str):
                        yield Reference(kind=kind, name=f"{folder}/{name}")


def _named(value: Any, *keys: str) -> Iterator[str]:
    """The values of these arguments, written as a mapping or as `key=value` text."""
    if isinstance(value, dict):
        yield from (value[key] for key in keys if isinstance(value.get(key), str))
    elif isinstance(value, str):
        for found in _ASSIGNED.finditer(value):
            if found["key"] in keys:
                yield found["value"].strip("\"'")
