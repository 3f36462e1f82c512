"""What a lock cannot hold still: an archive that has moved on since it was pinned, while the locked layer is gone."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ingot.errors import BackendError, RefusedError
from ingot.model.definition import DebootstrapBase
from ingot.model.events import Emit, Warned
from ingot.model.units import Seconds
from ingot.ports import FoundBase

if TYPE_CHECKING:
    from ingot.definition.lock import Needed
    from ingot.model.definition import Definition
    from ingot.model.plan import Plan

_PATIENCE = Seconds(10.0)


def tell_moved(definition: Definition, plan: Plan, *, locked: bool, emit: Emit) -> None:
    """For a plan whose base is about to be made: warns where its archive is no longer what the lock says.

    Raises RefusedError instead where `locked`. An archive that cannot be asked is left to the making of the base.
    """
    source = plan.base.source
    if not isinstance(source, DebootstrapBase):
        return
    moved = _moved(definition, plan, source)
    if not moved:
        return
    message = (
        f"the archive of {plan.base.name} has moved on since `ingot.lock` was written ({', '.join(moved)}), "
        "and the layer made from what was locked is not here"
    )
    hint = "`ingot lock --update` pins what the archive has now; a mirror with snapshots keeps what it had"
    if locked:
        raise RefusedError(f"{message}; `--locked` builds nothing else", hint=hint)
    emit(Warned(subject=plan.subject, message=message, hint=hint))


def _stays(one: Needed) -> FoundBase:
    """The images of clouds do not change: their ids are pinned."""
    return FoundBase(pins={})


def _moved(definition: Definition, plan: Plan, source: DebootstrapBase) -> list[str]:
    from ingot.definition import lock as locks
    from ingot.definition.fetch import fetch
    from ingot.model.lock import Lock

    try:
        now = locks.resolve(
            definition,
            Lock(),
            update=True,
            fetch=partial(fetch, timeout=_PATIENCE),
            find=_stays,
            images=[plan.image],
        )
    except BackendError:
        return []
    found = locks.pins_of(now, plan.base.name, source, definition.targets[plan.target])
    return sorted(name for name, value in found.items() if plan.base.pins.get(name) != value)
