"""Items in chunks: a bounded number of them is worked on at a time, and the results are taken in order.

Memory, progress and a journal are therefore those of one process, however many machines there are. A chunk whose
process ends is cut in halves until the item is found that ends it; all others have their answers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Callable, Protocol, TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")
Ticket = TypeVar("Ticket")
Taken = TypeVar("Taken", contravariant=True)


class CrashError(Exception):
    """The process that worked on a chunk has ended, each time; the message says how, after `the process ...`."""


class Pool(Protocol[Taken, Made, Ticket]):
    """Whatever works on chunks."""

    def window(self) -> int:
        """How many chunks may be begun at a time, now."""
        ...

    def submit(self, chunk: Sequence[Taken], retry: bool) -> Ticket:
        """Begins a chunk; `retry` is whether it is tried again where its process ends."""
        ...

    def take(self, ticket: Ticket) -> list[Made]:
        """Waits for what became of a chunk; raises CrashError."""
        ...


def in_order(
    pool: Pool[Item, Made, Ticket], items: Sequence[Item], size: int, crashed: Callable[[Item, str], Made]
) -> Iterator[list[Made]]:
    """What `pool` makes of `items`, `size` at a time; `crashed` gives what stands for an item that ends its process."""
    chunks = (items[start : start + size] for start in range(0, len(items), size))
    pending: deque[tuple[Sequence[Item], Ticket]] = deque()
    while True:
        while len(pending) < pool.window() and (chunk := next(chunks, None)) is not None:
            pending.append((chunk, pool.submit(chunk, retry=True)))
        if not pending:
            return
        yield _taken(pool, *pending.popleft(), crashed)


def _taken(
    pool: Pool[Item, Made, Ticket], chunk: Sequence[Item], ticket: Ticket, crashed: Callable[[Item, str], Made]
) -> list[Made]:
    try:
        return pool.take(ticket)
    except CrashError as error:
        if len(chunk) == 1:
            return [crashed(chunk[0], str(error))]
    middle = len(chunk) // 2
    # One that is alone may be blamed, so it is tried again; of several none is.
    halves = [(half, pool.submit(half, retry=len(half) == 1)) for half in (chunk[:middle], chunk[middle:])]
    return [made for half, begun in halves for made in _taken(pool, half, begun, crashed)]
