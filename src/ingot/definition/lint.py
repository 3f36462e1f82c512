"""What a definition must be beyond its shape: a list of small checks, each told by all its problems at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ingot.definition.arguments import (
    changed_numbers,
    odd_booleans,
    unknown_names,
    unusable_names,
    wrong_types,
)
from ingot.definition.images import Images, Origin
from ingot.definition.nodes import Path as At
from ingot.definition.nodes import Table, find, path_text, place_at, problem
from ingot.definition.roles import Interface, RoleSearch, read_interface
from ingot.definition.suggest import did_you_mean
from ingot.definition.targets import Places
from ingot.errors import Problem
from ingot.model.definition import DebootstrapBase, Definition, DiskImageBase, ImageDefinition, made_by
from ingot.model.secret import Secret, reveal, secret_names
from ingot.model.step import (
    CloudInitStep,
    ContainersStep,
    FilesStep,
    PlaybookStep,
    RolesStep,
    ScriptStep,
    Step,
)
from ingot.model.units import format_bytes

if TYPE_CHECKING:
    from ingot.definition.user_data import Findings


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A definition as far as it is sound, with where its parts were written and the project's folder."""

    definition: Definition
    images: Images
    places: Places
    image_names: frozenset[str]
    """Names of images as written, sound or not."""
    search: RoleSearch
    interfaces: dict[str, Interface | None] = field(default_factory=dict)
    user_data: dict[tuple[str, str], Findings] = field(default_factory=dict)
    """What was found in user-data, by its path and its text."""

    @property
    def root(self) -> Path:
        return self.search.root

    def steps(self) -> Iterator[tuple[Step, Origin]]:
        """Every step with where it was written."""
        for (image, index), origin in self.images.steps.items():
            if image in self.definition.images:
                yield self.definition.images[image].steps[index], origin

    def interface(self, role: str) -> Interface | None:
        """What the role takes, read once."""
        if role not in self.interfaces:
            self.interfaces[role] = read_interface(self.search, role)
        return self.interfaces[role]


Check = Callable[[Subject], Iterator[Problem]]


def lint(subject: Subject) -> list[Problem]:
    """Every problem that the checks find."""
    return [found for check in CHECKS for found in check(subject)]


def warn(subject: Subject) -> list[Problem]:
    """What may be meant as it is."""
    return [found for check in WARNINGS for found in check(subject)]


def names_are_known(subject: Subject) -> Iterator[Problem]:
    """Bases and targets that images name."""
    for image, origin in _written(subject):
        if image.base and image.base not in subject.places.base_names:
            hint = did_you_mean(image.base, subject.places.base_names) or "describe it under `bases`"
            yield _at(origin, ("base",), f"there is no base `{image.base}`", hint)
        for index, target in enumerate(image.targets):
            if target not in subject.places.target_names:
                hint = did_you_mean(target, subject.places.target_names) or "describe it under `targets`"
                yield _at(origin, ("targets", index), f"there is no target `{target}`", hint)
            elif target in image.targets[:index]:
                yield _at(origin, ("targets", index), f"the target `{target}` is named twice", "remove one")


def there_is_something_to_build(subject: Subject) -> Iterator[Problem]:
    """A definition without images or targets."""
    file = subject.definition.files[0]
    for section, names in (("images", subject.image_names), ("targets", subject.places.target_names)):
        if not names:
            hint = "`ingot init` shows a small definition that builds"
            yield Problem(
                message=f"there are no {section}", hint=hint, file=file, line=1, column=1, path=section
            )


def bases_fit_targets(subject: Subject) -> Iterator[Problem]:
    """Images whose base says nothing for a target that they are built for."""
    definition = subject.definition
    for image, origin in _written(subject):
        root = _chain(definition, image)[-1]
        base = definition.bases.get(root.base)
        if base is None:
            continue
        for name in _targets(definition, image):
            target = definition.targets.get(name)
            if target is None or {target.name, made_by(target)} & {*_keys(subject, base.name)}:
                continue
            key = next((key for key in ("targets", "base", "from") if find(origin.node, (key,))), "")
            hint = f"add `{made_by(target)}: …` to the base at {base.place}, or leave the target out"
            yield _at(origin, (key,), f"the base `{base.name}` says nothing for the target `{name}`", hint)


def disks_only_grow(subject: Subject) -> Iterator[Problem]:
    """Images with a smaller disk than the image that they continue."""
    definition = subject.definition
    for image, origin in _written(subject):
        above = definition.images.get(image.parent)
        if image.disk is None or above is None:
            continue
        sizes = [one.disk for one in _chain(definition, above) if one.disk]
        targets = [
            definition.targets[name].disk
            for name in _targets(definition, image)
            if name in definition.targets
        ]
        needed = sizes[0] if sizes else max(targets, default=0)
        if image.disk < needed:
            message = (
                f"{format_bytes(image.disk)} is smaller than the {format_bytes(needed)} of `{above.name}`"
            )
            yield _at(origin, ("disk",), message, "a disk is never shrunk; leave `disk` out or grow it")


def files_are_there(subject: Subject) -> Iterator[Problem]:
    """Scripts, playbooks, sources of files and checks that are not in the project."""
    for step, origin in subject.steps():
        match step:
            case ScriptStep(path=path) if path:
                key: At = ("script", "path") if find(origin.node, ("script", "path")) else ("script",)
                yield from _file(subject, origin, key, path, "script")
            case PlaybookStep(path=path):
                yield from _file(subject, origin, ("playbook",), path, "playbook")
            case CloudInitStep(path=path) if path:
                key = ("cloud_init", "path") if find(origin.node, ("cloud_init", "path")) else ("cloud_init",)
                yield from _file(subject, origin, key, path, "user-data file")
            case FilesStep(src=src) if src and not _exists(subject.root / src):
                key = ("files", "src")
                place = place_at(origin.node, key) if find(origin.node, key) else step.place
                yield problem(
                    f"there is no file or folder `{src}`",
                    place,
                    path=(*origin.path, *key),
                    hint=_file_hint(subject.root / src),
                )
            case _:
                pass
    for image, origin in _written(subject):
        for index, check in enumerate(image.checks):
            yield from _check(subject, origin, index, check)


def base_files_are_there(subject: Subject) -> Iterator[Problem]:
    """Keyrings and disk images named by path."""
    for base in subject.definition.bases.values():
        for key, source in base.sources.items():
            origin = Origin(node=subject.places.nodes[base.name, key], path=("bases", base.name, key))
            match source:
                case DebootstrapBase(keyring=keyring) if keyring:
                    yield from _file(subject, origin, ("keyring",), keyring, "keyring")
                case DiskImageBase(url=url) if "://" not in url:
                    yield from _file(subject, origin, ("image",), url, "disk image")
                case _:
                    pass


def signers_are_there(subject: Subject) -> Iterator[Problem]:
    """A cache whose allowed signers are not listed: nothing could be taken from it."""
    cache = subject.definition.cache
    if cache and not (subject.root / cache.signers).is_file():
        message = f"the cache's allowed signers are to be in `{cache.signers}`, which is not there"
        hint = 'a line each, as `ssh-keygen` reads it: `ada@example.org namespaces="ingot-layer" ssh-ed25519 AAAA…`'
        yield problem(message, cache.place, path=("cache",), hint=hint)


def roles_are_there(subject: Subject) -> Iterator[Problem]:
    """Roles that no folder on Ansible's search path has."""
    for step, origin in subject.steps():
        if not isinstance(step, RolesStep):
            continue
        for index, role in enumerate(step.roles):
            if subject.search.role(role) is None:
                yield _at(origin, ("roles", index), f"there is no role `{role}`", _role_hint(subject, role))


def variables_suit_roles(subject: Subject) -> Iterator[Problem]:
    """`vars` that a role's argument_specs would refuse, or that bear its prefix and are not its own."""
    for table, interfaces, path in _role_variables(subject):
        yield from wrong_types(table, interfaces, path)
        yield from (found for certain, found in unknown_names(table, interfaces, path) if certain)


def variables_are_usable(subject: Subject) -> Iterator[Problem]:
    """`vars` with names that Ansible cannot use, or numbers that YAML changes."""
    for _, origin in subject.steps():
        table = find(origin.node, ("vars",))
        if isinstance(table, Table):
            yield from unusable_names(table, (*origin.path, "vars"))
            yield from changed_numbers(table, (*origin.path, "vars"))


def variables_may_be_unknown(subject: Subject) -> Iterator[Problem]:
    """`vars` that no role of the step names, where all of them list theirs."""
    for table, interfaces, path in _role_variables(subject):
        if all(interface.closed for interface in interfaces.values()):
            yield from (found for certain, found in unknown_names(table, interfaces, path) if not certain)


def variables_may_be_misread(subject: Subject) -> Iterator[Problem]:
    """`vars` that YAML reads as true or false from unusual words."""
    for _, origin in subject.steps():
        table = find(origin.node, ("vars",))
        if isinstance(table, Table):
            yield from odd_booleans(table, (*origin.path, "vars"))


def user_data_is_sound(subject: Subject) -> Iterator[Problem]:
    """User-data that cloud-init would not take, or not as it is meant."""
    for step, origin in subject.steps():
        if isinstance(step, CloudInitStep):
            yield from _user_data(subject, step, origin).problems


def user_data_may_be_misread(subject: Subject) -> Iterator[Problem]:
    """What of user-data is out of date, or out of sight."""
    for step, origin in subject.steps():
        if isinstance(step, CloudInitStep):
            yield from _user_data(subject, step, origin).warnings


def systems_run(subject: Subject) -> Iterator[Problem]:
    """Steps that need a running system on a machine without one; cloud-init's that want to be tried again on the same."""
    hint = "leave `machine` out, or write `machine: booted`"
    for step, origin in subject.steps():
        if isinstance(step, CloudInitStep) and step.machine != "booted":
            what = f"cloud-init is given its user-data on a booted system, not on a {step.machine}"
            yield _at(origin, ("machine",), what, hint)
        if isinstance(step, ContainersStep) and step.machine == "chroot":
            what = "pulling container images needs a running system, and a chroot has none"
            yield _at(origin, ("machine",), what, hint)
        if isinstance(step, CloudInitStep) and step.retries:
            message = "cloud-init applies its user-data once on a machine, and is not tried again"
            yield _at(origin, ("retries",), message, "leave `retries` out")


CHECKS: tuple[Check, ...] = (
    there_is_something_to_build,
    names_are_known,
    bases_fit_targets,
    disks_only_grow,
    files_are_there,
    base_files_are_there,
    signers_are_there,
    roles_are_there,
    variables_suit_roles,
    variables_are_usable,
    user_data_is_sound,
    systems_run,
)
WARNINGS: tuple[Check, ...] = (variables_may_be_unknown, variables_may_be_misread, user_data_may_be_misread)


def _written(subject: Subject) -> Iterator[tuple[ImageDefinition, Origin]]:
    for name, image in subject.definition.images.items():
        yield image, subject.images.written[name]


def _at(origin: Origin, key: At, message: str, hint: str = "") -> Problem:
    return problem(message, place_at(origin.node, key), path=(*origin.path, *key), hint=hint)


def _keys(subject: Subject, base: str) -> list[str]:
    return [key for name, key in subject.places.nodes if name == base]


def _chain(definition: Definition, image: ImageDefinition) -> list[ImageDefinition]:
    """The image and those that it continues, itself first."""
    chain = [image]
    while chain[-1].parent in definition.images and len(chain) < 60:
        chain.append(definition.images[chain[-1].parent])
    return chain


def _targets(definition: Definition, image: ImageDefinition) -> tuple[str, ...]:
    named = (one.targets for one in _chain(definition, image) if one.targets)
    return next(named, tuple(definition.targets))


def _user_data(subject: Subject, step: CloudInitStep, origin: Origin) -> Findings:
    """What is wrong with a step's user-data; nothing where its file cannot be read, which is told elsewhere."""
    known = step.path, step.inline
    if known not in subject.user_data:
        subject.user_data[known] = _look_at_user_data(subject, step, origin)
    return subject.user_data[known]


def _look_at_user_data(subject: Subject, step: CloudInitStep, origin: Origin) -> Findings:
    from ingot.definition.cloud_config import HOLE
    from ingot.definition.user_data import Findings, lint_user_data, said_at

    if step.path:
        try:
            data = (subject.root / step.path).read_bytes()
        except OSError:
            return Findings()
        return lint_user_data(data, file=step.path)
    text = reveal(step.inline, dict.fromkeys(secret_names(step.inline), Secret(HOLE)))
    found = lint_user_data(text.encode(), file="")
    key: At = ("cloud_init", "inline")
    place, path = place_at(origin.node, key), path_text((*origin.path, *key))
    return Findings(
        problems=[said_at(one, place, path=path) for one in found.problems],
        warnings=[said_at(one, place, path=path) for one in found.warnings],
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _file(subject: Subject, origin: Origin, key: At, path: str, what: str) -> Iterator[Problem]:
    full = subject.root / path
    try:
        found, folder = full.is_file(), full.is_dir()
    except OSError:
        found, folder = False, False
    if not found:
        message = f"`{path}` is a folder, not a {what}" if folder else f"there is no {what} `{path}`"
        yield _at(origin, key, message, _file_hint(full))


def _file_hint(path: Path) -> str:
    try:
        names = (
            [entry.name for entry in path.parent.iterdir() if entry.name != path.name]
            if path.parent.is_dir()
            else []
        )
    except OSError:
        names = []
    close = did_you_mean(path.name, names)
    return close if close.startswith("did") else "paths are relative to the folder of `ingot.yaml`"


def _check(subject: Subject, origin: Origin, index: int, check: str) -> Iterator[Problem]:
    path, key = subject.root / check, ("checks", index)
    if not _exists(path):
        yield _at(origin, key, f"there is no check `{check}`", _file_hint(path))
    elif path.is_dir():
        tests = (found for pattern in ("test_*.py", "*_test.py") for found in path.rglob(pattern))
        if next(tests, None) is None:
            yield _at(origin, key, f"`{check}` holds no checks", "testinfra files are named `test_….py`")
    elif path.suffix != ".py":
        yield _at(origin, key, f"`{check}` is not a testinfra file", "such as `checks/test_node.py`")


def _role_hint(subject: Subject, role: str) -> str:
    hint = did_you_mean(role, subject.search.known_roles())
    if hint.startswith("did"):
        return hint
    wanted = role if "." not in role else ".".join(role.split(".")[:2])
    for file in ("requirements.yml", "roles/requirements.yml", "collections/requirements.yml"):
        try:
            listed = wanted in (subject.root / file).read_text()
        except (OSError, ValueError):
            continue
        if listed:
            return f"{file} lists it: `ingot lock` fetches it"
    return hint or "roles lie in `roles/`, in ansible.cfg's roles_path, or in a collection"


def _role_variables(subject: Subject) -> Iterator[tuple[Table, Mapping[str, Interface], At]]:
    """The `vars` of each roles step all of whose roles list what they take, as far as they do."""
    for step, origin in subject.steps():
        table = find(origin.node, ("vars",))
        if isinstance(step, RolesStep) and isinstance(table, Table):
            interfaces = {role: found for role in step.roles if (found := subject.interface(role))}
            if len(interfaces) == len(step.roles):
                yield table, interfaces, (*origin.path, "vars")
            elif interfaces:
                known = {
                    role: Interface(options=one.options, others=one.others, closed=False)
                    for role, one in interfaces.items()
                }
                yield table, known, (*origin.path, "vars")
