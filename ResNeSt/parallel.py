"""Work on many items from a few threads, in order and in bounded memory."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Callable, Deque, Iterable, Iterator, Tuple, TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def in_parallel(work: Callable[[Item], Made], items: Iterable[Item], workers: int) -> Iterator[Tuple[Item, Made]]:
    """Yields (item, work(item)) in the order of `items`; at most a few results a worker wait to be taken.

    An exception in `work` is raised here, at its item's turn.
    """
    with ThreadPoolExecutor(workers) as pool:
        pending: Deque[Tuple[Item, Future[Made]]] = deque()
        try:
            for item in items:
                pending.append((item, pool.submit(work, item)))
                if len(pending) > 4 * workers:
                    yield _taken(pending)
            while pending:
                yield _taken(pending)
        finally:
            for _, future in pending:
                future.cancel()


def _taken(pending: Deque[Tuple[Item, Future[Made]]]) -> Tuple[Item, Made]:
    item, future = pending.popleft()
    return item, future.result()
