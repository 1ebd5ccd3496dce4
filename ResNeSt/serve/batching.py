"""Requests that wait are joined into batches: the worker takes what is there, and nobody waits for a batch to fill."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Callable, NamedTuple

import numpy as np

from ResNeSt.common.errors import PipelineError
from ResNeSt.engines.engine import Engine, fill, fitting
from ResNeSt.serve.errors import EndingError, OverloadedError

MOST_TIMED = 8  # sizes of an engine; of more, the ends are, and those between lie on a line
TIMED_RUNS = 20  # of each, or the first that take ENOUGH seconds; the fastest counts: what disturbs a run slows it down
ENOUGH = 0.1
HANDED_OVER = 0.0002  # seconds that a run costs beside the model: threads take turns, answers are handed out
LOOKED_AT = 1024  # images that wait, at most, when a size is chosen


class Answered(NamedTuple):
    """Logits, float32 (N, classes), of a request's images; seconds that it waited and that the model ran for it.

    `batch` is the size that the model last ran at for it.
    """

    logits: np.ndarray
    queue: float
    compute: float
    batch: int


class Ran(NamedTuple):
    """One run of the model: how many images it was for, at which batch size, and its seconds."""

    images: int
    batch: int
    seconds: float


def first_runs(seconds: Mapping[int, float], most: int) -> list[int]:
    """For 0, 1, ... `most` images that wait: the size to run first, so that all of them together take the least time.

    `seconds` has the time of a run by its size; the last run alone may be filled up. Where several sizes can come
    first, that one does which answers most images a second: so the mean wait is the shortest (Smith's rule, 1956).
    """
    cost = {size: round(1e9 * each) for size, each in seconds.items()}  # whole numbers: sums in any order are the same
    total, first = [0], [min(cost)]
    for waiting in range(1, most + 1):
        takes = {size: each + total[max(0, waiting - size)] for size, each in cost.items()}
        total.append(min(takes.values()))
        # Of as many a second the one that answers most, and of as many of these the smallest.
        keys = {size: (cost[size] / min(size, waiting), -min(size, waiting), size) for size in cost}
        first.append(min((size for size in cost if takes[size] == total[-1]), key=keys.__getitem__))
    return first


class Sizes:
    """Engines of one model, at every batch size that they take, as one: what waits runs at the sizes that cost least.

    Of an engine with a free batch axis these are all up to the one that it was opened for.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = engines
        self.instances = engines[0].instances
        self._of = {size: engine for engine in engines for size in engine.sizes if size <= engine.input.shape[0]}
        self.sizes = sorted(self._of)
        self._first: list[int] = []

    def size_for(self, waiting: int) -> int:
        """The size to run first when so many images wait."""
        return self._first[min(waiting, len(self._first) - 1)]

    def run(self, rows: np.ndarray, size: int) -> np.ndarray:
        """Logits, float32 (N, classes), of `rows`, no more than `size`, which is one of `sizes`."""
        return self._of[size].run(fill(rows, size))[: len(rows)]

    def another(self) -> Sizes:
        """One more instance of each, for the thread that calls this; it is as fast as this one."""
        other = Sizes([engine.another() for engine in self._engines])
        other._first = self._first
        return other

    def warm_up(self) -> None:
        """Runs the sizes, since the first run of one may compile it; the first instance measures what each takes."""
        for size in self._timed():
            self._of[size].run(self._zeros(size))
        if not self._first:
            self._first = first_runs(self._measured(), LOOKED_AT)

    def _timed(self) -> list[int]:
        found: list[int] = []
        for engine in self._engines:
            of_it = [size for size in self.sizes if self._of[size] is engine]
            found += of_it if len(of_it) <= MOST_TIMED else [of_it[0], of_it[-1]]
        return sorted(found)

    def _measured(self) -> dict[int, float]:
        """Seconds of a run by its size."""
        timed = self._timed()
        seconds = np.interp(self.sizes, timed, [self._seconds(size) for size in timed])
        return {size: each + HANDED_OVER for size, each in zip(self.sizes, seconds.tolist())}

    def _seconds(self, size: int) -> float:
        batch, taken = self._zeros(size), list[float]()
        while len(taken) < 2 or (len(taken) < TIMED_RUNS and sum(taken) < ENOUGH):
            began = time.perf_counter()
            self._of[size].run(batch)
            taken.append(time.perf_counter() - began)
        return min(taken)

    def _zeros(self, size: int) -> np.ndarray:
        spec = self._of[size].input
        return np.zeros((size, *spec.shape[1:]), spec.dtype)


class _Request:
    """Rows of one request, how many of them were taken, and the answers so far."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows
        self.future: Future[Answered] = Future()
        self.taken = 0
        self.since = time.perf_counter()
        self.queue = self.compute = 0.0
        self._left = len(rows)
        self._logits: np.ndarray | None = None
        self._lock = threading.Lock()  # two instances may have parts of it

    def take(self, most: int) -> _Part:
        if not self.taken:
            self.queue = time.perf_counter() - self.since
        start = self.taken
        self.taken = min(start + most, len(self.rows))
        return _Part(self, start, self.taken)

    def answer(self, part: _Part, logits: np.ndarray, seconds: float, batch: int) -> None:
        with self._lock:
            if self._logits is None:
                self._logits = np.empty((len(self.rows), logits.shape[1]), np.float32)
            self._logits[part.start : part.stop] = logits
            self.compute += seconds
            self._left -= part.stop - part.start
            if not self._left:
                with contextlib.suppress(InvalidStateError):  # who asked has gone
                    self.future.set_result(Answered(self._logits, self.queue, self.compute, batch))

    def fail(self, error: BaseException) -> None:
        with contextlib.suppress(InvalidStateError):
            self.future.set_exception(error)


class _Part(NamedTuple):
    request: _Request
    start: int
    stop: int

    @property
    def rows(self) -> np.ndarray:
        return self.request.rows[self.start : self.stop]


class Batcher:
    """Runs a model on the requests of many threads, first come, first served.

    `open_model` is called in the thread that runs the model; of several `instances` each has a thread of its own. At
    most `most` images are inside at once. `ran` hears of every run. The constructor raises what `open_model` raises.
    """

    def __init__(self, open_model: Callable[[], Sizes], most: int) -> None:
        self.most = most
        self.ran: Callable[[Ran], None] = lambda ran: None
        self.inside = 0
        self._waiting: deque[_Request] = deque()
        self._changed = threading.Condition()
        self._ending = self._closed = False
        self._threads: list[threading.Thread] = []
        first = self._start(open_model)
        for _ in range(first.instances - 1):
            self._start(first.another)
        self.sizes = first.sizes

    def _start(self, open_model: Callable[[], Sizes]) -> Sizes:
        opened: Future[Sizes] = Future()
        thread = threading.Thread(target=self._work, args=(open_model, opened), name="model", daemon=True)
        thread.start()
        self._threads.append(thread)
        try:
            return opened.result()
        except BaseException:
            self.close(0)
            raise

    @contextlib.contextmanager
    def room(self, images: int) -> Iterator[None]:
        """Holds a place for so many images from here to their answer.

        Raises OverloadedError at once where there is none, EndingError once the end has begun.
        """
        with self._changed:
            if self._ending:
                raise EndingError("the service is ending; ask another, or this one when it is back")
            if self.inside + images > self.most:
                raise OverloadedError(
                    f"{self.inside} images wait for their answer, {images} more are over the limit of {self.most} "
                    "(--queue); ask again later"
                )
            self.inside += images
        try:
            yield
        finally:
            with self._changed:
                self.inside -= images
                self._changed.notify_all()

    def submit(self, rows: np.ndarray) -> Future[Answered]:
        """The answer to come of `rows`, (N, ...) as the engine takes them, any number; call it within `room`."""
        request = _Request(rows)
        with self._changed:
            if self._closed:
                raise EndingError("the service has ended")
            self._waiting.append(request)
            self._changed.notify_all()
        return request.future

    def end(self) -> None:
        """Admits nothing more; what is inside is answered."""
        with self._changed:
            self._ending = True

    def close(self, seconds: float) -> None:
        """The end, when all that is inside is answered, or after so many seconds: the rest hears EndingError then."""
        self.end()
        with self._changed:
            self._changed.wait_for(lambda: not self.inside, timeout=seconds)
            self._closed = True
            for request in self._waiting:
                request.fail(EndingError("the service has ended before this was answered"))
            self._waiting.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(seconds)

    def _work(self, open_model: Callable[[], Sizes], opened: Future[Sizes]) -> None:
        try:
            model = open_model()
            model.warm_up()
        except BaseException as error:
            opened.set_exception(error)
            return
        opened.set_result(model)
        while (taken := self._take(model))[1]:
            self._run(model, *taken)

    def _take(self, model: Sizes) -> tuple[int, list[_Part]]:
        """The size to run now, and for it what has waited longest; nothing once it is closed."""
        parts: list[_Part] = []
        size = 0
        with self._changed:
            while not parts and self._changed.wait_for(lambda: self._waiting or self._closed) and self._waiting:
                size = room = model.size_for(self._rows_waiting())
                while room and self._waiting:
                    request = self._waiting[0]
                    if not request.future.done():  # failed in an earlier part, or nobody wants it any more
                        parts.append(request.take(room))
                        room -= parts[-1].stop - parts[-1].start
                    if request.future.done() or request.taken == len(request.rows):
                        self._waiting.popleft()
        return size, parts

    def _rows_waiting(self) -> int:
        """How many wait; it stops to count where it makes no difference any more."""
        rows = 0
        for request in self._waiting:
            rows += 0 if request.future.done() else len(request.rows) - request.taken
            if rows >= LOOKED_AT:
                break
        return rows

    def _run(self, model: Sizes, size: int, parts: Sequence[_Part]) -> None:
        began = time.perf_counter()
        try:
            rows = parts[0].rows if len(parts) == 1 else np.concatenate([part.rows for part in parts])
            logits = model.run(rows, size)
        except Exception as error:
            if len(parts) == 1:
                told = error if isinstance(error, PipelineError) else PipelineError(f"{type(error).__name__}: {error}")
                parts[0].request.fail(told)
            else:  # one of them may be to blame; the others are not to suffer for it
                for part in parts:
                    self._run(model, fitting(model.sizes, part.stop - part.start), [part])
            return
        seconds = time.perf_counter() - began
        self.ran(Ran(len(rows), size, seconds))
        start = 0
        for part in parts:
            stop = start + part.stop - part.start
            part.request.answer(part, logits[start:stop], seconds, size)
            start = stop
