"""What uses images, by name: each tells in text how it is given one. Found when used, from a table.

A consumer is a function from a `Consumed` to its settings and texts; pure, so that it can be tested as data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ingot.errors import PlanError, UsageError
from ingot.model.image import Image


@dataclass(frozen=True, kw_only=True, slots=True)
class Consumed:
    """An image as those who use it know it."""

    image: Image
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of its target, as they are written."""
    containers: tuple[str, ...] = ()
    """References of the container images in it that docker has."""
    copies: Mapping[str, str] = field(default_factory=dict)
    """The same image at further locations: location → ref."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What a consumer is to be given: as values, and as the texts of files by the ending that such a file has."""

    settings: Mapping[str, Any]
    texts: Mapping[str, str]


Tell = Callable[[Consumed], Told]


@dataclass(frozen=True, kw_only=True, slots=True)
class Consumer:
    """`tell` is `module:function`; `backend` is the one whose images it takes."""

    backend: str
    tell: str


KNOWN: Mapping[str, Consumer] = {
    "dask": Consumer(backend="aws", tell="ingot.lifecycle.consumers.dask:tell"),
}


def tell(name: str, consumed: Consumed, *, suited: tuple[str, ...] = ()) -> Told:
    """What the consumer of this name is to be given. `suited` are the image's targets whose backend it takes.

    Raises PlanError for an image of another backend.
    """
    from importlib import import_module

    consumer, image = KNOWN[name], consumed.image
    if image.backend != consumer.backend:
        where = f"`--target {suited[0]}`" if suited else f"a target with `backend: {consumer.backend}`"
        raise PlanError(
            f"{name} takes images of the backend {consumer.backend!r}, and {image.name} is one of {image.backend!r}",
            hint=f"build and export it for {where}",
        )
    module, _, attribute = consumer.tell.partition(":")
    function: Tell = getattr(import_module(module), attribute)
    return function(consumed)


def choose_text(told: Told, name: str) -> str:
    """The text for a file of this name, by its ending. Raises UsageError for an ending that there is no text for."""
    found = next((text for ending, text in told.texts.items() if name.endswith(ending)), None)
    if found is None:
        raise UsageError(
            f"nothing of it goes into a file called {name!r}",
            hint=f"name one that ends in {' or '.join(told.texts)}, or leave `-o` out to see all",
        )
    return found
