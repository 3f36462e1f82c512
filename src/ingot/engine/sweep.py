"""Unmakes what dead runs left: those with a journal and no lock. Every build does this first, by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingot.engine.journal import NAME, Journal, Place, Record
from ingot.engine.run import LOCK
from ingot.errors import NotFoundError, RefusedError, TransientError
from ingot.model.events import Emit, ResourceClosed, Warned, ignore
from ingot.model.units import Seconds, format_seconds
from ingot.ports import Backend, Resource
from ingot.system.locks import try_lock

OpenPlace = Callable[[Place, Path], Backend]
"""Opens the backend of a journal's record again; the path is the dead run's folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Swept:
    """What a sweep did: things removed, and those still there, each as `<run>: <kind> <ref>`."""

    removed: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


def sweep(runs: Path, open_place: OpenPlace, *, emit: Emit = ignore, names: Sequence[str] = ()) -> Swept:
    """Sweeps dead runs: all, or those named. Goes on past failures, with a warning for each.

    What a run kept to be looked at stays until its time is over, unless the run is named.

    Raises RefusedError for a named run that is alive, NotFoundError for one that is not there.
    """
    removed: list[str] = []
    left: list[str] = []
    for directory in _chosen(runs, names):
        if not names and not (directory / NAME).exists():
            continue
        with try_lock(directory / LOCK) as free:
            if free:
                doomed = [record for record in _open(directory) if names or record.until < time.time()]
                _sweep_one(directory, doomed, open_place, emit=emit, removed=removed, left=left)
            elif names:
                raise RefusedError(
                    f"run {directory.name} is still going", hint="end it first, or wait until it has ended"
                )
    return Swept(removed=tuple(removed), left=tuple(left))


def strays(runs: Path, backend: Backend, *, older_than: Seconds) -> tuple[tuple[str, str], ...]:
    """(kind, ref) of what bears the marks of some run though no run that goes on holds it, or keeps it.

    For what no journal tells of any more: a state folder that is gone, a builder that died with its disk.
    """
    living: set[str] = set()
    for path in runs.glob(f"*/{NAME}"):
        with try_lock(path.with_name(LOCK)) as free:
            held = [record for record in _open(path.parent) if not free or record.until > time.time()]
            living |= {name for record in held for name in (record.ref, record.token)}
    return tuple((kind, ref) for kind, ref in backend.strays(older_than=older_than) if ref not in living)


def _chosen(runs: Path, names: Sequence[str]) -> Iterator[Path]:
    if not names:
        yield from sorted(runs.iterdir()) if runs.is_dir() else ()
        return
    for name in names:
        if not (runs / name).is_dir() or "/" in name:
            raise NotFoundError(f"there is no run {name!r} in {runs}", hint="`ingot logs` lists the runs")
        yield runs / name


def _open(directory: Path) -> tuple[Record, ...]:
    return Journal(directory, run=directory.name).read()


def _sweep_one(
    directory: Path,
    records: Sequence[Record],
    open_place: OpenPlace,
    *,
    emit: Emit,
    removed: list[str],
    left: list[str],
) -> None:
    journal = Journal(directory, run=directory.name)
    for record in records:
        named = f"{directory.name}: {record.name}"
        try:
            resource = open_place(record.place, directory).resource(record.kind)
            gone = _remove(resource, record, journal)
            journal.shut(record.token)
        except Exception as error:  # whatever it is: the other leftovers still want removing
            left.append(named)
            emit(Warned(message=f"could not remove {named}: {error}", hint="`ingot sweep` tries again"))
        else:
            if gone:
                removed.append(named)
                emit(ResourceClosed(kind=record.kind, ref=gone))
    journal.close()


def _remove(resource: Resource, record: Record, journal: Journal) -> str:
    """Deletes the thing and returns its ref; "" where it never came to be.

    Raises TransientError for what is not seen but may still come to be listed: who asked for it may have done so up to its
    death, which was before the first sweep that looked.
    """
    ref = record.ref or resource.find(record.token) or ""
    if ref:
        resource.delete(ref)
    elif resource.settles:
        if not record.sought:
            journal.sought(record.token)
        if not record.sought or time.time() - record.sought < resource.settles:
            raise TransientError(f"it may still come to be listed, within {format_seconds(resource.settles)}")
    return ref
