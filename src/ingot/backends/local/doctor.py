"""Looks at this computer: whether it can make the machines and disks that builds will ask for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingot.backends.local import archive, vm_qemu
from ingot.backends.local.hosts import refuse_foreign_arch, refuse_missing_tools, tools_of
from ingot.errors import IngotError
from ingot.model.definition import CloudBase, DebootstrapBase, DiskImageBase
from ingot.model.diagnosis import Diagnosis, State
from ingot.model.units import Seconds, format_bytes
from ingot.ports import Wanted
from ingot.system import process

_TIGHT = 2 * 2**30
"""Less free room than this does not hold even a base with its downloads."""
_ROOT_KINDS = frozenset({"chroot", "booted"})
_BASE_TOOLS = ("mmdebstrap", "sfdisk", "mke2fs", "mkfs.fat", "mmd", "mcopy", "qemu-img")
_PATIENCE = Seconds(10.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalDoctor:
    """Implements `ports.Doctor`. With nothing wanted it looks at what most builds need."""

    folder: Path
    """Where layers are."""
    root: Path
    """The project's folder."""

    def examine(self, wanted: Sequence[Wanted]) -> Iterator[Diagnosis]:
        """Rights, programs, sources, room, and what virtual machines run on."""
        kinds = frozenset(kind for one in wanted for kind in one.machines) or frozenset({"chroot", "vm"})
        yield from _told("architecture", lambda: _architecture(wanted))
        yield from _told("rights", lambda: _rights(kinds, wanted))
        yield from _told("programs", lambda: _programs(kinds, wanted))
        for one in {each.base.name: each for each in wanted}.values():
            yield from _told("source", lambda one=one: _source(one, self.root))  # type: ignore[misc]
        yield from _told("room", lambda: _room(self.folder))
        if "vm" in kinds:
            yield from _told("virtual machines", lambda: _virtual(self.folder))

    def policy(self, wanted: Sequence[Wanted]) -> None:
        """Nobody has to allow anything but the system."""
        return


def _told(what: str, look: Callable[[], Iterator[Diagnosis]]) -> tuple[Diagnosis, ...]:
    """All findings of one look, a failure as one more."""
    seen: list[Diagnosis] = []
    try:
        seen.extend(look())
    except IngotError as error:
        seen.append(_found(what, "bad", error.message, error.hint))
    return tuple(seen)


def _found(what: str, state: State, message: str, hint: str = "") -> Diagnosis:
    return Diagnosis(what=what, state=state, message=message, hint=hint)


def _architecture(wanted: Sequence[Wanted]) -> Iterator[Diagnosis]:
    for arch in dict.fromkeys(one.arch for one in wanted):
        refuse_foreign_arch(arch)
    yield _found("architecture", "ok", os.uname().machine)


def _rights(kinds: frozenset[str], wanted: Sequence[Wanted]) -> Iterator[Diagnosis]:
    """Root for whatever mounts; without it namespaces of users, in which disks are looked at."""
    if os.geteuid() == 0:
        missing = [path for path in ("/dev/fuse", "/dev/loop-control") if not Path(path).exists()]
        if missing:
            hint = "`modprobe fuse loop`; in a container, let it have these devices"
            yield _found("rights", "bad", f"root, but without {' and '.join(missing)}", hint)
        else:
            yield _found("rights", "ok", "root, with FUSE and loop devices")
        return
    debootstrap = any(isinstance(one.base.source, DebootstrapBase) for one in wanted)
    if (kinds & _ROOT_KINDS and wanted) or debootstrap:
        what = " and ".join([*sorted(kinds & _ROOT_KINDS), *(["debootstrap"] if debootstrap else [])])
        hint = "run as root (`sudo -E ingot …`), or use a cloud image as base and `machine: vm` for steps and checks"
        yield _found("rights", "bad", f"an ordinary user, and {what} needs root", hint)
        return
    if not process.have("unshare"):
        return  # told among the programs
    done = process.run(["unshare", "--user", "--map-root-user", "true"], timeout=_PATIENCE, check=False)
    if done.code:
        why = done.tail[-1] if done.tail else f"unshare exited with {done.code}"
        hint = "`sysctl -w kernel.unprivileged_userns_clone=1` on Debian, or run as root"
        yield _found("rights", "bad", f"an ordinary user, and no user namespaces: {why}", hint)
    else:
        yield _found("rights", "ok", "an ordinary user, with user namespaces: virtual machines can be built")


def _programs(kinds: frozenset[str], wanted: Sequence[Wanted]) -> Iterator[Diagnosis]:
    names = [name for kind in sorted(kinds) for name in tools_of(kind)]
    if any(isinstance(one.base.source, DebootstrapBase) for one in wanted):
        names += _BASE_TOOLS
    refuse_missing_tools(tuple(dict.fromkeys(names)))
    yield _found("programs", "ok", f"all {len(set(names))} that {', '.join(sorted(kinds))} machines need")


def _source(one: Wanted, root: Path) -> Iterator[Diagnosis]:
    """What can be seen of a base without fetching anything."""
    name = one.base.name
    match one.base.source:
        case DebootstrapBase() as source:
            keyring = archive.find_keyring(source, root)
            yield _found(
                "source", "ok", f"{name}: {source.suite} from {source.mirror}, by the keys of {keyring}"
            )
        case DiskImageBase() as source if "://" in source.url:
            yield _found("source", "ok", f"{name}: {source.url}, which is fetched when it is first needed")
        case DiskImageBase() as source:
            there = (root / source.url).is_file()
            message = f"{name}: {source.url}" + ("" if there else " is not there")
            yield _found(
                "source", "ok" if there else "bad", message, "" if there else f"it was looked for at {root}"
            )
        case CloudBase(backend=cloud):
            hint = f"give `bases.{name}` an entry `local:`"
            yield _found(
                "source", "bad", f"{name} is an image of {cloud!r}, and this computer makes its own", hint
            )


def _room(folder: Path) -> Iterator[Diagnosis]:
    """Free bytes where layers are; a folder that is not there yet is made where its parent is."""
    there = folder
    while not there.exists():
        there = there.parent
    if not os.access(there, os.W_OK | os.X_OK):
        hint = "`INGOT_STATE` names another folder"
        yield _found("room", "bad", f"{there} cannot be written to", hint)
        return
    free = shutil.disk_usage(there).free
    state: State = "ok" if free >= _TIGHT else "bad"
    hint = (
        ""
        if free >= _TIGHT
        else "`ingot gc` removes layers that nothing needs; `INGOT_STATE` names another folder"
    )
    yield _found("room", state, f"{format_bytes(free)} free in {folder}", hint)


def _virtual(folder: Path) -> Iterator[Diagnosis]:
    """KVM counts once a guest has run with it; see `vm_qemu.choose_accelerator`."""
    vm_qemu.uefi_files()
    if not process.have("qemu-system-x86_64"):
        return  # told among the programs
    folder.mkdir(parents=True, exist_ok=True)
    if vm_qemu.choose_accelerator(folder) == "kvm":
        yield _found("virtual machines", "ok", "KVM runs a guest: machines boot in seconds")
        return
    opens = os.access("/dev/kvm", os.R_OK | os.W_OK)
    why = "/dev/kvm is there, and no guest runs with it" if opens else "/dev/kvm cannot be used"
    hint = "QEMU computes what a processor would: a boot takes minutes, not seconds; steps without `machine: vm` do not mind"
    yield _found("virtual machines", "warn", why, hint)
