"""What becomes of a machine on which a step has failed."""

from __future__ import annotations

import json

import pytest

from ingot.backends.memory.backend import MemoryBackend
from ingot.engine.work import Answer, OnError
from ingot.errors import BackendError, CancelledError, IngotError, ProvisionError
from ingot.model.events import ResourceClosed, ResourceKept
from ingot.model.units import Seconds

from .bench import Workshop


def fail_at(workshop: Workshop, name: str, error: IngotError, *, times: int = 1) -> None:
    """Has the step of this name fail, so often."""
    left = [error] * times

    def hook(step: str) -> None:
        if name in step and left:
            raise left.pop()

    workshop.step_fault = hook


def always(answer: Answer, *, keep_for: float = 3600.0) -> OnError:
    return OnError(decide=lambda error: answer, keep_for=Seconds(keep_for))


def journal(workshop: Workshop) -> list[str]:
    """What the journals of all runs say is done, in order."""
    lines = [line for path in workshop.runs.glob("*/journal*") for line in path.read_text().splitlines()]
    return [json.loads(line)["do"] for line in lines]


def test_a_kept_machine_outlives_its_run_and_sweeps(workshop: Workshop) -> None:
    fail_at(workshop, "slurmd", ProvisionError("no such package"))
    with pytest.raises(ProvisionError) as failed:
        workshop.build(on_error=always("keep"))
    (kept,) = workshop.told(ResourceKept)
    assert isinstance(kept, ResourceKept) and kept.until == failed.value.facts["kept_until"]
    assert workshop.store.shelf.machines() == [kept.ref]
    assert workshop.sweep().removed == ()
    assert workshop.build().status == "built", "the next build sweeps, and leaves it"
    assert workshop.store.shelf.machines() == [kept.ref]
    run = kept.ref.removeprefix("ingot-").rpartition("-")[0]
    assert len(workshop.sweep(names=[run]).removed) == 1
    assert workshop.store.shelf.machines() == []


def test_a_kept_machine_goes_when_its_time_is_over(workshop: Workshop) -> None:
    fail_at(workshop, "slurmd", ProvisionError("no such package"))
    with pytest.raises(ProvisionError):
        workshop.build(on_error=always("keep", keep_for=-1.0))
    assert len(workshop.store.shelf.machines()) == 1
    assert len(workshop.sweep().removed) == 1
    assert workshop.store.shelf.machines() == []


def test_retry_does_the_step_again_on_the_same_machine(workshop: Workshop) -> None:
    fail_at(workshop, "slurmd", ProvisionError("the mirror is away"), times=2)
    assert workshop.build(on_error=always("retry")).status == "built"
    assert workshop.counts["machines"] == 1
    assert [name for name in workshop.applied if "slurmd" in name] == ["packages slurmd"]


def test_an_interruption_is_nobodys_to_decide(workshop: Workshop) -> None:
    fail_at(workshop, "slurmd", CancelledError("stopped"))
    with pytest.raises(CancelledError):
        workshop.build(on_error=always("keep"))
    assert workshop.store.shelf.machines() == []
    assert journal(workshop)[-1] == "shut"


class Unkeepable(MemoryBackend):
    """A cloud whose machines cannot stay."""

    def keep(self, ref: str, until: float) -> None:
        raise BackendError("it will not stay")


def test_one_that_cannot_be_kept_is_removed_and_that_is_told(workshop: Workshop) -> None:
    workshop.cloud = Unkeepable
    fail_at(workshop, "slurmd", ProvisionError("no such package"))
    with pytest.raises(ProvisionError) as failed:
        workshop.build(on_error=always("keep"))
    assert failed.value.__notes__ == ["the machine could not be kept: it will not stay"]
    assert workshop.store.shelf.machines() == []
    assert len(workshop.told(ResourceClosed)) == 1
