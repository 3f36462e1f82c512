"""Why a layer is built anew: the first field that differs between the plan of the last build and this one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from ingot.model.digest import plain, short
from ingot.model.plan import Layer, LayerKey, Plan
from ingot.model.secret import readable, secret_names
from ingot.model.step import (
    CloudInitStep,
    ContainersStep,
    FilesStep,
    PackagesStep,
    PlaybookStep,
    RebootStep,
    RolesStep,
    ScriptStep,
    SealStep,
)
from ingot.model.units import format_bytes

_LONGEST = 48
_STEP_TYPES = (
    PackagesStep,
    RolesStep,
    PlaybookStep,
    ScriptStep,
    FilesStep,
    CloudInitStep,
    ContainersStep,
    RebootStep,
    SealStep,
)
_HOW = {f.name for kind in _STEP_TYPES for f in fields(kind) if f.metadata.get("key", True) is False}

Json = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerNews:
    """What a build will do about one layer, and why."""

    name: str
    key: LayerKey
    status: Literal["hit", "miss"]
    reason: str = ""
    """Of a miss: the first thing that changed. Of a hit: that it is not here but in the cache, what was not compared."""


def explain(
    plan: Plan,
    *,
    previous: Json | None,
    have: Callable[[LayerKey], bool],
    cached: Collection[LayerKey] = (),
) -> tuple[LayerNews, ...]:
    """News of every layer, base first. `previous` is the plain JSON of the plan of the last build; `cached` are layers
    that a build would pull rather than make.

    A layer is a hit where it or one above it is there, for the build starts from the deepest that is.
    """
    keys = [plan.base.key, *(layer.key for layer in plan.layers)]
    there = next(
        (index for index in reversed(range(len(keys))) if keys[index] in cached or have(keys[index])), -1
    )
    old_layers = {str(layer.get("name")): layer for layer in (previous or {}).get("layers", ())}
    news = [_base_news(plan, (previous or {}).get("base"), hit=there >= 0, cached=keys[0] in cached)]
    parent_name = plan.base.name
    for index, layer in enumerate(plan.layers, start=1):
        if index <= there:
            told = (_IN_CACHE if layer.key in cached else "", _not_compared(layer))
            status, reason = "hit", "; ".join(filter(None, told))
        else:
            gone = _GONE if layer.keep else _NOT_KEPT
            status, reason = "miss", _why(plain(layer), old_layers.get(layer.name), parent_name, gone=gone)
        news.append(_news(layer.name, layer.key, status, reason))
        parent_name = layer.name
    return tuple(news)


def _base_news(plan: Plan, old: Json | None, *, hit: bool, cached: bool) -> LayerNews:
    base = plan.base
    if hit:
        return _news(base.name, base.key, "hit", _IN_CACHE if cached else "")
    if old is None or old.get("name") != base.name:
        return _news(base.name, base.key, "miss", "never built")
    new = plain(base)
    ways = {"source": "", "arch": "arch", "disk": "disk", "pins": "pins"}
    changes = (change for name, path in ways.items() for change in _changes(path, old.get(name), new[name]))
    return _news(base.name, base.key, "miss", next(changes, _GONE))


_IN_CACHE = "in the cache"
_GONE = "was built before, but is no longer there"
_NOT_KEPT = "is not kept there; made again with what follows"


def _news(name: str, key: LayerKey, status: str, reason: str) -> LayerNews:
    return LayerNews(name=name, key=key, status="hit" if status == "hit" else "miss", reason=readable(reason))


def _why(new: Json, old: Json | None, parent: str, *, gone: str) -> str:
    if old is None:
        return "never built"
    change = next(_layer_changes(old, new), "")
    if change:
        return change
    if old["key"] == new["key"]:
        return gone
    if old["parent"] != new["parent"]:
        return f"parent changed ({parent})"
    return "made by another version of Ingot"


def _layer_changes(old: Json, new: Json) -> Iterator[str]:
    yield from _changes("disk", old.get("grow"), new.get("grow"))
    yield from _changes("rev", old.get("revs", {}), new.get("revs", {}))
    before, after = list(old.get("steps", ())), list(new.get("steps", ()))
    for left, right in zip(before, after, strict=False):
        if left.get("kind") != right.get("kind"):
            yield f"step {left.get('kind')} → {right.get('kind')}"
            return
        yield from _step_changes(left, right)
    for step in after[len(before) :]:
        yield f"step {step.get('kind')} added"
    for step in before[len(after) :]:
        yield f"step {step.get('kind')} removed"


def _step_changes(old: Json, new: Json) -> Iterator[str]:
    """What counts and differs; of files read, the names; before the digest that they amount to."""
    for name in new:
        if name in _HOW or name == "content" or old.get(name) == new.get(name):
            continue
        yield from _changes(_word(name, new), old.get(name), new[name])
    if old.get("content") != new.get("content"):
        yield from _read_changes(old.get("reads") or (), new.get("reads") or ())
        path = new.get("path") or new.get("src") or "content"
        yield f"{path} changed"


def _word(name: str, step: Json) -> str:
    """What people call the field: packages are just `packages`, the lock's epoch is what `freshness` made of it."""
    if name == "epoch":
        return "freshness"
    return "packages" if name == "install" else f"{step['kind']}.{name}" if name == "remove" else name


def _read_changes(old: Sequence[Sequence[str]], new: Sequence[Sequence[str]]) -> Iterator[str]:
    before = {entry[0]: entry[1] for entry in old}
    after = {entry[0]: entry[1] for entry in new}
    for path in sorted(before.keys() | after.keys()):
        if path not in before:
            yield f"{path} added"
        elif path not in after:
            yield f"{path} removed"
        elif before[path] != after[path]:
            yield f"{path} changed"


def _changes(path: str, old: Any, new: Any) -> Iterator[str]:
    """`path: old → new` for the first leaf that differs; lists of words as `+ added - removed`."""
    if old == new:
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in [*new, *(name for name in old if name not in new)]:
            inner = f"{path}.{name}" if path else str(name)
            yield from _changes(inner, old.get(name), new.get(name))
        return
    if isinstance(old, list) and isinstance(new, list) and (words := _list_change(old, new)):
        yield f"{path}: {words}"
        return
    yield f"{path}: {_shown(path, old)} → {_shown(path, new)}"


def _list_change(old: list[Any], new: list[Any]) -> str:
    added = [f"+ {item}" for item in new if item not in old]
    removed = [f"- {item}" for item in old if item not in new]
    if not all(isinstance(item, str) for item in (*old, *new)):
        return ""
    words = [*added, *removed] or ["order changed"]
    return ", ".join(words[:4]) + (f" and {len(words) - 4} more" if len(words) > 4 else "")


def _shown(path: str, value: Any) -> str:
    if value is None:
        return "nothing"
    if path == "disk" and isinstance(value, int):
        return format_bytes(value)
    if isinstance(value, str) and value.startswith("sha256:"):
        return short(value)
    text = str(value).replace("\n", "⏎") if value != "" else '""'
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _not_compared(layer: Layer) -> str:
    names = sorted(secret_names(plain(layer.steps)))
    if not names:
        return ""
    return f"secret {', '.join(names)}: value not compared"
