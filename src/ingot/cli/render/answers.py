"""What verbs answer, as lines. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ingot.cli.render import errors
from ingot.cli.render.line import Line, Span, Style, width
from ingot.cli.render.tables import Cell, pairs, table
from ingot.model.digest import short
from ingot.model.units import format_bytes, format_seconds

if TYPE_CHECKING:  # only named here: making these classes takes longer than drawing them
    from ingot.api.outcomes import Built
    from ingot.model.image import CheckRun, Outcome
    from ingot.model.views import (
        Begun,
        Exported,
        Garbage,
        Inspected,
        Listed,
        Locked,
        Planned,
        PlannedLayer,
        SeenRun,
        Usage,
        Valid,
    )

_STATES: dict[str, Style] = {"failed": "red", "interrupted": "yellow", "running": "cyan", "done": "green"}
_CHECKS: dict[str, Style] = {"passed": "green", "failed": "red", "not run": "dim"}


def begun(value: Begun, *, dry_run: bool) -> tuple[Line, ...]:
    """The files of a new project and what to type next."""
    if not value.files:
        return ((("nothing to write: ", "dim"), (f"{value.folder} has all of it already", "")),)
    verb = "would write" if dry_run else "wrote"
    head: Line = ((f"{verb} ", "green"), (str(value.folder), "bold"))
    files: list[Line] = [(("  ", ""), (name, "")) for name in value.files]
    away = "" if str(value.folder) == "." else f"cd {value.folder} && "
    return (head, *files, (("next: ", "cyan"), (f"{away}ingot build", "")))


def valid(value: Valid) -> tuple[Line, ...]:
    """That a definition has no mistakes, and what is in it."""
    head: Line = (
        ("✓ ", "green"),
        (value.name, "bold"),
        (f": {_count(len(value.images), 'image')}, no mistakes", ""),
    )
    rows: list[tuple[str, Cell]] = [
        (f"  {name}", (", ".join(targets), "dim")) for name, targets in value.images.items()
    ]
    given = [f"{name} ({origin})" for name, origin in value.variables.items() if origin != "default"]
    warned: list[Line] = [(("warning: ", "yellow"), (warning, "")) for warning in value.warnings]
    return (*warned, head, *pairs(rows), *_labelled("  variables  ", ", ".join(given)))


def planned(values: Sequence[Planned], *, verbose: int) -> tuple[Line, ...]:
    """Each plan's layers; those that are there in one line unless `verbose`."""
    lines: list[Line] = []
    for value in values:
        lines += _plan(value, verbose=verbose)
    todo = sum(value.to_build for value in values)
    count = sum(len(value.layers) for value in values)
    if todo:
        lines.append(((f"{todo} of {count} layers to build", "bold"), ("  ingot build does it", "dim")))
    else:
        lines.append((("nothing to build", "green"), (f": all {count} layers are there", "")))
    return tuple(lines)


def outcomes(value: Built) -> tuple[Line, ...]:
    """One line for each image that came to be, where it lies, and how much time was saved."""
    lines: list[Line] = []
    for outcome in value.outcomes:
        if outcome.digest:
            lines += _outcome(outcome)
    if value.simulated:
        lines.append((("simulated: nothing was made or recorded", "dim"),))
    if value.saved >= 1:
        lines.append(((f"reused layers saved {format_seconds(value.saved)}", "dim"),))
    return tuple(lines)


def _outcome(value: Outcome) -> list[Line]:
    version = f"  version {value.version}" if value.version is not None else ""
    sign: Span = ("✓ ", "green") if value.error is None else ("✗ ", "red")
    head: Line = (
        sign,
        (f"{value.image}/{value.target}", "bold"),
        (version, ""),
        (f"  {short(value.digest)}", "dim"),
        (f"  {format_seconds(value.seconds)}", "dim"),
    )
    lines = [head]
    if value.checks:
        lines.append((("  checks  ", "dim"), _check_count(value.checks)))
    return [
        *lines,
        *_labelled("  image   ", value.ref),
        *_labelled("  log     ", "" if value.error else value.log),
    ]


def failures(values: Sequence[Outcome]) -> tuple[Line, ...]:
    """What went wrong with each that failed, and how to go on."""
    lines: list[Line] = []
    for value in values:
        if value.error is not None:
            lines += errors.outcome_lines(f"{value.image}/{value.target}", value.error, log=value.log)
    return tuple(lines)


def listed(values: Sequence[Listed], *, columns: int = 0) -> tuple[Line, ...]:
    """The catalog's images as a table; where they lie too, if that fits on the screen."""
    if not values:
        return ((("nothing was built yet", ""), ("  ingot build", "dim")),)
    rows: list[tuple[Cell, ...]] = [
        (
            (value.image, "bold"),
            value.target,
            str(value.version),
            (short(value.digest), "dim"),
            format_bytes(value.size),
            _day(value.created),
            (value.checks, _CHECKS[value.checks]),
            (value.ref, "dim"),
        )
        for value in values
    ]
    heads = ("image", "target", "version", "digest", "disk", "built", "checks", "ref")
    whole = table(heads, rows, right=(2, 4))
    if not columns or max(width(line) for line in whole) <= columns:
        return whole
    return table(heads[:-1], [row[:-1] for row in rows], right=(2, 4), columns=columns)


def inspected(value: Inspected, *, verbose: int) -> tuple[Line, ...]:
    """All that is known of an image; its packages too with `verbose`."""
    seen = value.listed
    taken = sum(layer.bytes for layer in value.layers)
    rows: list[tuple[str, Cell]] = [
        ("image", (f"{seen.image}@{seen.version}", "bold")),
        ("project", seen.project),
        ("target", f"{seen.target} ({seen.backend}, {seen.location})"),
        ("digest", seen.digest),
        ("ref", seen.ref),
        ("built", f"{_day(seen.created)}  run {seen.run}" if seen.run else _day(seen.created)),
        ("ingot", value.ingot),
        ("disk", f"{format_bytes(seen.size)}, its layers take {format_bytes(taken)}"),
        ("arch", seen.arch),
        ("system", value.os_release.get("PRETTY_NAME", "")),
        ("kernel", value.kernel),
        ("packages", str(len(value.packages)) if value.packages else ""),
        ("layers", str(len(value.layers))),
        ("checks", _check_count(value.checks[-1]) if value.checks else ("not run", "dim")),
    ]
    lines = list(pairs(rows))
    if value.checks:
        lines += [
            (("  ✗ ", "red"), (result.name, ""), (f"  {result.message}", "dim"))
            for result in value.checks[-1].results
            if result.outcome == "failed"
        ]
    if verbose:
        named: list[tuple[Cell, ...]] = [
            (package.name, package.version, (package.arch, "dim")) for package in value.packages
        ]
        lines += [(("", ""),), *table(("package", "version", "arch"), named)]
    return tuple(lines)


def history(value: Inspected, *, columns: int) -> tuple[Line, ...]:
    """An image's layers as a table, the base first."""
    head: Line = (
        (f"{value.listed.image}@{value.listed.version}", "bold"),
        (f"  {value.listed.target}  built {_day(value.listed.created)}", "dim"),
    )
    rows: list[tuple[Cell, ...]] = [
        (
            layer.name,
            format_bytes(layer.bytes),
            format_seconds(layer.seconds) if layer.status == "built" else "",
            (layer.status, "green" if layer.status == "built" else "dim"),
            (short(layer.key), "dim"),
        )
        for layer in value.layers
    ]
    return (head, *table(("layer", "size", "time", "", "key"), rows, right=(1, 2), columns=columns))


def runs(values: Sequence[SeenRun], *, columns: int) -> tuple[Line, ...]:
    """Runs as a table, the newest first."""
    if not values:
        return ((("no runs yet", ""),),)
    rows: list[tuple[Cell, ...]] = [
        (
            (value.id, "bold"),
            value.verb,
            (value.state, _STATES.get(value.state, "")),
            format_seconds(value.seconds) if value.exit_code is not None else "",
            (" ".join(value.plans), "dim"),
        )
        for value in values
    ]
    return table(("run", "verb", "state", "time", "images"), rows, right=(3,), columns=columns)


def living(values: Sequence[SeenRun], *, columns: int) -> tuple[Line, ...]:
    """The runs that go on, and what each of them holds."""
    if not values:
        return ((("nothing runs", ""),),)
    held: list[Line] = [
        ((f"  {value.id}  ", "dim"), (thing, "yellow" if value.state == "interrupted" else ""), *_kept(value))
        for value in values
        for thing in value.held
    ]
    dead = any(value.state != "running" and not value.kept_until for value in values)
    kept = any(value.kept_until for value in values)
    hints = [
        *(["`ingot sweep` removes what interrupted runs left"] if dead else []),
        *(["`ingot ssh RUN` enters a kept machine, `ingot cancel RUN` removes it"] if kept else []),
    ]
    return (*runs(values, columns=columns), *held, *(((hint, "dim"),) for hint in hints))


def _kept(value: SeenRun) -> Line:
    return ((f"  kept until {value.kept_until}", "yellow"),) if value.kept_until else ()


def run(value: SeenRun) -> tuple[Line, ...]:
    """One run's headline: what it was, how it ended, and where all that it left lies."""
    took = f" in {format_seconds(value.seconds)}" if value.exit_code is not None else ""
    head: Line = (
        (value.id, "bold"),
        (f"  {value.verb} {' '.join(value.plans)}".rstrip(), ""),
        (f"  {value.state}{took}", _STATES.get(value.state, "")),
    )
    logs = [line for log in value.logs for line in _labelled("  log  ", log)]
    return (head, *_labelled("  ", str(value.folder)), *logs)


def exported(value: Exported, *, dry_run: bool) -> tuple[Line, ...]:
    """Where the disk was written, its size and checksum."""
    if dry_run:
        return ((("would write ", ""), (str(value.path), "bold"), (f"  {value.format}", "dim")),)
    facts = f"  {value.format}, {format_bytes(value.bytes)}, {format_seconds(value.seconds)}"
    return ((("✓ ", "green"), (str(value.path), "bold"), (facts, "dim")),)


def usage(value: Usage, *, dry_run: bool) -> tuple[Line, ...]:
    """Where the text was written; without a file the texts themselves, to be copied."""
    if value.path is not None:
        verb = "would write " if dry_run else "✓ "
        return (
            ((verb, "" if dry_run else "green"), (str(value.path), "bold"), (f"  {value.format}", "dim")),
        )
    texts = "\n".join(value.texts.values())
    return tuple(((line, ""),) for line in texts.splitlines())


def locked(value: Locked, *, dry_run: bool) -> tuple[Line, ...]:
    """What changed in the lock, a line each."""
    changes: list[Line] = [(("  ", ""), (change, "")) for change in value.changes]
    if not changes:
        return (
            (
                ("✓ ", "green"),
                (f"{value.path.name} has all {value.pins} pins", ""),
                ("  nothing moved", "dim"),
            ),
        )
    verb = "would write" if dry_run else "wrote"
    return (((f"{verb} ", "green"), (str(value.path), "bold"), (f"  {value.pins} pins", "dim")), *changes)


def garbage(value: Garbage, *, done: bool, columns: int) -> tuple[Line, ...]:
    """The layers that go and why, and what stays."""
    if not value.drops and not value.runs:
        return ((("nothing to remove", "green"), (f"; layers take {format_bytes(value.kept)}", "dim")),)
    rows: list[tuple[Cell, ...]] = [
        (
            drop.image or drop.name or short(drop.key),
            format_bytes(drop.bytes),
            (short(drop.key), "dim"),
            (drop.reason, "dim"),
        )
        for drop in value.drops
    ]
    freed = sum(drop.bytes for drop in value.drops)
    logs = f" and the logs of {_count(len(value.runs), 'old run')}" if value.runs else ""
    verb = "removed" if done else "would remove"
    last: Line = (
        (f"{verb} {_count(len(value.drops), 'layer')}, {format_bytes(freed)}{logs}", "bold"),
        (f"; {format_bytes(value.kept)} stay", "dim"),
    )
    return (*table(("layer", "size", "key", "why"), rows, right=(1,), columns=columns), last)


def swept(removed: Sequence[str], left: Sequence[str], *, dry_run: bool) -> tuple[Line, ...]:
    """What was removed and what is still there."""
    if not removed and not left:
        return ((("nothing was left behind", "green"),),)
    gone: list[Line] = [(("removed ", "green"), (each, "")) for each in removed]
    word = "would remove" if dry_run else "still there"
    rest: list[Line] = [((f"{word} ", "yellow"), (each, "")) for each in left]
    return (*gone, *rest)


def _plan(value: Planned, *, verbose: int) -> list[Line]:
    head: Line = (
        (f"{value.image}/{value.target}", "bold"),
        (f"  {value.arch}, {format_bytes(value.disk)}", "dim"),
    )
    wide = min(max(len(layer.name) for layer in value.layers), 44)
    lines = [head]
    for layer in value.layers:
        lines.append(_planned_layer(layer, wide))
        if verbose:
            lines.append((("      ", ""), (layer.key, "dim")))
    return [*lines, (("", ""),)]


def _planned_layer(layer: PlannedLayer, wide: int) -> Line:
    hit = layer.status == "hit"
    sign: Span = ("  ✓ ", "green") if hit else ("  + ", "yellow")
    word: Span = ("hit ", "dim") if hit else ("miss", "yellow")
    return (sign, (f"{layer.name:<{wide}}  ", "dim" if hit else ""), word, (f"  {layer.reason}", "dim"))


def _check_count(run: CheckRun) -> Span:
    passed = sum(result.outcome == "passed" for result in run.results)
    failed = sum(result.outcome == "failed" for result in run.results)
    skipped = len(run.results) - passed - failed
    words = [f"{passed} passed", *([f"{failed} failed"] if failed else [])]
    words += [f"{skipped} skipped"] if skipped else []
    where = f" ({run.machine}, booted in {format_seconds(run.boot_seconds)})" if run.machine else ""
    text = ", ".join(words) + where
    return (text, "green" if run.passed else "red")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _labelled(label: str, value: str) -> tuple[Line, ...]:
    return (((label, "dim"), (value, "")),) if value else ()


def _day(created: str) -> str:
    """`2026-01-31 12:00` of an ISO time, UTC."""
    return created[:16].replace("T", " ")
