"""One step on one machine: within its time, tried again as often as it says, told in events."""

from __future__ import annotations

from ingot.errors import CancelledError, DeadlineError, IngotError, LeakError, ProvisionError, TransientError
from ingot.model.events import Emit, StepFinished, StepStarted, Warned
from ingot.model.secret import readable
from ingot.model.step import Step, describe
from ingot.model.units import Seconds, format_seconds
from ingot.ports import Cancel, Clock, Machine, Provisioner

_AGAIN = (ProvisionError, TransientError, DeadlineError)
_LONGEST_PAUSE = 30.0


class Deadline:
    """A cancel flag that also calls time: `check` raises DeadlineError once the seconds are over."""

    def __init__(self, cancel: Cancel, *, clock: Clock, seconds: Seconds, what: str, hint: str = "") -> None:
        self._cancel = cancel
        self._clock = clock
        self._seconds = seconds
        self._until = clock.monotonic() + seconds
        self._what = what
        self._hint = hint

    def check(self) -> None:
        self._cancel.check()
        if self._clock.monotonic() > self._until:
            raise DeadlineError(
                f"{self._what} did not end within {format_seconds(self._seconds)}",
                hint=self._hint,
                waited_for=self._what,
                seconds=self._seconds,
            )

    def wait(self, duration: Seconds) -> bool:
        left = max(0.0, self._until - self._clock.monotonic())
        return self._cancel.wait(Seconds(min(duration, left)))


def apply_step(
    step: Step,
    machine: Machine,
    *,
    subject: str,
    provisioner: Provisioner,
    clock: Clock,
    emit: Emit,
    cancel: Cancel,
) -> None:
    """Applies the step, and again after a failure as often as its `retries` allow.

    Raises what the last try raised, with the fact `step`.
    """
    name = readable(describe(step))
    subject = f"{subject}/{name}"
    for attempt in range(step.retries + 1):
        cancel.check()
        started = clock.monotonic()
        emit(StepStarted(subject=subject, step=name))
        limit = Deadline(
            cancel,
            clock=clock,
            seconds=step.timeout,
            what=f'the step "{name}"',
            hint="raise the step's `timeout` if it is only slow",
        )
        try:
            provisioner.apply(step, machine, subject=subject, emit=emit, cancel=limit)
        except BaseException as error:
            seconds = clock.monotonic() - started
            emit(StepFinished(subject=subject, step=name, seconds=seconds, failed=True))
            if isinstance(error, IngotError):
                error.facts.setdefault("step", name)
            if attempt == step.retries or not _worth_another(error):
                raise
            emit(Warned(subject=subject, message=f"{name} failed, trying again: {error}"))
            cancel.wait(Seconds(min(2.0**attempt, _LONGEST_PAUSE)))
        else:
            emit(StepFinished(subject=subject, step=name, seconds=clock.monotonic() - started))
            return


def _worth_another(error: BaseException) -> bool:
    return isinstance(error, _AGAIN) and not isinstance(error, (LeakError, CancelledError))
