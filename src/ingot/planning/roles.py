"""Content digests of Ansible steps: one digest for everything on disk that Ansible will read for a step.

What counts, and how (the design's "Keys, lock, freshness"):

- a role is its closure: `meta/main.yml` dependencies, `include_role` and `import_role`, wherever they lead; a name
  known only at run time counts every role that it could mean, a file so named the whole folder it could come from;
- YAML that Ansible parses counts by what it says; other files by bytes and permission bits; a role's README, tests
  and molecule scenarios not at all; encrypted files by their ciphertext;
- group and host variables count whole, with no guessing at unused ones; so do `ansible.cfg` and plugin folders;
- a collection that is named counts by its MANIFEST.json, or by its plugins where it has none (a source tree).

Nothing here depends on where the project lies: files count under names such as `role/slurm/tasks/main.yml`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ingot.model.digest import NO_DIGEST, Digest, digest, digest_bytes, short
from ingot.planning.parsed import Parsed, parse
from ingot.planning.references import Kind, Reference, dependencies, references
from ingot.planning.search import PLUGIN_FOLDERS, RoleAt, Search, join
from ingot.ports import Tree

_HOSTS = frozenset({"default", "localhost"})  # what a machine is called while it is built
_VARS = re.compile(r"(^|/)(group|host)_vars/")
_WORD = re.compile(r"[\w.-]+")
_REQUIREMENTS = (
    *("requirements.yml", "requirements.yaml"),
    *("roles/requirements.yml", "collections/requirements.yml"),
)
_PROJECT = "//project/"  # begins a path that is seen from the project's folder
_OURS = frozenset({"ingot.yaml", "ingot.yml"})  # a definition counts by its steps
_YAML = (".yml", ".yaml", ".json")
_PARSED = frozenset({"tasks", "handlers", "defaults", "vars", "meta"})
_READ = frozenset({"tasks", "handlers"})
_IGNORED = frozenset({"tests", "molecule", "docs", "changelogs", "__pycache__"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """What a step reads: its digest, the files (path, short digest), and what it names that is not there."""

    digest: Digest = NO_DIGEST
    reads: tuple[tuple[str, str], ...] = ()
    missing: tuple[str, ...] = ()
    """A sentence each, ready for a message: `role "slrum" is in none of …`."""


class ContentReader:
    """Reads contents from one tree, each file once. Good for as long as the tree does not change."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._searches: dict[str, Search] = {}
        self._parsed: dict[str, Parsed | None] = {}
        self._counted: dict[tuple[str, bool], Digest] = {}
        self._references: dict[str, tuple[Reference, ...]] = {}

    def roles(self, names: Sequence[str], *, groups: Sequence[str] = ()) -> Content:
        """The content of a step of roles."""
        closure = Closure(self, playbook_dir="")
        for name in names:
            closure.add_role(name, required=True)
        closure.add_surroundings(groups)
        return closure.content()

    def playbook(self, path: str, *, groups: Sequence[str] = ()) -> Content:
        """The content of a step that is a playbook."""
        closure = Closure(self, playbook_dir=posixpath.dirname(path))
        closure.add_playbook(path)
        closure.add_surroundings(groups)
        for folder in ("files", "templates"):
            closure.add_folder(join(closure.playbook_dir, folder))
        return closure.content()

    def search(self, near: str = "") -> Search:
        """Where is looked for what a playbook in the folder `near` names."""
        if near not in self._searches:
            self._searches[near] = Search(self.tree, near=near)
        return self._searches[near]

    def parsed(self, path: str) -> Parsed | None:
        """A YAML file, or None where there is none."""
        if path not in self._parsed:
            data = self.tree.read(path)
            self._parsed[path] = None if data is None else parse(data)
        return self._parsed[path]

    def references(self, path: str) -> tuple[Reference, ...]:
        """What a YAML file of tasks or plays refers to."""
        if path not in self._references:
            parsed = self.parsed(path)
            self._references[path] = references(parsed.documents) if parsed else ()
        return self._references[path]

    def counted(self, path: str, *, bits: bool) -> Digest | None:
        """The digest of a file by its bytes, and by its permission bits if asked; None where there is none."""
        if (path, bits) not in self._counted:
            data = self.tree.read(path)
            if data is None:
                return None
            counted = [digest_bytes(data), self.tree.mode(path)] if bits else digest_bytes(data)
            self._counted[path, bits] = digest(counted)
        return self._counted[path, bits]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Context:
    """From where something is referred to: the file's folder and the role that the file belongs to."""

    folder: str
    role: RoleAt | None = None


class Closure:
    """Everything that one step reads, gathered by following references from what it names."""

    def __init__(self, reader: ContentReader, *, playbook_dir: str) -> None:
        self.playbook_dir = playbook_dir
        self._reader = reader
        self._search = reader.search(playbook_dir)
        self._found: dict[str, tuple[str, Digest]] = {}  # path: name that counts, digest
        self._roles: set[str] = set()
        self._visited: set[str] = set()
        self._collections: set[str] = set()
        self._missing: list[str] = []

    def content(self) -> Content:
        """The digest of all that was gathered."""
        counted = sorted([name, value] for name, value in self._found.values())
        reads = sorted((path, short(value)) for path, (_, value) in self._found.items())
        return Content(
            digest=digest(counted), reads=tuple(reads), missing=tuple(dict.fromkeys(self._missing))
        )

    def add_role(self, name: str, *, asked_by: RoleAt | None = None, required: bool = False) -> None:
        """A role and what it depends on and includes."""
        near = [join(self.playbook_dir, "roles"), *([posixpath.dirname(asked_by.folder)] if asked_by else [])]
        role = self._search.role(
            name, near=near, beside=self.playbook_dir, collection=asked_by.collection if asked_by else ""
        )
        if role is None:
            if required and not self._comes_later():
                by = f', which role "{asked_by.name}" asks for,' if asked_by else ""
                self._missing.append(f'the role "{name}"{by} is in no folder of roles and in no collection')
        elif role.folder not in self._roles:
            self._roles.add(role.folder)
            self._add_role_files(role)
            if role.collection:
                self._add_collection(role.collection)

    def add_playbook(self, path: str) -> None:
        """A playbook, those it imports, and all that their plays name."""
        if path in self._visited:
            return
        if not self._add_yaml(path, _Context(folder=posixpath.dirname(path))):
            self._missing.append(f'the playbook "{path}" is not there')

    def add_surroundings(self, groups: Sequence[str]) -> None:
        """What applies to every step: variables of the groups and hosts, inventories, `ansible.cfg`, plugin folders."""
        search = self._search
        beside = dict.fromkeys(["", search.folder, self.playbook_dir])
        named = {"all", "ungrouped", *groups, *self._add_inventories()}
        inventories = (
            place if search.files(place) else posixpath.dirname(place) for place in search.inventories()
        )
        for folder in dict.fromkeys([*beside, *inventories]):
            for kind, names in (("group_vars", named), ("host_vars", _HOSTS)):
                for path in search.files(join(folder, kind)):
                    top = path[len(join(folder, kind)) + 1 :].split("/")[0]
                    if top in names or posixpath.splitext(top)[0] in names:
                        self._add_yaml(path, None)
        self.add_file(join(search.folder, "ansible.cfg"), bits=False)
        for folder in beside:
            for name in PLUGIN_FOLDERS:
                self.add_folder(join(folder, name), bits=False)
            for path in _REQUIREMENTS:
                self._add_yaml(join(folder, path), None)
        for folder in search.configured(*PLUGIN_FOLDERS):
            self.add_folder(folder, bits=False)

    def _add_inventories(self) -> set[str]:
        """The project's inventories, and all words in them: any may be a group that the machine is in."""
        words: set[str] = set()
        for place in self._search.inventories():
            for path in self._search.files(place) or (place,):
                if not _VARS.search(path) and self.add_file(path):
                    data = self._reader.tree.read(path) or b""
                    words.update(_WORD.findall(data.decode(errors="replace")))
        return words

    def add_folder(self, folder: str, *, bits: bool = True) -> None:
        """Every file below a folder."""
        for path in self._search.files(folder):
            if "__pycache__" not in path:
                self.add_file(path, bits=bits)

    def add_file(self, path: str, *, name: str = "", bits: bool = True) -> bool:
        """One file by bytes and permission bits; False where there is none.

        The bits do not count of what Ansible itself reads and copies nowhere: they depend on who checked it out.
        """
        if path not in self._found:
            value = self._reader.counted(path, bits=bits)
            if value is None:
                return False
            self._found[path] = (name or self._name(path), value)
        return True

    def _comes_later(self) -> bool:
        """Whether what is not there may come with the project's requirements, which count in its place."""
        folders = dict.fromkeys(["", self._search.folder, self.playbook_dir])
        return any(self._reader.parsed(join(folder, path)) for folder in folders for path in _REQUIREMENTS)

    def _add_role_files(self, role: RoleAt) -> None:
        context: list[tuple[Reference, _Context]] = []
        for path in self._search.files(role.folder):
            inner = path[len(role.folder) + 1 :]
            top, _, rest = inner.partition("/")
            if top in _IGNORED or "__pycache__" in inner or (not rest and not _matters(top)):
                continue
            name = f"role/{role.name}/{inner}"
            if top not in _PARSED or not path.endswith(_YAML):
                self.add_file(path, name=name)
                continue
            parsed = self._reader.parsed(path)
            if parsed is None:
                continue
            if inner in ("meta/main.yml", "meta/main.yaml"):
                self._found[path] = (name, _meta_digest(parsed))
                found = dependencies(parsed.documents)
            else:
                self._found[path] = (name, parsed.digest)
                found = self._reader.references(path) if top in _READ else ()
            here = _Context(folder=posixpath.dirname(path), role=role)
            context += [(reference, here) for reference in found]
        for reference, here in context:
            self._follow(reference, here)

    def _add_yaml(self, path: str, context: _Context | None) -> bool:
        """One YAML file by what it says, and with a context what it refers to; False where there is none."""
        if path in self._visited:
            return True
        parsed = self._reader.parsed(path)
        if parsed is None:
            return False
        self._visited.add(path)
        self._found.setdefault(path, (self._name(path), parsed.digest))
        if context:
            for reference in self._reader.references(path):
                self._follow(reference, replace(context, folder=posixpath.dirname(path)))
        return True

    def _follow(self, reference: Reference, context: _Context) -> None:
        match reference.kind:
            case "role":
                self._follow_role(reference, context)
            case "collection":
                self._add_collection(reference.name)
            case "playbook" | "tasks" | "vars" | "file":
                self._follow_path(reference, context)

    def _follow_role(self, reference: Reference, context: _Context) -> None:
        if not reference.dynamic:
            self.add_role(reference.name, asked_by=context.role, required=reference.required)
            return
        fixed = reference.name.partition("{{")[0]
        search = self._search
        if fixed.count(".") >= 2:
            names = search.collection_roles(".".join(fixed.split(".")[:2]))
        elif context.role and context.role.collection:
            names = search.collection_roles(context.role.collection)
        else:
            names = search.role_names([join(self.playbook_dir, "roles")])
        for name in names:
            self.add_role(name, asked_by=context.role)

    def _follow_path(self, reference: Reference, context: _Context) -> None:
        fixed, braces, _ = self._fill_in(reference.name, context).partition("{{")
        if braces:
            self._follow_dynamic(reference, fixed, context)
            return
        places = self._places(reference.kind, fixed, context)
        if not any(self._add_path(reference.kind, path, context) for path in places) and reference.required:
            self._missing.append(f'the {reference.kind} "{reference.name}" that is imported is not there')

    def _add_path(self, kind: Kind, path: str, context: _Context) -> bool:
        """A file or folder referred to as `kind`; False where there is none."""
        if kind in ("playbook", "tasks"):
            return self._add_yaml(path, context)
        if path in self._found or (self._add_yaml(path, None) if kind == "vars" else self.add_file(path)):
            return True
        files = self._search.files(path) if path else ()
        for inner in files:
            if kind == "vars":
                self._add_yaml(inner, None)
            else:
                self.add_file(inner)
        return bool(files)

    def _follow_dynamic(self, reference: Reference, fixed: str, context: _Context) -> None:
        """Every file of the folder that the fixed beginning of the name points into; without one, those beside."""
        folder = posixpath.dirname(fixed)
        if reference.kind == "file" and not folder:
            return  # the `files` and `templates` folders, which count whole anyway
        for place in self._places(reference.kind, folder, context):
            if context.role and (
                (place + "/").startswith(context.role.folder + "/") or place == self.playbook_dir
            ):
                continue  # counts whole already; and what lies beside the playbook is no role's to include
            for path in self._search.files(place, deep=bool(folder)):
                if reference.kind == "file":
                    self.add_file(path)
                elif path.endswith(_YAML) and path not in _OURS:
                    self._add_yaml(path, context if reference.kind != "vars" else None)

    def _places(self, kind: str, text: str, context: _Context) -> Iterator[str]:
        """Where Ansible looks for a path, in its order. An absolute path is itself alone, and no file of ours."""
        if text.startswith(_PROJECT):
            yield join("", text[len(_PROJECT) :])
        elif not text.startswith(("/", "~")):
            own = ("files", "templates") if kind == "file" else (kind,)
            for folder in (context.role.folder if context.role else None, context.folder, self.playbook_dir):
                if folder is not None:
                    yield from (join(folder, f"{name}/{text}") for name in own)
                    yield join(folder, text)
        elif kind != "file":
            yield text

    def _fill_in(self, text: str, context: _Context) -> str:
        """The path with Ansible's own names of places filled in; it then begins with the project's folder."""
        role = context.role.folder if context.role else ""
        for name, folder in (("role_path", role), ("playbook_dir", self.playbook_dir), ("inventory_dir", "")):
            found = re.match(r"\{\{\s*" + name + r"\s*\}\}/*", text)
            if found:
                return _PROJECT + posixpath.join(folder, text[found.end() :])
        return text

    def _add_collection(self, name: str) -> None:
        if name in self._collections or name.count(".") != 1:
            return
        self._collections.add(name)
        folder = self._search.collection(name)
        if not folder:
            return
        if not self.add_file(f"{folder}/MANIFEST.json", name=f"collection/{name}/MANIFEST.json", bits=False):
            for path in (f"{folder}/meta/runtime.yml", *self._search.files(f"{folder}/plugins")):
                if "__pycache__" not in path:
                    self.add_file(path, name=f"collection/{name}/{path[len(folder) + 1 :]}", bits=False)

    def _name(self, path: str) -> str:
        """What the file is called in the digest: where it lies beside the playbook or in the project."""
        if self.playbook_dir and path.startswith(self.playbook_dir + "/"):
            return path[len(self.playbook_dir) + 1 :]
        return f"elsewhere/{posixpath.basename(path)}" if path.startswith(("/", "~", "..")) else path


def _matters(name: str) -> bool:
    """Whether a file at a role's top may be read by its tasks: READMEs, licences and tools' settings are not."""
    upper = name.upper()
    return not (
        name.startswith(".")
        or upper.startswith(("README", "LICENSE", "COPYING", "CHANGELOG", "AUTHORS", "CONTRIBUTING"))
        or upper.endswith((".MD", ".RST"))
        or name in ("tox.ini", "Makefile", "requirements.txt", "requirements.yml")
    )


def _meta_digest(parsed: Parsed) -> Digest:
    """A role's `meta/main.yml` without `galaxy_info`, which tells people about the role and Ansible nothing."""
    if not parsed.documents:
        return parsed.digest
    return digest(
        [
            {key: value for key, value in document.items() if key != "galaxy_info"}
            if isinstance(document, dict)
            else document
            for document in parsed.documents
        ]
    )
