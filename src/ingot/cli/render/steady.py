"""Events as lines that stay on a live screen, and the state of a run as the line that moves. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from ingot.cli.render.line import Line, Style, cut
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
    StepFinished,
    TaskFinished,
    Warned,
)
from ingot.model.units import format_bytes, format_seconds
from ingot.telling.clean import clean
from ingot.telling.plain import task_name
from ingot.telling.progress import Now

_NAME = 44
_WIDEST = 32
"""What a build's name may take of a line."""
_SPIN = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_TASK: dict[str, tuple[str, Style]] = {
    "ok": ("ok", "dim"),
    "changed": ("changed", "yellow"),
    "skipped": ("skipped", "dim"),
    "failed": ("failed", "red"),
    "ignored": ("ignored", "yellow"),
    "unreachable": ("unreachable", "red"),
    "retried": ("tried again", "yellow"),
}


def lines(now: Now, event: Event, *, verbose: int = 0) -> tuple[Line, ...]:
    """The lines that `event` adds to the screen; `now` is the state before it."""
    match event:
        case JobStarted() if event.attempt > 1:
            return ((("begun again: ", "yellow"), (f"{event.subject} as {event.run} on {event.host}", "")),)
        case BuildStarted():
            return _header(event)
        case LayerStarted():
            return _reused(now, event.index)
        case LayerFinished() if verbose or not now.complete:
            return (*_reused(now, event.index), _layer(event))
        case LayerPushed():
            return (_done("↑", event.layer, "pushed", seconds=event.seconds, size=event.bytes),)
        case BuildFinished():
            return _footer(now, event)
        case StepFinished() if verbose and event.step != now.layer:
            return ((("      ", ""), (f"step {event.step}  {format_seconds(event.seconds)}", "dim")),)
        case TaskFinished():
            return _task(event, verbose=verbose)
        case Output() if verbose > 1:
            return ((("      │ ", "dim"), (clean(event.text), "dim")),)
        case CheckFinished():
            return _check(event)
        case Warned():
            return warning(event)
        case _:
            return ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """How many builds of a run there are in each state."""

    running: int = 0
    waiting: int = 0
    done: int = 0
    failed: int = 0


def table(running: Sequence[Now], counts: Counts, at: float, *, columns: int, rows: int) -> tuple[Line, ...]:
    """Builds that go on side by side at the time `at`: a line of counts, and a line or two for each of them.

    It leaves two rows of the screen free; what does not fit is counted in a last line, the youngest first.
    """
    room = max(rows - 3, 2)
    fits = len(running) if len(running) <= room else room - 1
    named = max((len(now.plan) for now in running[:fits]), default=0)
    lines = [_counts(counts)]
    for now in running[:fits]:
        lines.append(_row(now, at, wide=min(named, _WIDEST)))
        below = _below(now)
        if below and 2 * len(running) <= room:
            lines.append((("      ", ""), (clean(below), "dim")))
    if fits < len(running):
        lines.append(((f"  … and {len(running) - fits} more", "dim"),))
    return tuple(cut(line, columns) for line in lines)


def _counts(counts: Counts) -> Line:
    styles: dict[str, Style] = {"running": "cyan", "waiting": "dim", "done": "green", "failed": "red"}
    shown: list[tuple[str, Style]] = []
    for name, style in styles.items():
        if number := getattr(counts, name):
            shown += [(" · ", "dim"), (f"{number} {name}", style)]
    return (("  ", ""), *shown[1:])


def _row(now: Now, at: float, *, wide: int) -> Line:
    """One build: its name, how long its layer takes so far, which layer of how many it is, and what it is called."""
    since = now.layer_started or now.plan_started or at
    place = f"{now.shown + 1}/{len(now.layers)}" if now.layer and now.layers else ""
    name = now.plan if len(now.plan) <= wide else f"{now.plan[: wide - 1]}…"
    return (
        (f"  {_SPIN[int(at * 10) % len(_SPIN)]} ", "cyan"),
        (f"{name:<{wide}} ", "bold"),
        (f"{format_seconds(max(at - since, 0.0)):>6} ", "cyan"),
        (f"{place:>5}  ", "dim"),
        (clean(now.layer or now.doing), ""),
    )


def current(now: Now, at: float, *, columns: int) -> tuple[Line, ...]:
    """What runs at the time `at`: two lines at most, the second for the task or the wait."""
    if not now.layer and not now.doing:
        return ()
    since = now.layer_started or now.plan_started or now.started or at
    sign = _SPIN[int(at * 10) % len(_SPIN)]
    head = now.layer or now.plan or now.doing
    first: Line = (
        (f"  {sign} ", "cyan"),
        (f"{head:<{_NAME}} ", "bold"),
        (format_seconds(max(at - since, 0.0)), "cyan"),
    )
    below = _below(now)
    second: Line = (("      ", ""), (clean(below), "dim"))
    return tuple(cut(line, columns) for line in ((first, second) if below and below != head else (first,)))


def warning(event: Warned) -> tuple[Line, ...]:
    """A warning and its hint."""
    said: Line = (("warning: ", "yellow"), (clean(event.message), ""))
    return (said, (("  hint: ", "dim"), (clean(event.hint), ""))) if event.hint else (said,)


def _below(now: Now) -> str:
    words = []
    if now.step and now.step != now.layer:
        words.append(now.step)
    if now.tasks:
        words.append(f"task {now.tasks}")
    if latest := now.doing or now.task or now.said:
        words.append(latest)
    return " · ".join(words)


def _header(event: BuildStarted) -> tuple[Line, ...]:
    count, reused = len(event.layers), event.reused
    what = f"{count} layers" if count != 1 else "1 layer"
    if reused == count:
        what += ", nothing to build"
    elif reused:
        what += f", {reused} reused"
    return ((("", ""), (event.subject, "bold"), (f"  {what}", "dim")),)


def _reused(now: Now, upto: int) -> tuple[Line, ...]:
    return tuple(
        (("  ✓ ", "green"), (f"{name:<{_NAME}} ", "dim"), ("reused", "dim"))
        for name in now.layers[now.shown : upto]
    )


def _layer(event: LayerFinished) -> Line:
    word = "pulled" if event.pulled else event.status
    return _done(
        "✓", event.layer, word, seconds=event.seconds, size=event.bytes, quiet=event.status == "reused"
    )


def _done(sign: str, layer: str, word: str, *, seconds: float, size: int, quiet: bool = True) -> Line:
    return (
        (f"  {sign} ", "green"),
        (f"{layer:<{_NAME}} ", "dim" if quiet else ""),
        (f"{word:<6}", "dim" if quiet else "green"),
        (f"{format_seconds(seconds) if seconds else '':>7} ", ""),
        (f"{format_bytes(size):>10}" if size else "", "dim"),
    )


def _footer(now: Now, event: BuildFinished) -> tuple[Line, ...]:
    took = format_seconds(event.seconds)
    if event.status == "failed":
        name = now.layer or "before its first layer"
        return ((("  ✗ ", "red"), (f"{name:<{_NAME}} ", "bold"), ("failed", "red"), (f"{took:>7}", "")),)
    return () if event.status == "reused" else ((("  ", ""), (f"built in {took}", "green")), ())


def _task(event: TaskFinished, *, verbose: int) -> tuple[Line, ...]:
    bad = event.outcome in ("failed", "unreachable")
    if not verbose and not bad:
        return ()
    word, style = _TASK[event.outcome]
    said: list[Line] = [
        (
            ("      ", ""),
            (f"{word:<8} ", style),
            (clean(task_name(event)), ""),
            (f"  {format_seconds(event.seconds)}", "dim"),
        )
    ]
    if event.message and (bad or verbose > 1):
        said += [(("        ", ""), (clean(text), style)) for text in event.message.splitlines()]
    return tuple(said)


def _check(event: CheckFinished) -> tuple[Line, ...]:
    sign: tuple[str, Style]
    match event.outcome:
        case "passed":
            sign = ("  ✓ ", "green")
        case "failed":
            sign = ("  ✗ ", "red")
        case "skipped":
            sign = ("  - ", "dim")
        case _:
            assert_never(event.outcome)
    # The name comes last: those of pytest are long.
    head: Line = (
        sign,
        (f"{event.outcome:<7}", sign[1]),
        (f"{format_seconds(event.seconds):>7}  ", "dim"),
        (clean(event.check), ""),
    )
    if event.outcome != "failed":
        return (head,)
    return (head, *((("      ", ""), (clean(text), "red")) for text in event.message.splitlines()))
