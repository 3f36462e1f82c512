"""The lock: what the outside world would move, pinned. Plain values; reading and making it is `definition.lock`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from ingot.model.units import Seconds

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
    epoch: str = ""
    """The stretch of time that the pins are good for (`2026-W46`); "" where the definition asks for no freshness."""

    @property
    def digests(self) -> Mapping[str, str]:
        """The digest of each container image, by its reference."""
        return {pin.image: pin.digest for pin in self.containers}


_MONDAY = datetime(1970, 1, 5, tzinfo=UTC)
_DAY, _WEEK = timedelta(days=1), timedelta(weeks=1)


def epoch_at(now: datetime, freshness: Seconds) -> str:
    """The name of the stretch of this length that `now` (aware) lies in; the same on every computer.

    Stretches are counted from a Monday, UTC: of seven days it is the ISO week, of whole days the first day, else the
    first minute.
    """
    length = timedelta(seconds=freshness)
    start = _MONDAY + (now - _MONDAY) // length * length
    if length == _WEEK:
        return f"{start:%G-W%V}"
    return f"{start:%Y-%m-%d}" if length % _DAY == timedelta(0) else f"{start:%Y-%m-%dT%H:%M}"


def epoch_is_over(found: str, now: str) -> bool:
    """Whether a lock of the epoch `found` needs the epoch `now`.

    A clock that is behind does not lead back to an earlier epoch of the same length.
    """
    same_form = len(found) == len(now) and ("W" in found) == ("W" in now)
    return found < now if same_form else found != now
