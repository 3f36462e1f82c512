from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor

import pytest

from ingot.engine.matrix import run_all


def parents(tree: dict[str, str]) -> Callable[[str], str | None]:
    return tree.get


def threads(count: int) -> Executor:
    return ThreadPoolExecutor(count)


def test_results_are_in_the_order_of_the_jobs() -> None:
    def work(job: int) -> int:
        time.sleep(0.05 if job == 1 else 0.0)
        return job * 10

    with threads(3) as executor:
        assert run_all([1, 2, 3], work, executor=executor, after=lambda job: None) == (10, 20, 30)


def test_jobs_run_side_by_side() -> None:
    meeting = threading.Barrier(3, timeout=10)
    with threads(3) as executor:
        run_all("abc", lambda job: meeting.wait(), executor=executor, after=lambda job: None)


def test_a_job_begins_when_what_it_continues_is_done() -> None:
    order: list[str] = []
    lock = threading.Lock()

    def work(job: str) -> None:
        time.sleep(0.05 if job == "parent" else 0.0)
        with lock:
            order.append(job)

    tree = {"child": "parent", "grandchild": "child", "stranger": "elsewhere"}
    with threads(4) as executor:
        run_all(["grandchild", "child", "stranger", "parent"], work, executor=executor, after=parents(tree))
    assert order == ["stranger", "parent", "child", "grandchild"]


def test_after_an_error_nothing_begins_and_what_runs_ends() -> None:
    begun: list[str] = []
    ended = threading.Event()

    def work(job: str) -> None:
        begun.append(job)
        if job == "bad":
            raise ValueError(job)
        if job == "long":
            time.sleep(0.2)
            ended.set()

    with threads(2) as executor, pytest.raises(ValueError, match="bad"):
        run_all(["long", "bad", "child"], work, executor=executor, after=parents({"child": "long"}))
    assert ended.is_set() and begun == ["long", "bad"]


def test_a_circle_holds_nobody_back_for_ever() -> None:
    with threads(2) as executor:
        assert run_all("ab", str.upper, executor=executor, after=parents({"a": "b", "b": "a"})) == ("A", "B")
