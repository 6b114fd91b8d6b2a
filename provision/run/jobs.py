"""Work on many hosts at the same time, and its answers as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

TOGETHER = 0.5
"""Seconds; answers that come so soon after another are one group."""


class Jobs(Generic[R]):
    """Jobs with names, of which ``forks`` are done at the same time, in the order in which they were added.

    An interrupt does not wait for jobs that were begun, and begins no other.

    :param refresh: called at least every second while answers are awaited.
    """

    def __init__(self, forks: int, refresh: Callable[[], None]) -> None:
        self._pool = ThreadPoolExecutor(max_workers=max(1, forks))
        self._refresh = refresh
        self._names: dict[Future[R], str] = {}

    def __enter__(self) -> Jobs[R]:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def add(self, name: str, job: Callable[[], R]) -> None:
        """Have one more job done; also while answers are read."""
        self._names[self._pool.submit(job)] = name

    def answers(self) -> Iterator[dict[str, R]]:
        """The answers of all jobs, in groups, each in the order in which its jobs were added."""
        while self._names:
            if wait(self._names, timeout=TOGETHER, return_when=FIRST_COMPLETED).done:
                done = wait(self._names, timeout=TOGETHER).done
                ended = [future for future in self._names if future in done]
                yield {self._names.pop(future): future.result() for future in ended}
            self._refresh()


def each(
    items: Mapping[str, T], work: Callable[[T], R], forks: int, refresh: Callable[[], None]
) -> dict[str, R]:
    """Do ``work`` for all items, ``forks`` at a time; the answers are in the order of the items."""
    found: dict[str, R] = {}
    with Jobs[R](forks, refresh) as jobs:
        for name, item in items.items():
            jobs.add(name, partial(work, item))
        for answers in jobs.answers():
            found |= answers
    return {name: found[name] for name in items}
