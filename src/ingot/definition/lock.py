"""`ingot.lock`: reading, writing and making it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never

import yaml

from ingot.definition.nodes import plain
from ingot.definition.requirements import read_requirements
from ingot.definition.yaml import parse_yaml
from ingot.errors import BackendError, DefinitionError, NotFoundError, Problem, TransientError
from ingot.model.definition import (
    BaseSource,
    CloudBase,
    DebootstrapBase,
    Definition,
    DiskImageBase,
    Target,
)
from ingot.model.digest import digest_bytes, short
from ingot.model.digest import plain as plain_value
from ingot.model.lock import FORMAT, BasePin, ContainerPin, Lock, RequirementPin, epoch_at, epoch_is_over
from ingot.model.reference import reference
from ingot.model.step import ContainersStep
from ingot.system.files import file_digest, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable

    from ingot.definition.fetch import Fetch
    from ingot.definition.registry import DigestOf
    from ingot.model.reference import Reference
    from ingot.ports import FoundBase

    Find = Callable[["Needed"], FoundBase]
    """What a base of a cloud is by now, as its target's backend finds it."""

FILE = "ingot.lock"
_HEAD = """\
# What the outside world would move, pinned by `ingot lock`. Commit this file; `ingot lock --update` moves the pins.
"""
_DEBIAN = {"x86_64": "amd64", "aarch64": "arm64"}
_LINE = re.compile(rb"^ ([0-9a-f]{64}) +\d+ (\S+)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Needed:
    """A base on one architecture that some plan begins with."""

    base: str
    arch: str
    source: BaseSource
    target: Target
    """One of the targets that begin with it."""


def read(root: Path) -> Lock:
    """The project's lock, empty where there is none. Raises DefinitionError for one that cannot be read."""
    try:
        text = (root / FILE).read_text()
    except FileNotFoundError:
        return Lock()
    except (OSError, ValueError) as error:
        raise _unreadable(f"the lock cannot be read: {error}") from error
    node, problems = parse_yaml(text, file=FILE)
    if problems:
        if "<<<<<<<" in text:
            raise _unreadable("the lock holds an unfinished merge")
        raise DefinitionError(problems=tuple(problems), hint=_REMEDY)
    value = plain(node) if node else {}
    if not isinstance(value, dict) or not isinstance(value.get("format"), int):
        raise _unreadable("this is not a lock of Ingot's")
    if value["format"] > FORMAT:
        raise _unreadable(f"the lock has format {value['format']}, written by a newer Ingot")
    try:
        bases = tuple(_base_pin(entry) for entry in value.get("bases") or ())
        required = tuple(_requirement(entry) for entry in value.get("requirements") or ())
        containers = tuple(_container_pin(entry) for entry in value.get("containers") or ())
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _unreadable("an entry of the lock lacks what it needs") from error
    epoch = str(value.get("epoch") or "")
    return Lock(bases=bases, requirements=required, containers=containers, epoch=epoch)


def write(root: Path, lock: Lock) -> bool:
    """Writes the lock where it differs from what is there; tells whether it did."""
    fresh = text_of(lock)
    path = root / FILE
    if path.is_file() and path.read_bytes() == fresh.encode():
        return False
    write_atomically(path, fresh)
    return True


def text_of(lock: Lock) -> str:
    """The lock as its file has it: sorted, a line for each pin."""
    value: dict[str, Any] = {"format": FORMAT, **({"epoch": lock.epoch} if lock.epoch else {})}
    value |= {"bases": [], "requirements": []}
    for pin in sorted(lock.bases, key=_key):
        entry: dict[str, Any] = {"base": pin.base, "arch": pin.arch, "source": pin.source}
        entry |= {"pins": dict(sorted(pin.pins.items())), "seen": dict(sorted(pin.seen.items()))}
        value["bases"].append({key: item for key, item in entry.items() if item})
    for required in sorted(lock.requirements, key=lambda pin: (pin.kind, pin.name)):
        named = {"kind": required.kind, "name": required.name}
        versions = {"wanted": required.wanted, "installed": required.installed}
        value["requirements"].append({**named, **{key: item for key, item in versions.items() if item}})
    if lock.containers:
        pinned = sorted(lock.containers, key=lambda pin: pin.image)
        value["containers"] = [{"image": pin.image, "digest": pin.digest} for pin in pinned]
    body = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=2**20)
    return _HEAD + body


def needed(definition: Definition, images: Sequence[str] | None = None) -> tuple[Needed, ...]:
    """The bases that these images (or all) begin with on their targets, each once. Pure."""
    found: dict[tuple[str, str, str], Needed] = {}
    for name in definition.images if images is None else images:
        chain = [definition.images[name]]
        while chain[-1].parent:
            chain.append(definition.images[chain[-1].parent])
        base = definition.bases[chain[-1].base]
        targets = next((image.targets for image in chain if image.targets), tuple(definition.targets))
        for target in (definition.targets[target] for target in targets):
            source = base.source_for(target)
            if source:
                one = Needed(base=base.name, arch=target.arch, source=source, target=target)
                found[_identity(one)] = one
    return tuple(found.values())


def missing(definition: Definition, lock: Lock, images: Sequence[str] | None = None) -> tuple[Needed, ...]:
    """What these images (or all) begin with and the lock does not pin. Pure."""
    return tuple(one for one in needed(definition, images) if _find(lock, one) is None)


def needed_containers(definition: Definition, images: Sequence[str] | None = None) -> tuple[str, ...]:
    """The container images that these images (or all) pull by a tag, each once. Pure."""
    chosen = list(definition.images if images is None else images)
    for name in chosen:
        parent = definition.images[name].parent
        if parent and parent not in chosen:
            chosen.append(parent)
    steps = (step for name in chosen for step in definition.images[name].steps)
    wanted = (image for step in steps if isinstance(step, ContainersStep) for image in step.images)
    return tuple(dict.fromkeys(image for image in wanted if not reference(image).digest))


def missing_containers(
    definition: Definition, lock: Lock, images: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Those of them that the lock does not pin. Pure."""
    return tuple(image for image in needed_containers(definition, images) if image not in lock.digests)


def pins_of(lock: Lock, base_name: str, source: BaseSource, target: Target) -> dict[str, str]:
    """The pins of a base that count in its key; empty where the lock has none for this very source."""
    found = _find(lock, Needed(base=base_name, arch=target.arch, source=source, target=target))
    return dict(found.pins) if found else {}


def resolve(
    definition: Definition,
    lock: Lock,
    *,
    update: bool,
    fetch: Fetch,
    find: Find,
    digest_of: DigestOf | None = None,
    images: Sequence[str] | None = None,
) -> Lock:
    """The lock with a pin for everything that these images (or all) need; `update` moves the pins there are.

    Without `images`, pins of what the definition no longer has are dropped. Raises BackendError, as `fetch`, `find` and
    `digest_of` do, and for a file whose checksum is not the one given.
    """
    root = Path(definition.root)
    wanted = needed(definition, images)
    pinned = {_identity(one): found for one in wanted if not update and (found := _find(lock, one))}
    for one in wanted:
        if _identity(one) not in pinned:
            pinned[_identity(one)] = _pin(one, root, fetch, find)
    others = () if images is None else tuple(pin for pin in lock.bases if _key(pin) not in pinned)
    bases = tuple(sorted((*others, *pinned.values()), key=_key))
    tags = needed_containers(definition, images)
    known, ask = lock.digests, digest_of or _ask_registry
    digests = dict(known) if images is not None else {}
    digests |= {tag: known[tag] if tag in known and not update else ask(reference(tag)) for tag in tags}
    containers = tuple(ContainerPin(image=image, digest=digests[image]) for image in sorted(digests))
    return Lock(bases=bases, requirements=read_requirements(root), containers=containers, epoch=lock.epoch)


def begin_epoch(definition: Definition, lock: Lock, *, now: datetime, update: bool = False) -> Lock:
    """The lock as far as it holds at this time (aware).

    In a new epoch no pin holds: all are to be found anew. `update` leaves an epoch that a wrong clock ran ahead to.
    Where the definition asks for no freshness, pins hold until they are moved.
    """
    epoch = epoch_at(now, definition.freshness) if definition.freshness else ""
    if not epoch or update:
        return replace(lock, epoch=epoch)
    return Lock(requirements=lock.requirements, epoch=epoch) if epoch_is_over(lock.epoch, epoch) else lock


def source_text(source: BaseSource, location: str = "") -> str:
    """What of a source decides its pins, in a line. An image of a cloud is another one at each location."""
    match source:
        case DebootstrapBase():
            archives = " ".join(dict.fromkeys(address for _, address in source.archives))
            return f"debootstrap {source.suite} {','.join(source.components)} {archives}"
        case DiskImageBase():
            return " ".join(part for part in ("image", source.url, source.sha256) if part)
        case CloudBase():
            query = json.dumps(plain_value(source.query), sort_keys=True, ensure_ascii=False)
            return " ".join(part for part in (source.backend, location, query) if part)
        case _:
            assert_never(source)


def _identity(one: Needed) -> tuple[str, str, str]:
    return one.base, one.arch, source_text(one.source, one.target.location)


def _key(pin: BasePin) -> tuple[str, str, str]:
    return pin.base, pin.arch, pin.source


def _find(lock: Lock, one: Needed) -> BasePin | None:
    return next((pin for pin in lock.bases if _key(pin) == _identity(one)), None)


def _pin(one: Needed, root: Path, fetch: Fetch, find: Find) -> BasePin:
    pins: dict[str, str] = {}
    seen: dict[str, str] = {}
    match one.source:
        case DebootstrapBase() as source:
            for suite, address in source.archives:
                release = _release(source, suite, address, fetch)
                pins[suite] = indexes_digest(release, source.components, one.arch, suite=suite)
                if date := re.search(rb"^Date: *(.+?)\s*$", release, re.MULTILINE):
                    seen[suite] = date[1].decode("ascii", "replace")
        case DiskImageBase() as source:
            pins["sha256"] = _image_digest(source, root)
        case CloudBase():
            found = find(one)
            pins, seen = dict(found.pins), dict(found.seen)
        case _:
            assert_never(one.source)
    base, arch, text = _identity(one)
    return BasePin(base=base, arch=arch, source=text, pins=pins, seen=seen)


def _release(source: DebootstrapBase, suite: str, address: str, fetch: Fetch) -> bytes:
    url = f"{address}/dists/{suite}/InRelease"
    try:
        return fetch(url)
    except NotFoundError as error:
        hint = "check the base's `mirror`, `security` and `debootstrap`"
        raise NotFoundError(f"the mirror {address} has no suite {suite}", hint=hint, url=url) from error
    except TransientError as error:
        hint = error.hint or "try again, or set the base's `mirror`"
        raise TransientError(
            f"the mirror {address} is not reachable: {error.facts.get('reason', error)}", hint=hint, url=url
        ) from error


def indexes_digest(release: bytes, components: Sequence[str], arch: str, *, suite: str) -> str:
    """The digest of an InRelease file's SHA-256 lines for these components' package indexes.

    Signing the same archive anew changes the file and not this. Raises BackendError where a component is not there.
    """
    lines = {path.decode("ascii", "replace"): checksum for checksum, path in _LINE.findall(release)}
    chosen: list[str] = []
    for component in sorted(components):
        plain_index = f"{component}/binary-{_DEBIAN[arch]}/Packages"
        paths = (
            [plain_index]
            if plain_index in lines
            else sorted(path for path in lines if path.startswith(f"{plain_index}."))
        )
        if not paths:
            known = sorted(
                {path.split("/")[0] for path in lines if f"/binary-{_DEBIAN[arch]}/Packages" in path}
            )
            raise BackendError(
                f"the suite {suite} has no component {component!r} for {arch}",
                hint=f"it has {', '.join(known)}"
                if known
                else "the archive's InRelease lists no package indexes",
            )
        chosen += [f"{lines[path].decode()} {path}" for path in paths]
    return digest_bytes("\n".join(chosen).encode())


def _image_digest(source: DiskImageBase, root: Path) -> str:
    """The SHA-256 of a disk image: of the file for a path, as given for a URL."""
    if "://" in source.url:
        return source.sha256
    path = root / source.url
    try:
        found = file_digest(path).removeprefix("sha256:")
    except OSError as error:
        hint = "paths are relative to the folder of `ingot.yaml`"
        raise BackendError(
            f"the disk image {source.url} cannot be read: {error.strerror}", hint=hint
        ) from error
    if source.sha256 and source.sha256 != found:
        raise BackendError(
            f"the disk image {source.url} has the SHA-256 {found}, and the definition says {source.sha256}",
            hint="download it again, or correct `sha256` if the file is the one that is meant",
            found=found,
            wanted=source.sha256,
        )
    return found


def _ask_registry(image: Reference) -> str:
    from ingot.definition.registry import digest_of

    return digest_of(image)


_REMEDY = f"restore {FILE} from version control, or remove it and run `ingot lock`"


def _unreadable(message: str) -> DefinitionError:
    return DefinitionError(problems=(Problem(message=message, hint=_REMEDY, file=FILE, line=1, column=1),))


def _base_pin(entry: Any) -> BasePin:
    pins, seen = dict(entry.get("pins") or {}), dict(entry.get("seen") or {})
    texts = [entry["base"], entry["arch"], entry["source"], *pins.values(), *seen.values()]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError
    return BasePin(base=entry["base"], arch=entry["arch"], source=entry["source"], pins=pins, seen=seen)


def _container_pin(entry: Any) -> ContainerPin:
    if not re.fullmatch("sha256:[0-9a-f]{64}", entry["digest"]):
        raise ValueError
    return ContainerPin(image=str(entry["image"]), digest=entry["digest"])


def _requirement(entry: Any) -> RequirementPin:
    if entry["kind"] not in ("collection", "role"):
        raise ValueError
    return RequirementPin(
        kind=entry["kind"],
        name=str(entry["name"]),
        wanted=str(entry.get("wanted", "")),
        installed=str(entry.get("installed", "")),
    )


def describe_changes(old: Lock, new: Lock) -> Iterator[str]:
    """What `ingot lock` did, a line each: `debian-12 (x86_64) bookworm: 12ab… → 34cd…`."""
    if old.epoch != new.epoch:
        yield f"freshness: {old.epoch or 'new'} → {new.epoch or 'dropped'}"
    before = {(_key(pin), name): value for pin in old.bases for name, value in pin.pins.items()}
    after = {(_key(pin), name): value for pin in new.bases for name, value in pin.pins.items()}
    for key in sorted({*before, *after}):
        (base, arch, _), name = key
        was, now = before.get(key, ""), after.get(key, "")
        if was != now:
            shown = f"{short(was) or 'new'} → {short(now) or 'dropped'}"
            yield f"{base} ({arch}) {name}: {shown}"
    for image in sorted({*old.digests, *new.digests}):
        was, now = old.digests.get(image, ""), new.digests.get(image, "")
        if was != now:
            yield f"{image}: {short(was) or 'new'} → {short(now) or 'dropped'}"
