"""How a pretend cloud behaves: what takes time, what is seen late, what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ingot.errors import UsageError
from ingot.model.units import Seconds, parse_seconds

CALLS = ("base", "create", "attach", "step", "scan", "freeze", "delete", "register")
"""What can be told to fail, by the name of the call to the cloud."""

_EXAMPLE = "such as `boot=20s,lag=2s,machines=3,throttle=5,fail=freeze:2`"


@dataclass(frozen=True, kw_only=True, slots=True)
class Habits:
    """All off, everything is there at once and nothing is refused."""

    boot: Seconds = Seconds(0.0)
    """How long a machine takes until it answers."""
    step: Seconds = Seconds(0.0)
    """How long a step takes."""
    freeze: Seconds = Seconds(0.0)
    """How long a layer takes until it is complete."""
    lag: Seconds = Seconds(0.0)
    """For how long a machine that was just made is not listed: clouds are consistent in the end only."""
    machines: int = 0
    """How many machines there may be at once; 0 for any number."""
    throttle: int = 0
    """Every so-manieth call is told to come again later; 0 for none."""
    faults: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """Which calls are refused, by name, counted from 1."""


def parse_habits(text: str) -> Habits:
    """Habits from `boot=20s,lag=2s,machines=3,throttle=5,fail=freeze:2`. Raises UsageError naming what is wrong."""
    known: dict[str, Seconds] = {}
    numbers: dict[str, int] = {}
    faults: dict[str, frozenset[int]] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = part.partition("=")
        match name:
            case "boot" | "step" | "freeze" | "lag":
                known[name] = _seconds(part, value)
            case "machines" | "throttle":
                numbers[name] = _count(part, value, least=1 if name == "machines" else 2)
            case "fail":
                call, _, which = value.partition(":")
                if call not in CALLS:
                    raise _wrong(part, f"{call!r} is no call; there are {', '.join(CALLS)}")
                faults[call] = faults.get(call, frozenset()) | {_count(part, which or "1", least=1)}
            case _:
                raise _wrong(
                    part,
                    f"{name!r} is not known; there are boot, step, freeze, lag, machines, throttle, fail",
                )
    return Habits(
        boot=known.get("boot", Seconds(0.0)),
        step=known.get("step", Seconds(0.0)),
        freeze=known.get("freeze", Seconds(0.0)),
        lag=known.get("lag", Seconds(0.0)),
        machines=numbers.get("machines", 0),
        throttle=numbers.get("throttle", 0),
        faults=faults,
    )


def _seconds(part: str, value: str) -> Seconds:
    try:
        return parse_seconds(value)
    except ValueError as error:
        raise _wrong(part, str(error)) from error


def _count(part: str, value: str, *, least: int) -> int:
    if not value.isdecimal() or int(value) < least:
        raise _wrong(part, f"{value!r} is not a whole number of {least} or more")
    return int(value)


def _wrong(part: str, why: str) -> UsageError:
    return UsageError(f"{part!r} tells no habit of a pretend cloud: {why}", hint=_EXAMPLE)
