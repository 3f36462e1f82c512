"""The habits of the pretend cloud, and that a build gets along with each of them."""

from __future__ import annotations

import pytest

from ingot.backends.memory.backend import MemoryMachines
from ingot.backends.memory.habits import Habits, parse_habits
from ingot.errors import BackendError, NotFoundError, UsageError
from ingot.model.events import ignore
from ingot.model.units import Seconds
from ingot.ports import MachineSpec, Token
from ingot.system.waits import Flag
from tests.engine.bench import ALL, PLAN, Workshop
from tests.engine.conftest import workshop

__all__ = ["workshop"]


def test_written_habits() -> None:
    assert parse_habits("") == Habits()
    wanted = Habits(
        boot=Seconds(20.0),
        lag=Seconds(0.5),
        machines=3,
        throttle=5,
        faults={"freeze": frozenset({2, 3}), "create": frozenset({1})},
    )
    assert (
        parse_habits("boot=20s, lag=500ms,machines=3,throttle=5,fail=freeze:2,fail=freeze:3,fail=create")
        == wanted
    )


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("bot=20s", ["'bot'", "boot"]),
        ("boot=soon", ["'soon'", "10m"]),
        ("machines=0", ["'0'", "1 or more"]),
        ("throttle=1", ["'1'", "2 or more"]),
        ("fail=sleep", ["'sleep'", "freeze"]),
        ("fail=freeze:x", ["'x'"]),
    ],
)
def test_mistakes_are_named(text: str, names: list[str]) -> None:
    with pytest.raises(UsageError) as told:
        parse_habits(text)
    assert all(name in str(told.value) for name in names)
    assert "boot=20s" in told.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "boot=300ms",
        "freeze=100ms",
        "lag=200ms",
        "throttle=2",
        "throttle=3,lag=100ms,boot=100ms",
        "machines=1",
    ],
)
def test_a_build_gets_along(workshop: Workshop, text: str) -> None:
    workshop.habits = parse_habits(text)
    built = workshop.build()
    assert [layer.status for layer in built.layers] == ["built"] * len(built.layers)
    assert workshop.store.shelf.machines() == []
    assert workshop.counts["images"] == 1
    if "throttle" in text:
        assert workshop.calls["freeze"] > workshop.counts["layers"]


@pytest.mark.parametrize("call", ["base", "create", "attach", "step", "scan", "freeze", "register"])
def test_a_refused_call_fails_the_build_and_the_next_goes_on(workshop: Workshop, call: str) -> None:
    workshop.habits = parse_habits(f"fail={call}")
    with pytest.raises(BackendError, match=f"refused call 1 of '{call}'"):
        workshop.build()
    assert workshop.store.shelf.machines() == []
    made = workshop.counts.get("layers", 0)
    built = workshop.build()  # the second call is not refused
    assert workshop.counts["layers"] == len(PLAN.layers)
    assert [layer.status for layer in built.layers[1:]].count("reused") == made


def test_a_machine_that_cannot_be_deleted_is_told_and_swept(workshop: Workshop) -> None:
    workshop.habits = parse_habits("fail=delete")
    with pytest.raises(BaseException, match="could not remove"):
        workshop.build()
    assert len(workshop.store.shelf.machines()) == 1
    workshop.sweep()
    assert workshop.store.shelf.machines() == []


def test_the_quota_is_named(workshop: Workshop) -> None:
    workshop.build()
    workshop.store.shelf.put_machine("somebody-else", {"disk": {}, "on": "", "made": 0.0})
    workshop.habits = Habits(machines=1)
    with pytest.raises(BackendError, match="quota of 1 machine"):
        workshop.build(anew=ALL)
    assert workshop.store.shelf.machines() == ["somebody-else"]


def test_a_machine_that_nobody_removes_halts_itself(workshop: Workshop) -> None:
    workshop.build()
    base = workshop.store.layer(PLAN.base.key)
    assert base
    spec = MachineSpec(parent=base, expires=workshop.store.clock.now().timestamp() - 1.0)
    ref = MemoryMachines(cloud=workshop.store, spec=spec).create(Token("ingot-old-1"))
    with pytest.raises(NotFoundError, match="its time was over"):
        workshop.store.attach(ref, emit=ignore, cancel=Flag())
    workshop.habits = Habits(machines=1)
    assert workshop.build(anew=ALL).status == "built", "one that has halted uses no quota"
    assert [token for _, token in workshop.store.strays(older_than=Seconds(0.0))] == [ref]
