"""Work on many items from a few threads, in order and in bounded memory."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Callable, TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def in_parallel(
    work: Callable[[Item], Made], items: Iterable[Item], workers: int, ahead: int | None = None
) -> Iterator[tuple[Item, Made]]:
    """Yields (item, work(item)) in the order of `items`, at most `ahead` [4 a worker] begun before they are asked for.

    An exception in `work` is raised here, at its item's turn.
    """
    with ThreadPoolExecutor(workers) as pool:
        yield from in_order(pool, work, items, 4 * workers if ahead is None else ahead)


def in_order(
    pool: ThreadPoolExecutor, work: Callable[[Item], Made], items: Iterable[Item], ahead: int
) -> Iterator[tuple[Item, Made]]:
    """The same by the threads of `pool`."""
    pending: deque[tuple[Item, Future[Made]]] = deque()
    try:
        for item in items:
            pending.append((item, pool.submit(work, item)))
            if len(pending) > ahead:
                yield _taken(pending)
        while pending:
            yield _taken(pending)
    finally:
        for _, future in pending:
            future.cancel()


def _taken(pending: deque[tuple[Item, Future[Made]]]) -> tuple[Item, Made]:
    item, future = pending.popleft()
    return item, future.result()


class Stopwatch:
    """Adds up the seconds that the threads of one stage spend in `timed` work."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._lock = threading.Lock()

    def timed(self, work: Callable[[Item], Made]) -> Callable[[Item], Made]:
        """`work`, watched."""

        def watched(item: Item) -> Made:
            started = time.perf_counter()
            try:
                return work(item)
            finally:
                with self._lock:
                    self.seconds += time.perf_counter() - started

        return watched
