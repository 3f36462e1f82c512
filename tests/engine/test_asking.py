from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from ingot.engine.asking import Asked, ask, asked
from ingot.errors import CancelledError, DeadlineError, IngotError
from ingot.model.units import Seconds
from ingot.system.waits import Flag, WallClock


def listening(folder: Path, flag: Flag | None = None) -> Asked:
    return Asked(flag or Flag(), clock=WallClock(), why=lambda: asked(folder))


@pytest.mark.parametrize(
    "why", [CancelledError("stop", hint="layers stay", signal=15), DeadlineError("too long", hint="later")]
)
def test_why_is_what_is_raised(tmp_path: Path, why: IngotError) -> None:
    assert asked(tmp_path) is None
    listening(tmp_path).check()
    ask(tmp_path, why)
    with pytest.raises(type(why), match=why.message) as told:
        listening(tmp_path).check()
    assert told.value.hint == why.hint and told.value.facts == why.facts


def test_who_waits_is_told(tmp_path: Path) -> None:
    began = time.monotonic()
    timer = threading.Timer(0.2, ask, (tmp_path, CancelledError("stop")))
    timer.start()
    assert listening(tmp_path).wait(Seconds(60.0))
    assert time.monotonic() - began < 30
    timer.join()


def test_a_wait_that_nobody_ends_takes_its_time(tmp_path: Path) -> None:
    assert not listening(tmp_path).wait(Seconds(0.05))
    flag = Flag()
    flag.set(2)
    assert listening(tmp_path, flag).wait(Seconds(60.0))
    with pytest.raises(CancelledError):
        listening(tmp_path, flag).check()
