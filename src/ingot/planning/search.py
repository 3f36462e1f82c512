"""Where Ansible looks for roles and collections of a project, as `ansible.cfg` and its own habits have it."""

from __future__ import annotations

import configparser
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ingot.ports import Tree

_PERSONAL = ("~/.ansible/roles", "/usr/share/ansible/roles", "/etc/ansible/roles")
_INVENTORIES = (
    *("inventory", "inventory.yml", "inventory.yaml", "inventory.ini"),
    *("hosts.yml", "hosts.yaml", "hosts.ini", "hosts"),
)
PLUGIN_FOLDERS = (
    "library",
    "modules",
    "module_utils",
    "plugins",
    "action_plugins",
    "filter_plugins",
    "lookup_plugins",
    "test_plugins",
    "vars_plugins",
)
"""Folders of Python code that Ansible loads from beside a playbook."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RoleAt:
    """A role that was found: the name it goes by, its folder, and its collection (`ingot.cluster`) if it has one."""

    name: str
    folder: str
    collection: str = ""


def join(folder: str, path: str) -> str:
    """The path seen from the folder, without detours; absolute and `~` paths stay what they are."""
    if path.startswith("~"):
        return path
    joined = posixpath.normpath(posixpath.join(folder, path))
    return "" if joined == "." else joined


class Search:
    """Finds roles and collections. Remembers what it saw for as long as it lives.

    The `ansible.cfg` that holds is the nearest one from the playbook's folder upward; relative paths in it belong to
    its folder. Nobody's `~/.ansible.cfg` counts: a key must not depend on who plans.
    """

    def __init__(self, tree: Tree, *, near: str = "") -> None:
        self._tree = tree
        self._files: dict[tuple[str, bool], Sequence[str]] = {}
        self._collections: dict[str, str] = {}
        self.folder = near
        while self.folder and not tree.mode(join(self.folder, "ansible.cfg")):
            self.folder = posixpath.dirname(self.folder)
        self._config = _defaults(tree.read(join(self.folder, "ansible.cfg")))

    def configured(self, *names: str) -> tuple[str, ...]:
        """The paths of `ansible.cfg`'s settings of these names, seen from the project, or absolute."""
        texts = [self._config.get(name, "").replace("{{CWD}}", ".") for name in names]
        return tuple(
            join(self.folder, part.strip()) for text in texts for part in text.split(":") if part.strip()
        )

    def inventories(self) -> tuple[str, ...]:
        """The project's own inventories, files or folders: as configured, else the first of the usual names."""
        if text := self._config.get("inventory", ""):
            parts = [part.strip() for part in text.split(",") if part.strip()]
            return tuple(join(self.folder, part) for part in parts)
        for folder in dict.fromkeys((self.folder, "")):
            for name in _INVENTORIES:
                if self._tree.mode(place := join(folder, name)):
                    return (place,)
        return ()

    def files(self, folder: str, *, deep: bool = True) -> Sequence[str]:
        """All files below a folder, or with `deep` off those in it."""
        if (folder, deep) not in self._files:
            self._files[folder, deep] = self._tree.files(folder, deep=deep)
        return self._files[folder, deep]

    def role_folders(self, near: Sequence[str]) -> tuple[str, ...]:
        """The folders in which a role of a plain name is looked for; `near` are the playbook's and the asking role's."""
        folders = [*near, *self.configured("roles_path"), join(self.folder, "roles"), "roles", *_PERSONAL]
        return tuple(dict.fromkeys(folders))

    def role(
        self, name: str, *, near: Sequence[str], beside: str = "", collection: str = ""
    ) -> RoleAt | None:
        """The role of this name: a path, `namespace.collection.role`, or a plain name; `beside`: the playbook's folder."""
        parts = name.split(".")
        if len(parts) >= 3 and "/" not in name:
            return self._in_collection(".".join(parts[:2]), ".".join(parts[2:]))
        if collection and (found := self._in_collection(collection, name)):
            return found
        for folder in (*self.role_folders(near), beside, ""):
            place = join(folder, name)
            if place and self.files(place):
                return RoleAt(name=posixpath.basename(name.rstrip("/")), folder=place)
        return None

    def role_names(self, near: Sequence[str]) -> tuple[str, ...]:
        """Names of all roles that a plain name would find, for suggestions and for dynamic names."""
        found = {
            path[len(folder) + 1 :].split("/")[0]
            for folder in self.role_folders(near)
            for path in self.files(folder)
            if path.count("/") > folder.count("/") + 1
        }
        return tuple(sorted(found))

    def collection_roles(self, collection: str) -> tuple[str, ...]:
        """Qualified names of all roles of a collection."""
        folder = self.collection(collection)
        files = self.files(f"{folder}/roles") if folder else ()
        depth = len(folder) + len("/roles/")
        return tuple(sorted({f"{collection}.{path[depth:].split('/')[0]}" for path in files}))

    def collection(self, name: str) -> str:
        """The folder of a collection (`community.general`), or "" where no search path has it."""
        if name not in self._collections:
            tail = "ansible_collections/" + name.replace(".", "/", 1)
            self._collections[name] = next((place for place in self._places(tail) if self._is_one(place)), "")
        return self._collections[name]

    def _places(self, tail: str) -> Iterator[str]:
        own = self.configured("collections_path", "collections_paths")
        for folder in dict.fromkeys((*own, join(self.folder, "collections"), "collections")):
            yield f"{folder}/{tail}" if folder else tail
        yield tail
        yield f"~/.ansible/collections/{tail}"
        yield f"/usr/share/ansible/collections/{tail}"

    def _is_one(self, place: str) -> bool:
        names = ("MANIFEST.json", "galaxy.yml", "roles", "plugins")
        return any(self._tree.mode(f"{place}/{name}") for name in names)

    def _in_collection(self, collection: str, role: str) -> RoleAt | None:
        folder = self.collection(collection)
        place = f"{folder}/roles/{role.replace('.', '/')}"
        if not folder or not self.files(place):
            return None
        return RoleAt(name=f"{collection}.{role}", folder=place, collection=collection)


def _defaults(data: bytes | None) -> dict[str, str]:
    """The `[defaults]` of an `ansible.cfg`; a broken one is left to Ansible to complain about."""
    parser = configparser.ConfigParser(interpolation=None, strict=False, inline_comment_prefixes=(";",))
    try:
        parser.read_string((data or b"").decode())
    except (configparser.Error, UnicodeDecodeError):
        return {}
    return dict(parser["defaults"]) if parser.has_section("defaults") else {}
