"""Layers that computers share: pulling what a plan lacks here, and pushing what was built.

Nothing here may fail a build: what cannot be had is built, what cannot be given is not, each with a warning.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ingot.engine.bench import Baton
from ingot.engine.leaks import secret_needles
from ingot.engine.records import layer_keys, layer_names
from ingot.engine.trace import point
from ingot.errors import BackendError, IngotError, RefusedError
from ingot.model.digest import short
from ingot.model.events import Emit, LayerPushed, Warned, ignore
from ingot.model.image import LayerRef
from ingot.model.plan import ContentId, LayerKey, Plan
from ingot.model.secret import Secret
from ingot.model.units import Seconds
from ingot.ports import Backend, Cancel, Clock, Holder, LayerCache, LayerCarrier, Parcel

_MISSED = (BackendError, RefusedError)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """The layers of a plan, those that are standing here, and those that are to be made in any case."""

    plan: Plan
    standing: Sequence[LayerRef | None]
    anew: Collection[LayerKey] = ()


def offered(wanted: Wanted, cache: LayerCache | None, backend: Backend, *, emit: Emit) -> tuple[Parcel, ...]:
    """What can be pulled so that more of the plan stands, the lowest first; () where that is nothing."""
    keys = [key for key in layer_keys(wanted.plan) if key not in wanted.anew]
    if cache is None or len(wanted.standing) >= len(keys):
        return ()
    carrier = backend.carrier
    if carrier is None:
        return ()
    contents = [layer.content if layer else None for layer in wanted.standing]
    try:
        return cache.find(keys, kind=carrier.kind, standing=contents, emit=emit)
    except _MISSED as error:
        emit(_unreached(cache, error, then="layers that are not here are built"))
        return ()


def pull(
    wanted: Wanted,
    cache: LayerCache | None,
    *,
    backend: Backend,
    held: Holder,
    clock: Clock,
    emit: Emit,
    cancel: Cancel,
) -> Mapping[LayerKey, Seconds]:
    """Pulls what the cache offers, each layer under its key's lock; returns how long each took.

    They come lowest first: where one cannot be had, those below it are of use all the same.
    """
    parcels = offered(wanted, cache, backend, emit=emit)
    took: dict[LayerKey, Seconds] = {}
    if not parcels:
        return took
    plan, carrier = wanted.plan, backend.carrier
    assert cache and carrier, "they offer it"
    names = dict(zip(layer_keys(plan), layer_names(plan), strict=True))
    room = held.open(carrier.room())
    with Baton(lambda key: backend.lock(key, emit=emit, cancel=cancel)) as baton:
        for parcel in parcels:
            cancel.check()
            baton.take(parcel.key)
            began = clock.monotonic()
            subject = f"{plan.subject}/{names[parcel.key]}"
            try:
                _pull_one(
                    parcel, cache, carrier, room, backend=backend, subject=subject, emit=emit, cancel=cancel
                )
            except _MISSED as error:
                emit(_not_pulled(parcel, names[parcel.key], error, cache=cache, subject=plan.subject))
                break
            took[parcel.key] = Seconds(clock.monotonic() - began)
    held.close(room)
    return took


def _pull_one(
    parcel: Parcel,
    cache: LayerCache,
    carrier: LayerCarrier,
    room: str,
    *,
    backend: Backend,
    subject: str,
    emit: Emit,
    cancel: Cancel,
) -> None:
    found = backend.layer(parcel.key)
    if found and found.content == parcel.content:  # somebody else pulled it meanwhile
        return
    folder = carrier.folder(room)
    point(f"before pull {short(parcel.key)}")
    file = cache.take(parcel, folder, subject=subject, emit=emit, cancel=cancel)
    point(f"pulled {short(parcel.key)}")
    carrier.take(file, parcel)
    point(f"after pull {short(parcel.key)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Shared:
    """A finished disk, and the secrets that none of its layers may hold when they leave this computer."""

    plan: Plan
    content: ContentId
    secrets: Mapping[str, Secret]


def push(
    shared: Shared,
    cache: LayerCache,
    *,
    backend: Backend,
    held: Holder,
    clock: Clock,
    emit: Emit,
    cancel: Cancel,
) -> None:
    """Gives the layers of a finished disk that the cache lacks, the lowest first.

    Stops at the first that may not leave this computer: what stands on it would be of no use to anybody.
    """
    plan, carrier = shared.plan, backend.carrier
    if carrier is None or not cache.gives:
        return
    try:
        todo = _lacking(plan, carrier.chain(shared.content), cache)
        needles = tuple(secret_needles(shared.secrets, subject=plan.subject, emit=ignore))
        folder = carrier.folder(held.open(carrier.room())) if todo else Path()
        for name, parcel in todo:
            began = clock.monotonic()
            try:
                with carrier.opened(parcel, needles, cancel=cancel) as file:
                    point(f"before push {name}")
                    sent = cache.give(
                        parcel, file, folder, subject=f"{plan.subject}/{name}", emit=emit, cancel=cancel
                    )
                    point(f"after push {name}")
            except RefusedError as error:
                message = (
                    f"the layer {name} ({short(parcel.key)}) is not shared, nor what stands on it: {error}"
                )
                emit(Warned(subject=plan.subject, message=message, hint=error.hint))
                break
            seconds = clock.monotonic() - began
            emit(LayerPushed(subject=plan.subject, layer=name, seconds=seconds, bytes=sent))
    except BackendError as error:
        emit(_unreached(cache, error, then="what was built is not shared; the next build tries again"))


def _lacking(plan: Plan, chain: Sequence[Parcel], cache: LayerCache) -> list[tuple[str, Parcel]]:
    """(name, layer) of those that the cache lacks, under the keys of this plan: bytes may have several."""
    names, keys, count = layer_names(plan), layer_keys(plan), len(chain)
    if not 0 < count <= len(keys):
        return []
    if cache.has(keys[-1], chain[-1].content):
        return []  # the lowest is given first, so all are there
    named = zip(names[-count:], keys[-count:], chain, strict=True)
    mine = [(name, replace(parcel, key=key)) for name, key, parcel in named]
    return [(name, parcel) for name, parcel in mine if not cache.has(parcel.key, parcel.content)]


def _not_pulled(parcel: Parcel, name: str, error: IngotError, *, cache: LayerCache, subject: str) -> Warned:
    where = parcel.key.removeprefix("sha256:")
    return Warned(
        subject=subject,
        message=f"the layer {name} ({short(parcel.key)}) of the cache is not used: {error}; it is built instead",
        hint=error.hint or f"remove {cache.url}/{where}; the next build that pushes gives it anew",
    )


def _unreached(cache: LayerCache, error: IngotError, *, then: str) -> Warned:
    return Warned(message=f"the cache {cache.url} cannot be used: {error}; {then}", hint=error.hint)
