"""Instances of a model side by side: batches are submitted as they come, results are taken in their order."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, TypeVar

import numpy as np

from ResNeSt.common.parallel import in_order
from ResNeSt.engines.engine import Engine

Item = TypeVar("Item")
Made = TypeVar("Made")


class Instances:
    """`engine.instances` of a model, each in a thread of its own; one alone is `engine` itself, in the caller's thread.

    They are open, and each has run `warmup` times, when the constructor returns. It raises what opening one raises.
    """

    def __init__(self, engine: Engine, warmup: int = 0) -> None:
        self._engine = engine
        self._own = threading.local()
        self._pool: ThreadPoolExecutor | None = None
        if engine.instances == 1:
            _warm_up(engine, warmup)
            return
        self._pool = ThreadPoolExecutor(engine.instances)
        together = threading.Barrier(engine.instances)
        opened = [self._pool.submit(self._open, together, warmup) for _ in range(engine.instances)]
        problems = [problem for future in opened if (problem := future.exception()) is not None]
        if problems:
            self._pool.shutdown()
            raise next((one for one in problems if not isinstance(one, threading.BrokenBarrierError)), problems[0])

    def _open(self, together: threading.Barrier, warmup: int) -> None:
        """Once in every thread: none takes a second one before each has come here."""
        try:
            self._own.engine = self._engine.another()
            _warm_up(self._own.engine, warmup)
        except BaseException:
            together.abort()
            raise
        together.wait()

    def __enter__(self) -> Instances:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def each(self, work: Callable[[Engine, Item], Made], items: Iterable[Item]) -> Iterator[tuple[Item, Made]]:
        """Yields (item, work(instance, item)) in the order of `items`; a few are begun before they are asked for.

        An exception in `work` is raised here, at its item's turn.
        """
        if self._pool is None:
            for item in items:
                yield item, work(self._engine, item)
        else:
            ahead = 2 * self._engine.instances  # none waits for its next batch
            yield from in_order(self._pool, lambda item: work(self._own.engine, item), items, ahead)


def in_words(engine: Engine) -> str:
    """`batch 8, 2 instances`."""
    several = f", {engine.instances} instances" if engine.instances > 1 else ""
    return f"batch {engine.input.shape[0]}{several}"


def _warm_up(engine: Engine, times: int) -> None:
    for _ in range(times):
        engine.run(np.zeros(engine.input.shape, engine.input.dtype))
