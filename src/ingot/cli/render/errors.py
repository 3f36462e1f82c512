"""Errors as text. Pure: what is needed of files is read through `read`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ingot.cli.render.line import Line
from ingot.errors import IngotError, Problem
from ingot.telling.clean import clean

ReadLine = Callable[[str, int], str | None]
"""The text of a line of a file (1-based), or None where there is none."""

_TAIL = 20


def lines(error: IngotError, *, read: ReadLine) -> tuple[Line, ...]:
    """The error as people read it: a sentence, what is known of it, and what to do next."""
    problems: Sequence[Problem] = error.facts.get("problems") or ()
    if problems:
        said = [line for problem in problems for line in _problem(problem, read)]
        if len(problems) > 1:
            said.append((("error: ", "red"), (f"{len(problems)} problems; nothing was made", "bold")))
        return (*said, *_hint(error.hint))
    return (
        *_sentence(error.message),
        *_facts(error.facts),
        *(_note(note) for note in getattr(error, "__notes__", ())),
        *_hint(error.hint),
    )


def outcome_lines(name: str, error: Mapping[str, Any], *, log: str = "") -> tuple[Line, ...]:
    """A failed outcome: the sentence with the plan's name before it, what is known of it, and the build's own log."""
    message = str(error.get("message", ""))
    said = message if name in message else f"{name}: {message}"
    build = (_row("build", log),) if log else ()
    return (*_sentence(said), *_facts(error.get("facts") or {}), *build, *_hint(str(error.get("hint", ""))))


def _problem(problem: Problem, read: ReadLine) -> list[Line]:
    place = f"{problem.file}:{problem.line}:{problem.column}: " if problem.file else ""
    path = f"{problem.path}: " if problem.path else ""
    said: list[Line] = [((place, "bold"), ("error: ", "red"), (f"{path}{clean(problem.message)}", ""))]
    source = read(problem.file, problem.line) if problem.file and problem.line else None
    if source is not None and source.strip():
        number = f"{problem.line:>5} "
        shown = source.rstrip("\n").replace("\t", " ")
        said.append(((number, "dim"), ("| ", "dim"), (clean(shown), "")))
        if problem.column:
            said.append(((" " * len(number), ""), ("| ", "dim"), (" " * (problem.column - 1) + "^", "red")))
    if problem.hint:
        said.append((("      hint: ", "cyan"), (problem.hint, "")))
    return said


def _sentence(message: str) -> tuple[Line, ...]:
    first, *rest = message.splitlines() or [""]
    return ((("error: ", "red"), (clean(first), "bold")), *((("  ", ""), (clean(text), "")) for text in rest))


def _facts(facts: Mapping[str, Any]) -> list[Line]:
    """What a failed step tells: the task and its place, the end of its output, the log, the machine, what resumes."""
    said: list[Line] = []
    task, file = facts.get("task"), facts.get("file")
    place = f"{file}:{facts['line']}" if file and facts.get("line") else str(file or "")
    for name, value in (
        ("layer", facts.get("layer")),
        ("step", facts.get("step") if facts.get("step") != facts.get("layer") else ""),
        ("task", f"{task} ({place})" if task and place else task or place),
    ):
        if value:
            said.append(_row(name, str(value)))
    for finding in facts.get("findings") or ():
        said.append(_row("found", _finding(finding)))
    for left in facts.get("left") or ():
        said.append(_row("left", left if isinstance(left, str) else " ".join(str(part) for part in left)))
    tail = [text for text in (facts.get("tail") or ()) if str(text).strip()]
    said += [(("  │ ", "dim"), (clean(str(text)), "dim")) for text in tail[-_TAIL:]]
    for name in ("log", "console", "bundle"):
        if facts.get(name):
            said.append(_row(name, str(facts[name])))
    if facts.get("kept"):
        said.append(_row("machine", str(facts["kept"])))
    if facts.get("resume"):
        said.append(_row("again", str(facts["resume"])))
    return said


def _finding(finding: Any) -> str:
    if isinstance(finding, Mapping):
        return f"{finding.get('what', '')} in {finding.get('where', '')}"
    what, where = getattr(finding, "what", None), getattr(finding, "where", None)
    return f"{what} in {where}" if what else str(finding)


def _row(name: str, value: str) -> Line:
    return ((f"  {name:<8} ", "dim"), (clean(value), ""))


def _note(note: str) -> Line:
    return (("  also     ", "dim"), (clean(note), ""))


def _hint(hint: str) -> tuple[Line, ...]:
    return ((("hint: ", "cyan"), (clean(hint), "")),) if hint else ()
