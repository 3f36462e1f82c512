"""Many jobs over any `concurrent.futures.Executor`, each begun when what it continues is done."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from typing import Any, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

_EVERY = 0.5


def run_all(
    jobs: Sequence[K],
    begin: Callable[[K], Future[Any]],
    *,
    after: Callable[[K], K | None],
    settle: Callable[[K, Future[Any]], T],
    instead: Callable[[K], T | None] = lambda job: None,
    tick: Callable[[Mapping[Future[Any], K]], None] | None = None,
) -> tuple[T, ...]:
    """What `settle` made of each job's future, in the jobs' order.

    A job waits for the one that `after` names, if it is among them; one for which `instead` has an answer is not
    begun. `tick` is called twice a second or more with what runs, and may cancel futures. When `settle` raises, no
    further job begins; those that run come to their end, and the first error is raised.
    """
    waiting = list(dict.fromkeys(jobs))
    running: dict[Future[Any], K] = {}
    done: dict[K, T] = {}
    failure: BaseException | None = None
    while waiting or running:
        unfinished = {*waiting, *running.values()}
        ready = [job for job in waiting if after(job) not in unfinished]
        if not (ready or running):
            ready = waiting[:1]  # a circle: nothing in it would ever begin
        for job in ready if failure is None else ():
            answer = instead(job)
            if answer is None:
                running[begin(job)] = job
            else:
                done[job] = answer
        waiting = [] if failure else [job for job in waiting if job not in ready]
        wait(running, timeout=_EVERY if tick else None, return_when=FIRST_COMPLETED)
        if tick:
            tick(running)
        for future in [future for future in running if future.done()]:
            job = running.pop(future)
            try:
                done[job] = settle(job, future)
            except BaseException as error:
                failure = failure or error
    if failure:
        raise failure
    return tuple(done[job] for job in jobs)


def submitted(executor: Executor, work: Callable[..., T], *arguments: Any) -> Future[T]:
    """The work's future; where the executor takes no more work, one that has failed with its reason."""
    try:
        return executor.submit(work, *arguments)
    except Exception as error:
        future: Future[T] = Future()
        future.set_exception(error)
        return future
