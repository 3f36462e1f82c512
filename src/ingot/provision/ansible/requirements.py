"""The project's requirements.yml: what of it is there, and fetching what is not with ansible-galaxy."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ingot.errors import ProvisionError
from ingot.model.units import Seconds
from ingot.ports import Cancel
from ingot.provision.ansible.config import Config
from ingot.system import process
from ingot.system.locks import lock

_NAMES = ("requirements.yml", "requirements.yaml", "collections/requirements.yml", "roles/requirements.yml")
_TIMEOUT = Seconds(900.0)
_UNREACHED = re.compile(
    r"(?i)unknown error when attempting to call galaxy|failed to (?:connect|resolve)|could not resolve host"
    r"|name resolution|connection refused|timed out|unreachable"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Requirements:
    """Entries of all requirements files, as written, with relative sources made absolute."""

    roles: tuple[Mapping[str, Any], ...] = ()
    collections: tuple[Mapping[str, Any], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.roles or self.collections)


def read_requirements(folders: Iterable[Path]) -> Requirements:
    """What the requirements files of these folders ask for. Raises ProvisionError for one that can't be read."""
    roles: list[Mapping[str, Any]] = []
    collections: list[Mapping[str, Any]] = []
    for file in (folder / name for folder in dict.fromkeys(folders) for name in _NAMES):
        if not file.is_file():
            continue
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ProvisionError(f"{file} is not YAML", hint=str(error), file=str(file)) from error
        found = {"roles": content} if isinstance(content, list) else content
        roles += [_entry(item, file) for item in found.get("roles") or ()]
        collections += [_entry(item, file) for item in found.get("collections") or ()]
    return Requirements(roles=tuple(roles), collections=tuple(collections))


def _entry(item: Any, file: Path) -> Mapping[str, Any]:
    entry = dict(item) if isinstance(item, Mapping) else {"name": str(item)}
    for name in ("src", "source", "name"):
        text = str(entry.get(name, ""))
        if text.startswith(("./", "../")):
            entry[name] = str((file.parent / text).resolve())
    return entry


def missing_requirements(
    wanted: Requirements, *, roles: tuple[Path, ...], collections: tuple[Path, ...]
) -> Requirements:
    """What of `wanted` is in none of the folders, or in the wrong version."""
    # Ansible itself looks for collections in Python's own folders too.
    places = (*collections, *(Path(folder) for folder in sys.path if folder))
    return Requirements(
        roles=tuple(entry for entry in wanted.roles if not _has_role(entry, roles)),
        collections=tuple(entry for entry in wanted.collections if not _has_collection(entry, places)),
    )


def _has_role(entry: Mapping[str, Any], folders: tuple[Path, ...]) -> bool:
    name = str(entry.get("name") or Path(str(entry.get("src", ""))).name.removesuffix(".git"))
    return bool(name) and any((folder / name).is_dir() for folder in folders)


def _has_collection(entry: Mapping[str, Any], folders: Iterable[Path]) -> bool:
    space, _, name = str(entry.get("name", "")).partition(".")
    if not name or "/" in name:
        return False
    for folder in folders:
        place = folder / "ansible_collections" / space / name
        if place.is_dir():
            # The first one found is the one that Ansible takes.
            return fits(_version(place), str(entry.get("version", "*")))
    return False


def _version(collection: Path) -> str:
    """A collection's version; "" for one without a manifest, as in a checkout."""
    manifest = collection / "MANIFEST.json"
    if not manifest.is_file():
        return ""
    version: str = json.loads(manifest.read_text())["collection_info"]["version"] or ""
    return version


def fits(version: str, wanted: str) -> bool:
    """Whether a version fits a Galaxy range: `*`, `1.2.3`, `>=1.2,<2,!=1.5.0`. An unknown version fits."""
    if not version:
        return True
    have = _numbers(version)
    for part in (part.strip() for part in wanted.split(",")):
        if part in ("", "*"):
            continue
        found = re.fullmatch(r"(>=|<=|!=|==|=|>|<)?\s*v?(\S+)", part)
        if not found:
            return False
        want = _numbers(found[2])
        true = {
            ">=": have >= want,
            "<=": have <= want,
            ">": have > want,
            "<": have < want,
            "!=": have != want,
        }.get(found[1] or "=", have == want)
        if not true:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    numbers = [int(number) for number in re.findall(r"\d+", version.split("-")[0].split("+")[0])[:3]]
    return tuple([*numbers, 0, 0, 0][:3])


def install_requirements(
    missing: Requirements,
    *,
    galaxy: Path,
    config: Config,
    env: Mapping[str, str],
    log: Path | None,
    cancel: Cancel,
) -> None:
    """Fetches what is missing into `galaxy` (collections) and `galaxy/roles`. Raises ProvisionError."""
    galaxy.mkdir(parents=True, exist_ok=True)
    with lock(galaxy / ".lock", cancel=cancel):
        for kind, entries, target in (
            ("collection", missing.collections, galaxy),
            ("role", missing.roles, galaxy / "roles"),
        ):
            if not entries:
                continue
            file = galaxy / f".missing-{kind}s.yml"
            file.write_text(json.dumps({f"{kind}s": [dict(entry) for entry in entries]}))
            done = process.run(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "ansible",
                    "galaxy",
                    kind,
                    "install",
                    "-r",
                    str(file),
                    "-p",
                    str(target),
                ],
                timeout=_TIMEOUT,
                cancel=cancel,
                env=env,
                cwd=config.folder,
                log=log,
                check=False,
            )
            if done.code:
                raise _failure(kind, entries, done, log=log)


def _failure(
    kind: str, entries: tuple[Mapping[str, Any], ...], done: process.Completed, *, log: Path | None
) -> ProvisionError:
    names = ", ".join(str(entry.get("name") or entry.get("src")) for entry in entries)
    text = "\n".join(done.tail)
    if _UNREACHED.search(text):
        return ProvisionError(
            f"the {kind}s {names} of requirements.yml are not installed, and Galaxy cannot be reached",
            hint=f"put them into the project's `{kind}s/` folder, or build where their source can be reached",
        )
    said = next((line for line in done.tail if line.startswith(("[ERROR]", "ERROR!"))), "")
    return ProvisionError(
        f"the {kind}s {names} of requirements.yml could not be installed: "
        + (said.partition(" ")[2].strip() or f"ansible-galaxy exited with {done.code}"),
        hint=f"its whole output is in {log}" if log else "check their names and versions",
    )
