from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

from ingot.engine.matrix import run_all, submitted

K = TypeVar("K")
T = TypeVar("T")


def settled(job: object, future: Future[T]) -> T:
    return future.result()


def parents(tree: dict[str, str]) -> Callable[[str], str | None]:
    return tree.get


def over(
    executor: Executor, jobs: Sequence[Any], work: Callable[[Any], T], tree: dict[str, str] | None = None
) -> tuple[T, ...]:
    begin = lambda job: submitted(executor, work, job)  # noqa: E731 - the shortest way to say it
    return run_all(jobs, begin, after=parents(tree or {}), settle=settled)


def threads(count: int) -> Executor:
    return ThreadPoolExecutor(count)


def test_results_are_in_the_order_of_the_jobs() -> None:
    def work(job: int) -> int:
        time.sleep(0.05 if job == 1 else 0.0)
        return job * 10

    with threads(3) as executor:
        assert over(executor, [1, 2, 3], work) == (10, 20, 30)


def test_jobs_run_side_by_side() -> None:
    meeting = threading.Barrier(3, timeout=10)
    with threads(3) as executor:
        over(executor, "abc", lambda job: meeting.wait())


def test_a_job_begins_when_what_it_continues_is_done() -> None:
    order: list[str] = []
    lock = threading.Lock()

    def work(job: str) -> None:
        time.sleep(0.05 if job == "parent" else 0.0)
        with lock:
            order.append(job)

    tree = {"child": "parent", "grandchild": "child", "stranger": "elsewhere"}
    with threads(4) as executor:
        over(executor, ["grandchild", "child", "stranger", "parent"], work, tree)
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
        over(executor, ["long", "bad", "child"], work, {"child": "long"})
    assert ended.is_set() and begun == ["long", "bad"]


def test_a_circle_holds_nobody_back_for_ever() -> None:
    with threads(2) as executor:
        assert over(executor, "ab", str.upper, {"a": "b", "b": "a"}) == ("A", "B")


def test_a_job_with_an_answer_is_not_begun() -> None:
    begun: list[str] = []
    known = {"parent": "known"}

    def begin(job: str) -> Future[str]:
        begun.append(job)
        return submitted(executor, str.upper, job)

    with threads(1) as executor:
        got = run_all(
            ["parent", "child"], begin, after=parents({"child": "parent"}), settle=settled, instead=known.get
        )
    assert got == ("known", "CHILD") and begun == ["child"]


def test_what_has_not_begun_can_be_taken_back_while_the_rest_runs() -> None:
    go, running = threading.Event(), threading.Event()

    def work(job: str) -> str:
        running.set()
        assert go.wait(20)
        return "done"

    def stop(futures: Mapping[Future[Any], str]) -> None:
        if running.is_set():
            cancelled = [future.cancel() for future, job in futures.items() if job != "first"]
            assert all(cancelled)
            go.set()

    def settle(job: str, future: Future[str]) -> str:
        try:
            return future.result()
        except CancelledError:
            return "taken back"

    jobs = ("first", "second", "third")
    with threads(1) as executor:
        got = run_all(
            jobs,
            lambda job: submitted(executor, work, job),
            after=parents({}),
            settle=settle,
            tick=stop,
        )
    assert got == ("done", "taken back", "taken back")


def test_an_executor_that_takes_no_more_work_is_an_error_of_the_job() -> None:
    executor = threads(1)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        submitted(executor, str.upper, "a").result()
