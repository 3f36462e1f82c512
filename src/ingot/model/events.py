"""Events: what the user may see, as frozen values given to `emit`. Sinks draw, print or store them.

`subject` is what the event is about: `slurm-node/local` or `slurm-node/local/packages htop`. `at` is UTC seconds
since the epoch, stamped by the sink's edge (`engine.run`), so that code that emits needs no clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ingot.model.digest import plain


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    subject: str = ""
    at: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class RunStarted(Event):
    run: str
    verb: str
    plans: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFinished(Event):
    run: str
    seconds: float
    exit_code: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class JobStarted(Event):
    """A build of this run goes on as a run of its own, in another process or on another computer."""

    run: str
    host: str
    attempt: int = 1
    """More than 1 where whoever ran it before was lost."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildStarted(Event):
    layers: tuple[str, ...]
    """Names of all layers, base first."""
    reused: int
    """How many of them, from the first on, are there already."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildFinished(Event):
    status: str
    seconds: float
    digest: str = ""
    ref: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerStarted(Event):
    layer: str
    index: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerFinished(Event):
    layer: str
    index: int
    status: Literal["built", "reused"]
    seconds: float
    bytes: int = 0
    pulled: bool = False
    """Whether a reused one came from the shared cache."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerPushed(Event):
    """A layer was given to the shared cache; `bytes` is what was sent of it, packed."""

    layer: str
    seconds: float
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class StepStarted(Event):
    step: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StepFinished(Event):
    step: str
    seconds: float
    failed: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskFinished(Event):
    """One Ansible task's result on the machine (or on the controller, where delegated)."""

    task: str
    outcome: Literal["ok", "changed", "skipped", "failed", "ignored", "unreachable", "retried"]
    seconds: float
    role: str = ""
    file: str = ""
    line: int = 0
    message: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Output(Event):
    """A line of output of whatever runs now."""

    text: str
    stream: Literal["stdout", "stderr", "console"] = "stdout"


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress(Event):
    """How far something long has come; `total` 0 where unknown. `unit`: `B` or a plural noun."""

    what: str
    done: int
    total: int = 0
    unit: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting(Event):
    what: str
    seconds: float
    deadline: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ResourceOpened(Event):
    kind: str
    ref: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ResourceClosed(Event):
    kind: str
    ref: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ResourceKept(Event):
    """Left as it is after its run, until then (seconds since the epoch)."""

    kind: str
    ref: str
    until: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRegistered(Event):
    image: str
    ref: str
    digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckFinished(Event):
    check: str
    outcome: Literal["passed", "failed", "skipped"]
    seconds: float
    message: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Warned(Event):
    message: str
    hint: str = ""


Emit = Callable[[Event], None]


def as_json(event: Event) -> dict[str, object]:
    """The event as one JSON object, its class name under `event`."""
    return {"event": type(event).__name__, **plain(event)}


def ignore(event: Event) -> None:
    """The sink of those who do not listen."""
