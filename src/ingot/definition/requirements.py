"""What a project's `requirements.yml` asks for, and what of it is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ingot.definition.nodes import plain
from ingot.definition.roles import RoleSearch
from ingot.definition.yaml import parse_yaml
from ingot.errors import DefinitionError
from ingot.model.lock import RequirementPin

_FILES = ("requirements.yml", "requirements.yaml", "roles/requirements.yml", "collections/requirements.yml")


def read_requirements(root: Path) -> tuple[RequirementPin, ...]:
    """Every collection and role that the project requires, with the version installed where it can be seen.

    Raises DefinitionError for a file that is not YAML.
    """
    search = RoleSearch(root=root)
    found: dict[tuple[str, str], RequirementPin] = {}
    for name in _FILES:
        try:
            text = (root / name).read_text()
        except (OSError, ValueError):
            continue
        node, problems = parse_yaml(text, file=name)
        if problems:
            raise DefinitionError(problems=tuple(problems))
        for pin in _pins(plain(node) if node else None, search):
            found.setdefault((pin.kind, pin.name), pin)
    return tuple(found[key] for key in sorted(found))


def _pins(value: Any, search: RoleSearch) -> list[RequirementPin]:
    """The old form is a list of roles; the new one has `roles` and `collections`."""
    sections = value if isinstance(value, dict) else {"roles": value}
    pins: list[RequirementPin] = []
    for entry in _entries(sections, "collections"):
        name, wanted = _entry(entry)
        if name:
            installed = _collection_version(search, name)
            pins.append(RequirementPin(kind="collection", name=name, wanted=wanted, installed=installed))
    for entry in _entries(sections, "roles"):
        name, wanted = _entry(entry)
        if name:
            installed = _role_version(search, name)
            pins.append(RequirementPin(kind="role", name=name, wanted=wanted, installed=installed))
    return pins


def _entries(sections: dict[str, Any], key: str) -> list[Any]:
    found = sections.get(key)
    return found if isinstance(found, list) else []


def _entry(entry: Any) -> tuple[str, str]:
    if isinstance(entry, str):
        return entry, ""
    if not isinstance(entry, dict):
        return "", ""
    name = entry.get("name") or entry.get("src") or entry.get("source") or ""
    return str(name), str(entry.get("version") or "")


def _collection_version(search: RoleSearch, name: str) -> str:
    folder = search.collection(name) if name.count(".") == 1 and "/" not in name else None
    if folder is None:
        return ""
    try:
        return str(json.loads((folder / "MANIFEST.json").read_text())["collection_info"]["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return _value(folder / "galaxy.yml", "version")


def _role_version(search: RoleSearch, name: str) -> str:
    folder = search.role(name.rstrip("/").rsplit("/", 1)[-1].removesuffix(".git"))
    return _value(folder / "meta" / ".galaxy_install_info", "version") if folder else ""


def _value(path: Path, key: str) -> str:
    try:
        node, _ = parse_yaml(path.read_text(), file=str(path))
    except (OSError, ValueError):
        return ""
    value = plain(node) if node else None
    return str(value.get(key) or "") if isinstance(value, dict) else ""
