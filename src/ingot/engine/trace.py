"""Named moments of a build, so that tests can act, or kill, between any two effects. Without a hook, nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_hooks: list[Callable[[str], None]] = []  # the one mutable thing at module level: only tests put anything in


def point(name: str) -> None:
    """Passes the moment of this name: `before create local.machine`, `after freeze slurm`."""
    for hook in _hooks:
        hook(name)


@contextmanager
def hooked(hook: Callable[[str], None]) -> Iterator[None]:
    """Calls the hook at every moment that is passed meanwhile."""
    _hooks.append(hook)
    try:
        yield
    finally:
        _hooks.remove(hook)
