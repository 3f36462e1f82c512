"""Events as plain lines, for logs and pipes: `==> slurm-node/local: [12s] layer 3/8 roles ingot.cluster.slurm`. Pure."""

from __future__ import annotations

from ingot.model.digest import short
from ingot.model.events import (
    BuildFinished,
    BuildStarted,
    CheckFinished,
    Event,
    JobStarted,
    LayerFinished,
    LayerPushed,
    LayerStarted,
    Output,
    StepStarted,
    TaskFinished,
    Waiting,
    Warned,
)
from ingot.model.units import format_bytes, format_seconds
from ingot.telling.clean import clean
from ingot.telling.progress import Now, plan_of


def lines(now: Now, event: Event, *, verbose: int = 0) -> tuple[str, ...]:
    """The lines that `event` adds; `now` is the state before it."""
    said = _words(now, event, verbose=verbose)
    if not said:
        return ()
    subject = plan_of(event.subject) or now.plan or "ingot"
    elapsed = format_seconds(max(event.at - (now.started or event.at), 0.0)) if event.at else ""
    prefix = f"==> {subject}: [{elapsed}] " if elapsed else f"==> {subject}: "
    return tuple(prefix + clean(text) for text in said)


def task_name(event: TaskFinished) -> str:
    """`role : task`, the role left out where the task's name begins with it already."""
    if event.role and not event.task.startswith(f"{event.role} : "):
        return f"{event.role} : {event.task}"
    return event.task


def _words(now: Now, event: Event, *, verbose: int) -> tuple[str, ...]:
    match event:
        case JobStarted() | LayerPushed():
            return (_elsewhere(event),)
        case BuildStarted():
            reused = f", {event.reused} reused" if event.reused else ""
            return (f"{len(event.layers)} layers{reused}",)
        case LayerStarted():
            return (f"layer {event.index + 1}/{len(now.layers)} {event.layer}",)
        case LayerFinished() if verbose or not now.complete:
            return (_layer(now, event),)
        case StepStarted() if verbose:
            return (f"step {event.step}",)
        case TaskFinished():
            return _task(event, verbose=verbose)
        case Output() if verbose > 1:
            return (f"| {event.text}",)
        case Waiting() if not now.doing or verbose > 1:
            return (f"waiting for {event.what}",)
        case CheckFinished():
            said = f"check {event.check} {event.outcome} in {format_seconds(event.seconds)}"
            return (said, *(event.message.splitlines() if event.outcome == "failed" else ()))
        case Warned():
            return (f"warning: {event.message}", *((f"hint: {event.hint}",) if event.hint else ()))
        case BuildFinished():
            digest = f", {short(event.digest)}" if event.digest else ""
            return (f"{event.status} in {format_seconds(event.seconds)}{digest}",)
        case _:
            return ()


def _elsewhere(event: JobStarted | LayerPushed) -> str:
    if isinstance(event, LayerPushed):
        return f"layer {event.layer} pushed in {format_seconds(event.seconds)}, {format_bytes(event.bytes)}"
    again = f", attempt {event.attempt}" if event.attempt > 1 else ""
    return f"runs as {event.run} on {event.host}{again}"


def _layer(now: Now, event: LayerFinished) -> str:
    place = f"layer {event.index + 1}/{len(now.layers)}"
    if event.pulled:
        return f"{place} {event.layer} pulled in {format_seconds(event.seconds)}, {format_bytes(event.bytes)}"
    if event.status == "reused":
        return f"{place} {event.layer} reused"
    return f"{place} built in {format_seconds(event.seconds)}, {format_bytes(event.bytes)}"


def _task(event: TaskFinished, *, verbose: int) -> tuple[str, ...]:
    bad = event.outcome in ("failed", "unreachable")
    if not verbose and not bad:
        return ()
    head = f"{event.outcome} {task_name(event)} ({format_seconds(event.seconds)})"
    return (head, *(event.message.splitlines() if event.message and (bad or verbose > 1) else ()))
