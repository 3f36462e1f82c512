"""SIGKILL before and after every effect of a build: the next build's sweep leaves nothing but whole layers.

Each case is a process of its own (a fork), killed at one moment; the state folder is all that it leaves.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import TypeVar

import pytest

from ingot.backends.memory.backend import MemoryBackend
from ingot.backends.memory.habits import Habits
from ingot.engine import trace
from ingot.model.units import Seconds
from ingot.ports import Cancel
from ingot.testing import kill

from .bench import GIB, Workshop, packages, plan_of, text

T = TypeVar("T")
PLAN = plan_of(packages("htop"), text("/etc/motd", "hello"), grow=16 * GIB)


def moments(root: Path) -> list[str]:
    """Every moment that a whole build passes."""
    passed: list[str] = []
    with trace.hooked(passed.append):
        Workshop(root=root).build(PLAN)
    return passed


def in_process(work: Callable[[], None]) -> int:
    """Runs the work in a fork; the signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def killed_at(root: Path, number: int) -> int:
    """Builds in a process that dies at the moment of this number."""

    def work() -> None:
        with kill.arm(number):
            Workshop(root=root).build(PLAN)

    return in_process(work)


def assert_clean(root: Path) -> None:
    """The next build works; then there are no machines, no open journals, and only whole layers."""
    after = Workshop(root=root)
    built = after.build(PLAN)
    assert after.store.shelf.machines() == []
    assert list(after.runs.glob("*/journal.jsonl")) == []
    assert [image.digest for image in after.store.images.list({})] == [built.image.digest]
    for layer in after.store.layers.layers():
        assert after.store.layer(layer.ref.key), "a layer that cannot be used stays behind"


def test_killed_at_every_moment(tmp_path: Path) -> None:
    names = moments(tmp_path / "whole")
    assert len(names) >= 30
    left_something = 0
    for number, _ in enumerate(names, start=1):
        root = tmp_path / str(number)
        assert killed_at(root, number) == signal.SIGKILL
        left_something += bool(Workshop(root=root).store.shelf.machines())
        assert_clean(root)
    assert left_something > 5, "the kills never hit while a machine was there"


def test_killed_at_every_call_to_a_cloud_that_lists_late(tmp_path: Path) -> None:
    """Between the call and its answer too; what is not listed when the next build sweeps is swept by a later one."""
    whole = Workshop(root=tmp_path / "whole")
    whole.build(PLAN)
    left_something = 0
    for number in range(2 * sum(whole.calls.values())):
        root = tmp_path / str(number)
        assert in_process(partial(_killed_at_call, root, number)) == signal.SIGKILL
        left_something += bool(Workshop(root=root).store.shelf.machines())
        late = Workshop(root=root, habits=LATE)
        late.build(PLAN)
        time.sleep(LATE.lag)
        late.sweep()
        assert_clean(root)
    assert left_something > 5, "the kills never hit while a machine was there"


LATE = Habits(lag=Seconds(0.15))


def _killed_at_call(root: Path, number: int) -> None:
    """Builds; dies before (even numbers) or after (odd ones) a call to the cloud."""
    passed = count()

    class Cloud(MemoryBackend):
        def ask(self, name: str, act: Callable[[], T], *, cancel: Cancel | None = None) -> T:
            def dying() -> T:
                die_at(next(passed))
                answer = act()
                die_at(next(passed))
                return answer

            return MemoryBackend.ask(self, name, dying, cancel=cancel)

    def die_at(here: int) -> None:
        if here == number:
            os.kill(os.getpid(), signal.SIGKILL)

    Workshop(root=root, habits=LATE, cloud=Cloud).build(PLAN)


def test_killed_again_and_again_a_build_ends_at_last(tmp_path: Path) -> None:
    """Each attempt gets one layer further: what was frozen is never made again."""
    deaths = 0
    while killed_at(tmp_path, 10) == signal.SIGKILL:
        deaths += 1
        assert deaths < 40
    assert deaths > 0
    assert_clean(tmp_path)


def test_past_the_last_moment_the_build_ends_well(tmp_path: Path) -> None:
    assert killed_at(tmp_path, 10_000) == 0


@pytest.mark.parametrize("seed", range(10))
def test_killed_at_a_random_time(tmp_path: Path, seed: int) -> None:
    """From outside, at no moment of ours."""
    child = os.fork()
    if child == 0:
        try:
            Workshop(root=tmp_path).build(PLAN)
        finally:
            os._exit(0)
    time.sleep(random.Random(seed).uniform(0.0, 0.08))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert_clean(tmp_path)


def test_the_environment_arms_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kill.VARIABLE, "3")

    def work() -> None:
        with kill.arm():
            Workshop(root=tmp_path).build(PLAN)

    assert in_process(work) == signal.SIGKILL
