"""The port of whoever looks, before anything is made, whether a backend can do what will be asked of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ingot.model.definition import Arch
from ingot.model.diagnosis import Diagnosis
from ingot.model.plan import Base
from ingot.model.units import Bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What a build of one image will ask of a backend. The base may lack its pins."""

    project: str
    image: str
    arch: Arch
    disk: Bytes
    base: Base
    machines: frozenset[str] = frozenset()
    """The kinds of machines that its steps and checks ask for, where a backend has several."""


class Doctor(Protocol):
    """Looks in seconds; nothing is made, changed or paid for."""

    def examine(self, wanted: Sequence[Wanted]) -> Iterator[Diagnosis]:
        """What was found, in an order that tells causes first. Raises nothing: what cannot be seen is a finding."""
        ...

    def policy(self, wanted: Sequence[Wanted]) -> Mapping[str, object] | None:
        """The least that the user's credentials must allow, as the backend's own document; None where there is no such."""
        ...
