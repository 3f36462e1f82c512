"""Many jobs over any `concurrent.futures.Executor`, each begun when what it continues is done."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from typing import TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


def run_all(
    jobs: Sequence[K], work: Callable[[K], T], *, executor: Executor, after: Callable[[K], K | None]
) -> tuple[T, ...]:
    """What `work` made of each job, in the jobs' order. A job waits for the one that `after` names, if it is among them.

    When one raises, no further job begins; those that run come to their end, and the first error is raised.
    """
    waiting = list(dict.fromkeys(jobs))
    running: dict[Future[T], K] = {}
    done: dict[K, T] = {}
    failure: BaseException | None = None
    while waiting or running:
        unfinished = {*waiting, *running.values()}
        ready = [job for job in waiting if after(job) not in unfinished]
        if not (ready or running):
            ready = waiting[:1]  # a circle: nothing in it would ever begin
        for job in ready if failure is None else ():
            running[executor.submit(work, job)] = job
        waiting = [] if failure else [job for job in waiting if job not in ready]
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            job = running.pop(future)
            error = future.exception()
            if error is None:
                done[job] = future.result()
            failure = failure or error
    if failure:
        raise failure
    return tuple(done[job] for job in jobs)
