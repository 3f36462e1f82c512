"""Backends by name: found when used, from a table of our own and from other packages' entry points.

Another package adds one with an entry point of the group `ingot.backends` that names a `ports.OpenBackend`.
"""

from __future__ import annotations

# Each SSH connection to a chroot machine starts a Python that imports this package: no `typing` here, which costs
# more than all else together. Type checkers take this name for true.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ingot.ports import OpenBackend, Shape

GROUP, SHAPES_GROUP = "ingot.backends", "ingot.shapes"

KNOWN: Mapping[str, str] = {
    "aws": "ingot.backends.aws.backend:open_backend",
    "local": "ingot.backends.local.backend:open_backend",
    "memory": "ingot.backends.memory.backend:open_backend",
}
"""Where our own backends are: `module:attribute`."""

SHAPES: Mapping[str, str] = {"aws": "ingot.backends.aws.shape:SHAPE"}
"""Where the shapes of our own backends are; the entry points of `ingot.shapes` name those of others."""

HINTS: Mapping[str, str] = {"aws": "install `ingot[aws]`"}
"""What to install where a backend's imports are not there."""


def names() -> tuple[str, ...]:
    """The names of all backends that can be asked for."""
    from importlib.metadata import entry_points  # costs 20 ms that few callers need to pay

    return tuple(sorted({*KNOWN, *(entry.name for entry in entry_points(group=GROUP))}))


def find_shape(name: str) -> Shape | None:
    """What a backend's targets and bases may say; None for one that tells nothing of it."""
    from importlib import import_module

    where = SHAPES.get(name)
    if where:
        module, _, attribute = where.partition(":")
        ours: Shape = getattr(import_module(module), attribute)
        return ours
    if name in KNOWN:
        return None
    from importlib.metadata import entry_points

    for entry in entry_points(group=SHAPES_GROUP, name=name):
        theirs: Shape = entry.load()
        return theirs
    return None


def find_backend(name: str) -> OpenBackend:
    """The function that opens a backend. Raises UsageError for an unknown name or one whose SDK is not installed."""
    from importlib import import_module
    from importlib.metadata import entry_points

    from ingot.errors import UsageError

    where = KNOWN.get(name)
    try:
        if where:
            module, _, attribute = where.partition(":")
            found: OpenBackend = getattr(import_module(module), attribute)
            return found
        for entry in entry_points(group=GROUP, name=name):
            loaded: OpenBackend = entry.load()
            return loaded
    except ImportError as error:
        hint = HINTS.get(name, "install what the backend needs")
        raise UsageError(f"the backend {name!r} cannot be loaded: {error}", hint=hint) from error
    raise UsageError(f"there is no backend {name!r}", hint=f"there are: {', '.join(names())}")
