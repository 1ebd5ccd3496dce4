"""What Prometheus reads from /metrics, and the line a request."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ResNeSt.common.progress import Say
from ResNeSt.serve.batching import Batcher, Ran

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclasses.dataclass
class Record:
    """One request: how it came, how it ended, its images, and seconds that it waited, that the model ran, of all."""

    protocol: str
    id: str = ""
    status: str = ""
    images: int = 0
    batch: int = 0
    queue: float = 0.0
    compute: float = 0.0
    reason: str = ""
    began: float = dataclasses.field(default_factory=time.perf_counter)


class Metrics:
    """Counts what a service does; `say` hears a line a request, where there is one."""

    def __init__(self, batcher: Batcher, say: Say | None) -> None:
        self._say = say
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "resnest_requests",
            "Inference requests, and all that lack the token, by protocol and status",
            ("protocol", "status"),
            registry=self.registry,
        )
        self._images = Counter("resnest_images", "Images answered", registry=self.registry)
        self._batches = Histogram(
            "resnest_batch_images", "Images of one run of the model", buckets=_SIZES, registry=self.registry
        )
        self._sizes = Counter("resnest_batches", "Runs of the model by batch size", ("size",), registry=self.registry)
        self._runs = self._histogram("resnest_compute_seconds", "Seconds of one run of the model")
        self._queue = self._histogram("resnest_queue_seconds", "Seconds that a request waits for the model")
        self._whole = self._histogram("resnest_request_seconds", "Seconds from a request's arrival to its answer")
        inside = Gauge("resnest_images_inside", "Images admitted and not yet answered", registry=self.registry)
        inside.set_function(lambda: batcher.inside)
        batcher.ran = self._ran

    def _histogram(self, name: str, told: str) -> Histogram:
        return Histogram(name, told, buckets=_SECONDS, registry=self.registry)

    def _ran(self, ran: Ran) -> None:
        self._batches.observe(ran.images)
        self._sizes.labels(ran.batch).inc()
        self._runs.observe(ran.seconds)

    def done(self, record: Record) -> None:
        """A request has ended."""
        seconds = time.perf_counter() - record.began
        self._requests.labels(record.protocol, record.status).inc()
        if not record.reason:
            self._images.inc(record.images)
            self._queue.observe(record.queue)
            self._whole.observe(seconds)
        if self._say is not None:
            with contextlib.suppress(
                OSError
            ):  # whoever reads the lines has gone, or a disk is full: answers matter more
                self._say(_line(record, seconds))

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return bytes(generate_latest(self.registry))


def _line(record: Record, seconds: float) -> str:
    told = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "protocol": record.protocol,
        "status": record.status,
        "id": record.id[:200],
        "images": record.images,
        "batch": record.batch,
        "queue_ms": round(1000 * record.queue, 3),
        "compute_ms": round(1000 * record.compute, 3),
        "total_ms": round(1000 * seconds, 3),
    }
    return json.dumps({**told, **({"reason": record.reason} if record.reason else {})}, ensure_ascii=False)
