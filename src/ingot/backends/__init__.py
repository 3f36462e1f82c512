"""Backends by name: found when used, from a table of our own and from other packages' entry points.

Another package adds one with an entry point of the group `ingot.backends` that names a `ports.OpenBackend`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # what a mounted disk's worker imports stays small
    from ingot.ports import OpenBackend

GROUP = "ingot.backends"


class Known(NamedTuple):
    """Where a backend is (`module:attribute`), and what to install where its imports are not there."""

    where: str
    hint: str = ""


KNOWN: Mapping[str, Known] = {
    "local": Known("ingot.backends.local.backend:open_backend"),
}


def names() -> tuple[str, ...]:
    """The names of all backends that can be asked for."""
    from importlib.metadata import entry_points  # costs 20 ms that few callers need to pay

    return tuple(sorted({*KNOWN, *(entry.name for entry in entry_points(group=GROUP))}))


def find_backend(name: str) -> OpenBackend:
    """The function that opens a backend. Raises UsageError for an unknown name or one whose SDK is not installed."""
    from importlib import import_module
    from importlib.metadata import entry_points

    from ingot.errors import UsageError

    known = KNOWN.get(name)
    try:
        if known:
            module, _, attribute = known.where.partition(":")
            found: OpenBackend = getattr(import_module(module), attribute)
            return found
        for entry in entry_points(group=GROUP, name=name):
            loaded: OpenBackend = entry.load()
            return loaded
    except ImportError as error:
        hint = known.hint if known and known.hint else "install what the backend needs"
        raise UsageError(f"the backend {name!r} cannot be loaded: {error}", hint=hint) from error
    raise UsageError(f"there is no backend {name!r}", hint=f"there are: {', '.join(names())}")
