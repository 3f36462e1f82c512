"""What the program says and returns when something went wrong."""

from __future__ import annotations

import json
import linecache
import os
import shutil
import sys
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import click

from ingot.api.outcomes import as_record, exit_code, first_of
from ingot.cli.render import errors
from ingot.cli.render.line import Line, draw
from ingot.cli.render.screen import Screen, choose
from ingot.errors import CancelledError, IngotError, UsageError


def screen_of(stream: IO[str]) -> Screen:
    """The kind of screen that a stream of ours is."""
    terminal = stream.isatty()
    columns = shutil.get_terminal_size().columns if terminal else 0
    return choose(terminal=terminal, columns=columns, environment=os.environ)


def tell(error: BaseException, argv: Sequence[str]) -> int:
    """Says what happened on stderr, as one JSON document on stdout where that was asked for; returns the code."""
    error = first_of(error)
    known = as_ours(error)
    if known is None:
        known = _bug(error)
    code = exit_code(known)
    if not known.facts.get("told"):
        show(errors.lines(known, read=read_line), stream=sys.stderr)
        if wants_json(argv):
            print_document({"error": as_data(known)})
    return code


def as_data(error: IngotError) -> dict[str, Any]:
    """The error as `--json` prints it: its record, with the facts beside message, hint and code."""
    record = as_record(error)
    return {**record.pop("facts"), **record}


def as_ours(error: BaseException) -> IngotError | None:
    """The error as one of ours, or None for what should not have happened."""
    match error:
        case IngotError():
            return error
        case click.exceptions.NoArgsIsHelpError():
            return UsageError(error.format_message())
        case click.UsageError():
            where = f"`{error.ctx.command_path} --help` shows how" if error.ctx else ""
            return UsageError(_sentence(error.format_message()), hint=where)
        case click.ClickException():
            return UsageError(_sentence(error.format_message()))
        case click.Abort() | KeyboardInterrupt():
            return CancelledError("stopped on request; nothing was changed", signal=2)
        case _:
            return None


def wants_json(argv: Sequence[str]) -> bool:
    """Whether the command line asks for JSON, also where it could not be parsed."""
    words = list(argv)
    return "--json" in (words[: words.index("--")] if "--" in words else words)


def print_document(value: object) -> None:
    """The one JSON document of a call, on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def show(lines: Sequence[Line], *, stream: IO[str] | None = None) -> None:
    """Lines on a stream, stdout unless told otherwise, coloured where it is a terminal."""
    target = sys.stdout if stream is None else stream
    target.write(draw(lines, colour=screen_of(target).colour))
    target.flush()


def read_line(file: str, number: int) -> str | None:
    """A line of a file, for showing a problem's place; None where it is not there."""
    text = linecache.getline(file, number)
    return text or None


def _sentence(text: str) -> str:
    return text[:1].lower() + text[1:].rstrip(".") if text[:2] != text[:2].upper() else text.rstrip(".")


def _bug(error: BaseException) -> IngotError:
    """The traceback goes to a file; what is said is where it lies."""
    told = "".join(traceback.format_exception(error))
    try:
        from ingot.stores.state import default_root

        folder = default_root(os.environ) / "crashes"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.txt"
        path.write_text(f"{sys.argv}\n{told}")
        kept = str(path)
    except Exception:  # no state folder, no api: then at least on the screen
        sys.stderr.write(told)
        kept = "printed above"
    said = str(error).strip().splitlines()
    what = f"{type(error).__name__}: {said[0]}" if said else type(error).__name__
    return IngotError(
        f"this is a bug in Ingot, not in your definition: {what}",
        hint=f"please report it with the traceback: {kept}",
        traceback=str(Path(kept)) if kept.startswith("/") else kept,
    )
