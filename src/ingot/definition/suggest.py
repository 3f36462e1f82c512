"""Hints for names that are almost right."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_MOST = 12


def did_you_mean(name: str, known: Iterable[str], *, noun: str = "") -> str:
    """`did you mean `partition`?`, or what there is to choose from; "" where there is nothing."""
    names = sorted(set(known))
    close = get_close_matches(name[:100], names, n=1, cutoff=0.6)
    if close:
        return f"did you mean `{close[0]}`?"
    if not names:
        return ""
    shown = ", ".join(f"`{known}`" for known in names[:_MOST])
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return f"{noun or 'there'} is {shown}{more}" if len(names) == 1 else f"known: {shown}{more}"
