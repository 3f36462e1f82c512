"""What a run is doing now, folded out of its events. Pure: the clock is the events' own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ingot.model.events import (
    BuildFinished,
    BuildStarted,
    CheckFinished,
    Event,
    LayerFinished,
    LayerPushed,
    LayerStarted,
    Output,
    Progress,
    RunFinished,
    StepFinished,
    StepStarted,
    TaskFinished,
    Waiting,
)
from ingot.model.units import format_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Now:
    """The state of the screen. Times are UTC seconds since the epoch, 0 where nothing started yet."""

    started: float = 0.0
    plan: str = ""
    plan_started: float = 0.0
    layers: tuple[str, ...] = ()
    complete: bool = False
    """Whether all its layers were there when it began."""
    shown: int = 0
    """How many layers, from the first on, have their line on the screen."""
    layer: str = ""
    layer_started: float = 0.0
    step: str = ""
    tasks: int = 0
    task: str = ""
    doing: str = ""
    """What else is going on: a wait or a long transfer."""
    said: str = ""
    """The last line of output."""
    checks: Mapping[str, int] = field(default_factory=dict)


def plan_of(subject: str) -> str:
    """`image/target` of a longer subject."""
    return "/".join(subject.split("/", 2)[:2])


def fold(now: Now, event: Event) -> Now:
    """The state after the event."""
    now = replace(now, started=now.started or event.at)
    match event:
        case BuildStarted():
            plan = plan_of(event.subject)
            complete = event.reused == len(event.layers)
            fresh = replace(_idle(now), plan=plan, plan_started=event.at, layers=event.layers)
            return replace(fresh, complete=complete, shown=0)
        case LayerStarted():
            shown = max(now.shown, event.index)
            return replace(_idle(now), layer=event.layer, layer_started=event.at, shown=shown)
        case LayerFinished():
            return replace(_idle(now), shown=max(now.shown, event.index + 1))
        case LayerPushed():
            return _idle(now)
        case StepStarted() | StepFinished():
            step = event.step if isinstance(event, StepStarted) else ""
            return replace(now, step=step, tasks=0, task="", doing="", said="")
        case TaskFinished():
            return replace(now, tasks=now.tasks + 1, task=event.task, doing="")
        case Progress():
            return replace(now, doing=_progress(event))
        case Waiting():
            return replace(now, doing=f"waiting for {event.what}")
        case Output():
            return replace(now, said=event.text.strip() or now.said)
        case CheckFinished():
            counted = {**now.checks, event.outcome: now.checks.get(event.outcome, 0) + 1}
            return replace(now, checks=counted, doing=f"check {event.check}")
        case BuildFinished() | RunFinished():
            return replace(_idle(now), plan="", layers=())
        case _:
            return now


def _idle(now: Now) -> Now:
    return replace(now, layer="", layer_started=0.0, step="", tasks=0, task="", doing="", said="")


def _progress(event: Progress) -> str:
    def amount(value: int) -> str:
        return format_bytes(value) if event.unit == "B" else f"{value} {event.unit}".strip()

    if event.total:
        return f"{event.what} {amount(event.done)} of {amount(event.total)}"
    return f"{event.what} {amount(event.done)}" if event.done else event.what
