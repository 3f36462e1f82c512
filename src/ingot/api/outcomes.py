"""Outcomes of plans: errors as records, records as errors, and what a whole run comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ingot import errors
from ingot.errors import IngotError, PartialError
from ingot.model.digest import plain
from ingot.model.image import LayerRecord, Outcome
from ingot.model.units import Seconds

if TYPE_CHECKING:
    from ingot.model.plan import Plan


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """What one run of `build` or `check` came to."""

    run: str
    outcomes: tuple[Outcome, ...]
    seconds: Seconds = Seconds(0.0)
    saved: Seconds = Seconds(0.0)
    """How long the layers that were reused once took to build."""
    simulated: bool = False
    """Whether all of it happened in a pretend cloud."""


def as_record(error: IngotError, **facts: Any) -> dict[str, Any]:
    """The error as an `Outcome` keeps it: kind, message, hint, code, and its facts as plain data."""
    known = {**error.facts, **facts}
    notes = tuple(getattr(error, "__notes__", ()))
    return {
        "kind": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
        "code": exit_code(error),
        "facts": {
            name: _plain(value)
            for name, value in {**known, **({"also": notes} if notes else {})}.items()
            if value not in ("", None, ()) or name in facts
        },
    }


def exit_code(error: IngotError) -> int:
    """The class's code; an interruption counts 128 and the signal's number, as shells do."""
    number = error.facts.get("signal")
    return 128 + number if isinstance(number, int) and error.exit_code == 130 else error.exit_code


def error_of(outcomes: Sequence[Outcome]) -> IngotError | None:
    """What the outcomes amount to: None, the one failure's own error, or PartialError for several."""
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    if not failed:
        return None
    if len(failed) == 1 and failed[0].error is not None:
        return _from_record(failed[0].error)
    names = ", ".join(f"{outcome.image}/{outcome.target}" for outcome in failed)
    return PartialError(f"{len(failed)} of {len(outcomes)} images failed: {names}")


def first_of(error: BaseException) -> BaseException:
    """The error that came first of a group, with the others as notes to it; any other error as it is."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    first, *others = error.exceptions
    first = first_of(first)
    for other in others:
        first.add_note(str(first_of(other)))
    return first


def failed_outcome(
    plan: Plan, record: Mapping[str, Any], *, seconds: Seconds, layers: tuple[LayerRecord, ...] = ()
) -> Outcome:
    """The outcome of a plan that came to nothing, with the layers that were finished."""
    return Outcome(
        image=plan.image,
        target=plan.target,
        backend=plan.backend,
        location=plan.location,
        status="failed",
        seconds=seconds,
        layers=layers,
        error=record,
    )


def with_error(outcome: Outcome, error: IngotError) -> Outcome:
    """The outcome with what went wrong after its image was made."""
    return replace(outcome, error=as_record(error))


def _from_record(record: Mapping[str, Any]) -> IngotError:
    kind = getattr(errors, str(record["kind"]), IngotError)
    made: IngotError = kind(str(record["message"]), hint=str(record["hint"]), **dict(record["facts"]))
    return made


def _plain(value: Any) -> Any:
    try:
        return plain(value)
    except TypeError:
        return str(value)
