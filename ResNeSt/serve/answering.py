"""From a request to its outputs, for both protocols: what may block runs in threads, the event loop only waits."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, NamedTuple, TypeVar

import numpy as np

from ResNeSt.common.errors import PipelineError
from ResNeSt.serve.errors import GoneError, ModelError, RequestError, UnauthenticatedError, UnknownError
from ResNeSt.serve.metrics import Metrics, Record
from ResNeSt.serve.model import ServedModel
from ResNeSt.serve.protocol import BYTES, VERSION, Request, Tensor

BODY_SECONDS = 60  # for a body to come
BODIES_HELD = 8  # times the largest body, of all that a protocol has at once
AT_ONCE = 1 << 18  # bytes whose parsing takes less than a hand-over to a thread and back is worth
Made = TypeVar("Made")


class Answer(NamedTuple):
    """The outputs of a request, and the request that they are of."""

    request: Request
    outputs: Sequence[Tensor]

    @property
    def nbytes(self) -> int:
        """Of its numbers, roughly."""
        return sum(4 * math.prod(output.shape) for output in self.outputs)


class Answering:
    """The served model behind REST and gRPC; `ready` is what health says."""

    def __init__(self, model: ServedModel, metrics: Metrics, workers: int, token: str | None) -> None:
        self.model = model
        self.metrics = metrics
        self.ready = True
        self._token = None if token is None else token.encode()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")

    async def done(self, work: Callable[[], Made], nbytes: int) -> Made:
        """What `work` on so many bytes gives: at once, or from a thread where the others would wait for it."""
        return work() if nbytes <= AT_ONCE else await self._in_pool(work)

    async def _in_pool(self, work: Callable[[], Made]) -> Made:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        """Ends the threads that decode."""
        self._pool.shutdown(cancel_futures=True)

    def knows(self, given: str | bytes | None) -> bool:
        """Whether the header `given` has the token, or none is asked for."""
        held = given.encode("utf-8", "replace") if isinstance(given, str) else given or b""
        scheme, _, text = held.partition(b" ")
        named = scheme.lower() == b"bearer"  # in any case, as all schemes of HTTP are
        return self._token is None or (hmac.compare_digest(text, self._token) and named)

    def check_token(self, given: str | bytes | None, protocol: str) -> None:
        """Raises UnauthenticatedError, and counts it, where a token is asked for that the header `given` has not."""
        if not self.knows(given):
            with self.recorded(Record(protocol)):
                raise UnauthenticatedError("expected the header 'Authorization: Bearer TOKEN' with the service's token")

    def check_model(self, name: str, version: str = "") -> None:
        """Raises UnknownError unless they are those of the model."""
        if name != self.model.name:
            raise UnknownError(f"no model {name!r:.99}, expected {self.model.name!r}")
        if version not in ("", VERSION):
            raise UnknownError(f"no version {version!r:.99} of {name}, expected {VERSION!r}")

    async def infer(self, parse: Callable[[], Request], nbytes: int, record: Record) -> Answer:
        """The answer to what `parse` makes of so many bytes; raises RequestError, and fills `record`."""
        request = await self.done(parse, nbytes)
        model, record.id = self.model, request.id
        model.check_outputs(request.outputs)
        images = model.count(request.input)
        with model.batcher.room(images):
            record.images = images
            rows = await self._rows(request.input, images)
            try:
                answered = await asyncio.wrap_future(model.batcher.submit(rows))
            except PipelineError as error:
                raise error if isinstance(error, RequestError) else ModelError(str(error)) from None
            record.batch, record.queue, record.compute = answered.batch, answered.queue, answered.compute
            return Answer(request, model.outputs_of(request, answered.logits))

    async def _rows(self, tensor: Tensor, images: int) -> np.ndarray:
        if tensor.datatype != BYTES:
            return await self.done(lambda: self.model.rows(tensor), 4 * math.prod(tensor.shape))
        rows = self.model.empty(images)
        pictures = [(content, f"picture {place + 1} of {images}") for place, content in enumerate(tensor.data)]
        work = [
            self._in_pool(lambda content=content, place=place, row=row: self.model.decode(content, place, row))  # type: ignore[misc]
            for (content, place), row in zip(pictures, rows)
        ]
        problems = [one for one in await asyncio.gather(*work, return_exceptions=True) if one is not None]
        try:
            if problems:
                raise problems[0]
        finally:
            problems.clear()  # else the error would hold this frame, and the frame the error, with all pictures
        return rows

    @contextlib.contextmanager
    def recorded(self, record: Record) -> Iterator[None]:
        """Counts a request, however it ends."""
        try:
            yield
            record.status = record.status or "200"
        except RequestError as error:
            record.status, record.reason = str(error.http), str(error)
            raise
        except asyncio.CancelledError:
            record.status, record.reason = str(GoneError.http), "who asked has gone, or waits no longer"
            raise
        except BaseException as error:
            record.status, record.reason = "500", type(error).__name__
            raise
        finally:
            self.metrics.done(record)
