"""The lock: what the outside world would move, pinned. Plain values; reading and making it is `definition.lock`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

FORMAT = 1
"""Of `ingot.lock`; a reader refuses a newer one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BasePin:
    """What a base is made from on one architecture. `pins` count in the base's key; `seen` only tells people."""

    base: str
    arch: str
    source: str
    """What of the definition the pins were found for; another one needs pins of its own."""
    pins: Mapping[str, str] = field(default_factory=dict)
    seen: Mapping[str, str] = field(default_factory=dict)
    """The date of each suite, as its archive told it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RequirementPin:
    """A collection or role of `requirements.yml`: the version asked for and the one installed ("" for none)."""

    kind: Literal["collection", "role"]
    name: str
    wanted: str = ""
    installed: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ContainerPin:
    """What the tag of a container image meant: the digest of its manifest, or of its index of several."""

    image: str
    digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Lock:
    """A whole `ingot.lock`."""

    bases: tuple[BasePin, ...] = ()
    requirements: tuple[RequirementPin, ...] = ()
    containers: tuple[ContainerPin, ...] = ()

    @property
    def digests(self) -> Mapping[str, str]:
        """The digest of each container image, by its reference."""
        return {pin.image: pin.digest for pin in self.containers}
