"""Multiplying images: which images there are once every matrix and every `from` is worked out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from ingot.definition.suggest import did_you_mean

_MOST = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One image of several: its name, its matrix values, and the image that it continues ("" for none)."""

    name: str
    values: Mapping[str, Any]
    suffixes: tuple[tuple[str, Any], ...] = ()
    """The axes that its name shows."""
    parent: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """An image as written: its own axes, and the text of its `from` for given matrix values ("" for none)."""

    axes: Mapping[str, tuple[Any, ...]]
    parent: Callable[[Mapping[str, Any]], str]


Tell = Callable[[str, str, str], None]
"""Hears (image, message, hint)."""


def multiply(written: Mapping[str, Written], tell: Tell) -> dict[str, tuple[Variant, ...]]:
    """The variants of each written image, parents first; an image that cannot be worked out has none, and is told."""
    work = _Multiplying(written=written, tell=tell)
    for name in written:
        work.expand(name)
    return work.done


@dataclass(slots=True)
class _Multiplying:
    written: Mapping[str, Written]
    tell: Tell
    done: dict[str, tuple[Variant, ...]] = field(default_factory=dict)
    open: list[str] = field(default_factory=list)

    def expand(self, name: str) -> tuple[Variant, ...]:
        if name in self.done:
            return self.done[name]
        if name in self.open:
            circle = " → ".join([*self.open[self.open.index(name) :], name])
            self.tell(name, f"`from` runs in a circle: {circle}", "one of them needs a `base` instead")
            return ()
        if len(self.open) > 50:
            self.tell(name, "`from` is more than 50 images deep", "begin some of them with a `base`")
            return ()
        self.open.append(name)
        found = self._variants(name)
        self.open.pop()
        self.done[name] = found
        return found

    def _variants(self, name: str) -> tuple[Variant, ...]:
        image, found = self.written[name], []
        count, parents = 1, 0
        for choices in image.axes.values():
            count *= len(choices)
        if count > _MOST:
            self.tell(name, f"the matrix makes more than {_MOST} images", "split the image in several")
            return ()
        for combination in product(*image.axes.values()):
            own = dict(zip(image.axes, combination, strict=True))
            parent = image.parent(own)
            if not parent:
                found.append(self._named(name, own, tuple(own.items()), ""))
                continue
            for above in self._parents(name, parent):
                parents += 1
                if any(above.values.get(axis, value) != value for axis, value in own.items()):
                    continue
                axes = above.suffixes if parent in self.written else ()
                shown = (*axes, *((axis, value) for axis, value in own.items() if axis not in dict(axes)))
                found.append(self._named(name, {**above.values, **own}, shown, above.name))
            if len(found) > _MOST:
                self.tell(
                    name,
                    f"its matrix and its parent's make more than {_MOST} images",
                    "split the image in several",
                )
                return ()
        if parents and not found:
            self.tell(
                name, "none of its matrix values is one of its parent's", "use values that the parent has"
            )
        return tuple(found)

    def _named(
        self, name: str, values: Mapping[str, Any], suffixes: tuple[tuple[str, Any], ...], parent: str
    ) -> Variant:
        full = "-".join([name, *(str(value) for _, value in suffixes)])
        return Variant(name=full, values=values, suffixes=suffixes, parent=parent)

    def _parents(self, name: str, parent: str) -> tuple[Variant, ...]:
        """The images that `from: parent` means: all of a multiplied image, or a single one by its full name."""
        if parent in self.written:
            return self.expand(parent)
        for other in sorted(self.written, key=len, reverse=True):
            if parent.startswith(f"{other}-") and other not in self.open:
                for variant in self.expand(other):
                    if variant.name == parent:
                        return (variant,)
        known = {variant.name for variants in self.done.values() for variant in variants} | set(self.written)
        hint = did_you_mean(parent, known - {name}) or "describe it under `images`"
        self.tell(name, f"there is no image `{parent}`", hint)
        return ()
