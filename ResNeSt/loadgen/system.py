"""A process that LoadGen runs in, with the model under test: `python -m ResNeSt.loadgen.system LOGS OUTCOME`.

LoadGen calls back from threads of its own, waits without end for what was not answered, and cannot be stopped: an
error would hang it, an exception in a callback brings the process down. So it has a process to itself, which ends at
the first error. Reads a LoadTest from stdin and goes when stdin ends; prints what a user is to hear, and writes an
Outcome.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Union

import numpy as np

from ResNeSt.common.errors import PipelineError, told
from ResNeSt.common.files import PathLike, write_json
from ResNeSt.common.made_of import Unchanged
from ResNeSt.engines.engine import Engine, fitting
from ResNeSt.engines.image_batches import ModelChoice, open_for_images
from ResNeSt.engines.instances import Instances, in_words
from ResNeSt.loadgen.samples import Samples, open_samples
from ResNeSt.loadgen.settings import LoadTest, Speed, from_json, make, short_of_the_rules
from ResNeSt.models.files import digests, model_files

MEASURED_SECONDS = 0.5
FASTEST = 1e-5  # seconds of an image: what LoadGen and we do for one takes longer, whatever the model


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a run: the error that ended it and its exit code, or what ran, and what is to be told beside it."""

    error: str = ""
    exit_code: int = 0
    engine: str = ""
    batch: int = 0
    samples: int = 0
    sha256: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)


class Query(NamedTuple):
    """What LoadGen asks: numbers by which it knows the answers, and of which samples."""

    ids: Sequence[int]
    samples: Sequence[int]


Asked = Union[Query, BaseException, None]  # None: there is no more


def batches(asked: SimpleQueue[Asked], size: int) -> Iterator[Query]:
    """Up to `size` samples of what is asked, at once: nobody waits for a batch to fill.

    An exception in it is raised.
    """
    ids: list[int] = []
    samples: list[int] = []
    start, more = 0, True
    while more or start < len(ids):
        while more and len(ids) - start < size:
            try:
                query = asked.get(block=start == len(ids))
            except Empty:
                break
            if isinstance(query, BaseException):
                raise query
            more = query is not None
            ids += query.ids if query else ()
            samples += query.samples if query else ()
        stop = min(start + size, len(ids))
        if stop > start:
            yield Query(ids[start:stop], samples[start:stop])
        start = stop
        if start == len(ids):
            ids, samples, start = [], [], 0


def answer(
    engine: Engine, samples: Samples, asked: SimpleQueue[Asked], complete: Callable[[Sequence[int], np.ndarray], None]
) -> None:
    """Runs the model on what is asked until there is no more; `complete` takes ids and their classes, float32.

    A batch that is not full runs in the smallest size that holds it. Raises PipelineError where logits are not finite.
    """
    size, *shape = engine.input.shape

    def run(instance: Engine, query: Query) -> None:
        ids, numbers = query
        batch = np.zeros((fitting(engine.sizes, len(ids)), *shape), engine.input.dtype)
        for row, number in enumerate(numbers):
            batch[row] = samples.rows[number]
        logits = instance.run(batch)[: len(ids)]
        if not np.isfinite(logits).all():
            place = int(np.argmin(np.isfinite(logits).all(axis=1)))
            raise PipelineError(
                f"{samples.names[numbers[place]]}: its logits have NaN or infinity in them; find out where they come "
                "from by python -m ResNeSt.compare, or take a model of higher precision"
            )
        # Little-endian float32, of equal logits the lower class: what MLPerf's own scorer reads (accuracy-imagenet.py).
        complete(ids, logits.argmax(axis=1).astype("<f4"))

    def run_or_tell(instance: Engine, query: Query) -> None:
        try:
            run(instance, query)
        except BaseException as error:
            asked.put(error)  # LoadGen waits for this answer, and asks nothing more
            raise

    with Instances(engine) as side_by_side:
        deque(side_by_side.each(run_or_tell, batches(asked, size)), maxlen=0)


def drive(loadgen: Any, engine: Engine, samples: Samples, settings: Any, logs: PathLike) -> None:
    """Lets LoadGen drive the model; its thread is another one, the model runs in this one."""
    asked: SimpleQueue[Asked] = SimpleQueue()

    def load(numbers: list[int]) -> None:
        try:
            samples.load(numbers)
        except BaseException as error:
            asked.put(error)
            threading.Event().wait()  # LoadGen must not go on; this process ends

    def run() -> None:
        under_test = loadgen.ConstructFastSUT(lambda ids, numbers: asked.put(Query(ids, numbers)), lambda: None)
        library = loadgen.ConstructQSL(len(samples.names), len(samples.names), load, samples.unload)
        log_settings = loadgen.LogSettings()
        log_settings.log_output.outdir = os.fspath(logs)
        log_settings.enable_trace = False
        try:
            loadgen.StartTestWithLogSettings(under_test, library, settings, log_settings)
            asked.put(None)
        except BaseException as error:
            asked.put(error)

    def complete(ids: Sequence[int], classes: np.ndarray) -> None:
        start, step = classes.ctypes.data, classes.itemsize
        loadgen.QuerySamplesComplete(
            [loadgen.QuerySampleResponse(one, start + step * place, step) for place, one in enumerate(ids)]
        )

    # OpenVINO compiles a free batch once more at the first batch that is not full, which must not be an asked one.
    engine.run(np.zeros((fitting(engine.sizes, 1), *engine.input.shape[1:]), engine.input.dtype))
    threading.Thread(target=run, daemon=True).start()
    answer(engine, samples, asked, complete)


def measure(engine: Engine) -> Speed:
    """The shortest of a few runs, after the first."""
    batch, times = np.zeros(engine.input.shape, engine.input.dtype), [0.0]
    began = ended = time.perf_counter()
    while len(times) < 4 or ended - began < MEASURED_SECONDS:
        started = time.perf_counter()
        engine.run(batch)
        ended = time.perf_counter()
        times.append(ended - started)
        if ended - began > 4 * MEASURED_SECONDS and len(times) > 2:
            break
    images = len(batch) * engine.instances
    return Speed(max(min(times[2:]), FASTEST * images), images)


def _model(asked: LoadTest) -> ModelChoice:
    """Where nobody says how many instances: one for latency, as many as are best for throughput."""
    one = asked.model.instances is None and asked.scenario in ("SingleStream", "MultiStream")
    return dataclasses.replace(asked.model, instances=1) if one else asked.model


def serve(asked: LoadTest, logs: PathLike, say: Callable[[str], None]) -> Outcome:
    """Opens model and samples and runs the test; raises what they raise."""
    import mlperf_loadgen

    with Unchanged(*(model_files(asked.model.file) if os.path.isfile(asked.model.file) else [])):
        engine = open_for_images(_model(asked), asked.free_batch)
        sha256 = digests(asked.model.file)
    classes = engine.run(np.zeros(engine.input.shape, engine.input.dtype)).shape[1]
    samples = open_samples(asked, engine, classes, say)
    settings = make(mlperf_loadgen, asked, measure(engine))
    size = engine.input.shape[0]
    long = f"{settings.min_duration_ms / 1000:g} s or more" if asked.mode == "performance" else "every sample once"
    run_as = f"{engine.title}, {in_words(engine)}"
    say(f"{asked.model.file}: {run_as}; {len(samples.names)} samples; {asked.scenario}, {long}")
    drive(mlperf_loadgen, engine, samples, settings, logs)
    notes = [short_of_the_rules(mlperf_loadgen, asked, settings, len(samples.names))]
    if size > 1 and asked.scenario == "SingleStream":
        notes.append(f"SingleStream asks for one image at a time, the model runs {size}; one of batch 1 answers sooner")
    return Outcome(
        engine=engine.title, batch=size, samples=len(samples.names), sha256=sha256, notes=list(filter(None, notes))
    )


def main() -> None:
    """Runs the command line; never returns, since LoadGen's threads may be alive."""
    logs, outcome = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's; it closes our stdin
    asked = from_json(sys.stdin.readline())
    threading.Thread(target=_go_with_the_parent, daemon=True).start()
    try:
        came = serve(asked, logs, lambda line: print(line, flush=True))
    except (PipelineError, OSError, MemoryError) as error:
        came = Outcome(*told(error))
    write_json(outcome, dataclasses.asdict(came))
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(0)


def _go_with_the_parent() -> None:
    sys.stdin.read()
    os._exit(130)


if __name__ == "__main__":
    main()
