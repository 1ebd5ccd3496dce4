"""Requests that wait are joined into batches: the worker takes what is there, and nobody waits for a batch to fill."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Callable, NamedTuple

import numpy as np

from ResNeSt.common.errors import PipelineError
from ResNeSt.engines.engine import Engine, fill, fitting
from ResNeSt.serve.errors import EndingError, OverloadedError


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


class Sizes:
    """Engines of one model, at every batch size that they take, as one: the smallest size that holds a batch runs it.

    Of an engine with a free batch axis these are all up to the one that it was opened for.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = engines
        self.instances = engines[0].instances
        self._of = {size: engine for engine in engines for size in engine.sizes if size <= engine.input.shape[0]}
        self.sizes = sorted(self._of)

    def run(self, rows: np.ndarray) -> tuple[np.ndarray, int]:
        """Logits, float32 (N, classes), of `rows`, no more than the largest size holds; and the size that ran."""
        size = fitting(self.sizes, len(rows))
        return self._of[size].run(fill(rows, size))[: len(rows)], size

    def another(self) -> Sizes:
        """One more instance of each, for the thread that calls this."""
        return Sizes([engine.another() for engine in self._engines])

    def warm_up(self) -> None:
        """Runs every engine at its largest and its smallest size: the first run of a size may compile it."""
        for engine in self._engines:
            of_it = [size for size in self.sizes if self._of[size] is engine]
            for size in {of_it[0], of_it[-1]}:
                engine.run(np.zeros((size, *engine.input.shape[1:]), engine.input.dtype))


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
        while parts := self._take(model.sizes[-1]):
            self._run(model, parts)

    def _take(self, most: int) -> list[_Part]:
        """What waits, up to `most` rows; nothing once it is closed."""
        parts: list[_Part] = []
        with self._changed:
            while not parts and self._changed.wait_for(lambda: self._waiting or self._closed) and self._waiting:
                room = most
                while room and self._waiting:
                    request = self._waiting[0]
                    if not request.future.done():  # failed in an earlier part, or nobody wants it any more
                        parts.append(request.take(room))
                        room -= parts[-1].stop - parts[-1].start
                    if request.future.done() or request.taken == len(request.rows):
                        self._waiting.popleft()
        return parts

    def _run(self, model: Sizes, parts: Sequence[_Part]) -> None:
        began = time.perf_counter()
        try:
            rows = parts[0].rows if len(parts) == 1 else np.concatenate([part.rows for part in parts])
            logits, size = model.run(rows)
        except Exception as error:
            if len(parts) == 1:
                told = error if isinstance(error, PipelineError) else PipelineError(f"{type(error).__name__}: {error}")
                parts[0].request.fail(told)
            else:  # one of them may be to blame; the others are not to suffer for it
                for part in parts:
                    self._run(model, [part])
            return
        seconds = time.perf_counter() - began
        self.ran(Ran(len(rows), size, seconds))
        start = 0
        for part in parts:
            stop = start + part.stop - part.start
            part.request.answer(part, logits[start:stop], seconds, size)
            start = stop
