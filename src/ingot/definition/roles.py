"""Where roles and collections lie on disk, searched as Ansible does; and what a role says of its variables."""

from __future__ import annotations

import configparser
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import ingot
from ingot.definition.nodes import plain
from ingot.definition.yaml import parse_yaml

_PERSONAL_ROLES = ("~/.ansible/roles", "/usr/share/ansible/roles", "/etc/ansible/roles")
GALAXY = Path(".ingot", "galaxy")
"""Where a build puts what the project's requirements.yml asks for."""
_PERSONAL_COLLECTIONS = ("~/.ansible/collections", "/usr/share/ansible/collections")


def installed_collections() -> tuple[Path, ...]:
    """Folders that hold an `ansible_collections` beside the project's: Ingot's own, and Python's site-packages."""
    package = Path(ingot.__file__).parent
    own = (package / "_collections", package.parents[1] / "collections")
    return (*own, *(Path(entry) for entry in sys.path if entry))


@dataclass(frozen=True, kw_only=True)
class RoleSearch:
    """Finds roles and collections for one project."""

    root: Path
    installed: Sequence[Path] = field(default_factory=installed_collections)

    @cached_property
    def config(self) -> Mapping[str, str]:
        """The `[defaults]` of the project's `ansible.cfg`; empty for one that cannot be read."""
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        try:
            parser.read_string((self.root / "ansible.cfg").read_text())
        except (OSError, ValueError, configparser.Error):
            return {}
        return dict(parser["defaults"]) if parser.has_section("defaults") else {}

    def role(self, name: str) -> Path | None:
        """The folder of a role by plain name, path, or `namespace.collection.role`; None where there is none."""
        if "/" not in name and name.count(".") >= 2:
            namespace, collection, rest = name.split(".", 2)
            folder = self.collection(f"{namespace}.{collection}")
            found = folder / "roles" / rest.replace(".", "/") if folder else None
            return found if found and found.is_dir() else None
        folders = [
            *self.configured("roles_path"),
            self.root / "roles",
            self.root / GALAXY / "roles",
            *map(_home, _PERSONAL_ROLES),
            self.root,
        ]
        return next((folder / name for folder in folders if (folder / name).is_dir()), None)

    def collection(self, name: str) -> Path | None:
        """The folder of a collection such as `community.general`, or None."""
        tail = Path("ansible_collections", *name.split(".", 1))
        return next((place / tail for place in self._collection_folders() if (place / tail).is_dir()), None)

    def known_roles(self) -> list[str]:
        """The project's own roles, and those of Ingot's collections: for suggestions."""
        folders = [*self.configured("roles_path"), self.root / "roles"]
        names = [
            path.name for folder in folders if folder.is_dir() for path in folder.iterdir() if path.is_dir()
        ]
        own = self.collection("ingot.cluster")
        if own and (own / "roles").is_dir():
            names += [f"ingot.cluster.{path.name}" for path in (own / "roles").iterdir()]
        return sorted(set(names))

    def configured(self, *settings: str) -> tuple[Path, ...]:
        """The folders that these settings of `ansible.cfg` list."""
        texts = [self.config.get(setting, "") for setting in settings]
        return tuple(
            self.root / _home(part.strip()) for text in texts for part in text.split(":") if part.strip()
        )

    def _collection_folders(self) -> Iterator[Path]:
        yield from self.configured("collections_path", "collections_paths")
        yield self.root / "collections"
        yield self.root / GALAXY
        yield self.root
        yield from map(_home, _PERSONAL_COLLECTIONS)
        yield from self.installed


def _home(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # no such user
        return Path(text)


@dataclass(frozen=True, kw_only=True, slots=True)
class Interface:
    """The variables that a role and its dependencies take. `closed` is off where one of them does not list its own."""

    options: Mapping[str, Mapping[str, Any]]
    others: frozenset[str]
    """Further names that defaults or vars set."""
    closed: bool


def read_interface(search: RoleSearch, name: str) -> Interface | None:
    """What `meta/argument_specs.yml` says of the role's `main`, with its dependencies; None without one."""
    folder = search.role(name)
    if folder is None or not (options := _options(folder)):
        return None
    others: set[str] = set()
    closed = True
    seen: set[Path] = set()
    waiting = [folder]
    while waiting and len(seen) < 50:
        here = waiting.pop()
        if here in seen:
            continue
        seen.add(here)
        for part in ("defaults", "vars"):
            others |= set(_mapping(here / part / "main.yml"))
        if here != folder:
            inherited = _options(here)
            others |= set(inherited)
            closed = closed and bool(inherited)
        for dependency in _list(_mapping(here / "meta" / "main.yml").get("dependencies")):
            named = (
                dependency.get("role", dependency.get("name")) if isinstance(dependency, dict) else dependency
            )
            found = search.role(named) if isinstance(named, str) and named else None
            waiting += [found] if found else []
            closed = closed and found is not None
    return Interface(options=options, others=frozenset(others), closed=closed)


def _options(folder: Path) -> dict[str, Mapping[str, Any]]:
    for file in ("argument_specs.yml", "argument_specs.yaml"):
        specs = _mapping(folder / "meta" / file).get("argument_specs")
        main = specs.get("main") if isinstance(specs, dict) else None
        options = main.get("options") if isinstance(main, dict) else None
        if isinstance(options, dict):
            return {name: spec if isinstance(spec, dict) else {} for name, spec in options.items()}
    return {}


def _mapping(path: Path) -> dict[str, Any]:
    try:
        node, _ = parse_yaml(path.read_text(), file=str(path))
    except (OSError, ValueError):
        return {}
    value = plain(node) if node else None
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
