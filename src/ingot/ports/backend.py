"""One place that images live, and how it is opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ingot.model.events import Emit
from ingot.model.image import LayerRef
from ingot.model.plan import LayerKey
from ingot.model.secret import Secret
from ingot.model.units import Seconds
from ingot.ports.basics import Cancel, Resource
from ingot.ports.doctor import Doctor
from ingot.ports.machines import MachineHost
from ingot.ports.stores import BaseFinder, Exporter, ImageStore, Importer, LayerStore, Publisher
from ingot.ports.travel import LayerCarrier

if TYPE_CHECKING:
    from pydantic import BaseModel


class Backend(Protocol):
    """One place that images live. Knows nothing of plans."""

    @property
    def name(self) -> str: ...
    @property
    def location(self) -> str: ...
    @property
    def hosts(self) -> MachineHost: ...
    @property
    def images(self) -> ImageStore: ...
    @property
    def layers(self) -> LayerStore: ...
    @property
    def exporter(self) -> Exporter | None: ...
    @property
    def carrier(self) -> LayerCarrier | None: ...
    @property
    def finder(self) -> BaseFinder | None: ...
    @property
    def importer(self) -> Importer | None: ...
    @property
    def publisher(self) -> Publisher | None:
        """What the target asks to be done with finished images; None where it asks for nothing."""
        ...

    @property
    def doctor(self) -> Doctor | None:
        """What looks ahead whether builds can succeed; None where there is nothing to look at."""
        ...

    def layer(self, key: LayerKey) -> LayerRef | None:
        """The layer of this key with its whole chain intact, or None."""
        ...

    def find_layers(self, keys: Sequence[LayerKey]) -> Mapping[LayerKey, LayerRef]:
        """Those of these layers that are there, each as `layer` gives it: one call where that is one to a cloud."""
        ...

    def lock(self, key: LayerKey, *, emit: Emit, cancel: Cancel) -> AbstractContextManager[None]:
        """Held by whoever builds the layer of this key; waits for another holder, and says so."""
        ...

    def resource(self, kind: str) -> Resource:
        """The resource of a journal's record, for deleting. Raises KeyError for a kind that is not ours."""
        ...

    def strays(self, *, older_than: Seconds) -> Iterator[tuple[str, str]]:
        """(kind, ref) of temporary things found by their own marks alone, with no journal."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class BackendSettings:
    """What a backend is opened with. `state` is Ingot's state folder, `directory` the run's own."""

    state: Path
    directory: Path
    root: Path
    """The project's folder, for keyrings and base images named by path."""
    options: Mapping[str, object] = field(default_factory=dict)
    secrets: Mapping[str, Secret] = field(default_factory=dict)


OpenBackend = Callable[[BackendSettings], Backend]


class Shape(Protocol):
    """What `ingot.yaml` can say of a backend's targets and bases. Known without the backend's SDK."""

    @property
    def target(self) -> type[BaseModel]:
        """The options of a target: all keys but those that every target has."""
        ...

    @property
    def base(self) -> type[BaseModel]:
        """What a base is there."""
        ...

    def checkpoints(self, options: Mapping[str, object]) -> int | None:
        """How many layers of a build such a target keeps beside the last one; None for all of them."""
        ...

    def location(self, options: Mapping[str, object]) -> str:
        """Where the images of a target with these options live; "" where nothing says it."""
        ...


ShapeOf = Callable[[str], Shape | None]
"""The shape of the backend of this name; None for one that has none, whose options are taken as they are."""
