"""One model: a run over the tensors for the accuracy, and a pure loop for the speed of every number of copies."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple

import numpy as np

from ResNeSt.bench.copies import Copies, helps
from ResNeSt.bench.ledger import Ledger, Run, tensors_state
from ResNeSt.bench.models import record_of
from ResNeSt.bench.overlap import ENOUGH, Span, longer, shared, side_by_side, spans
from ResNeSt.bench.rows import UNKNOWN, BenchRow
from ResNeSt.common.ais_bench_paths import MOST_LOOPS
from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.common.made_of import Unchanged
from ResNeSt.common.progress import Say, silent
from ResNeSt.infer.client import check_run, run_client, summaries_of
from ResNeSt.models import sidecar
from ResNeSt.models.files import digests, model_files
from ResNeSt.report import collect, data
from ResNeSt.score.outputs import read_summary
from ResNeSt.score.score import Result, score_summaries

TRIAL = 10  # runs that say how many fill a given time
MOST_TRIES = 3  # of a loop that is too short; a few runs say little of how long many take
BY_THE_CLOCK = 0.9  # of the images/s: where the clock sees fewer, it is said


class Runs(NamedTuple):
    """What runs for every model; results go to `folder`, without tensors and labels the pure loops alone run.

    A pure loop has `loop` runs in each process or instance, or as many as fill `duration` seconds, after `warmup`
    uncounted ones. A `search` ends at the first number of copies that no longer helps.
    """

    folder: Path
    tensors: PathLike | None
    labels: PathLike | None
    loop: int | None
    duration: float | None
    warmup: int
    devices: Sequence[int]
    copies: Sequence[Copies]
    dynamic: bool
    search: bool

    def flags(self, batch: int) -> list[str]:
        """What names the batch size to the client: the throughput's, and the model's where it takes several."""
        return [f"--batchsize={batch}", *([f"--dymBatch={batch}"] if self.dynamic else [])]


class Timed(NamedTuple):
    """The speed of a model in one number of processes a device, or instances in one.

    `images_per_second` are those of all on all devices, `times_ms` the latencies of a batch in each.
    """

    processes: int
    instances: int
    images_per_second: float
    times_ms: np.ndarray
    remarks: tuple[str, ...] = ()
    date: str = UNKNOWN


class Measured(NamedTuple):
    """What one model gave: its rows, and for the report its score, its latencies, what the runs spent and what int8
    costs its layers.
    """

    rows: list[BenchRow]
    judged: collect.Judged | None
    speeds: list[data.Speed]
    steps: list[data.Step]
    remarks: list[str]
    layer_costs: data.LayerCosts | None


def check(models: Mapping[int, Path], runs: Runs) -> None:
    """Raises PipelineError or ArgumentError for what ais_bench would refuse of a run, before anything runs."""
    compiled = [model for model in models.values() if model.suffix == ".om"]
    if compiled:
        tensors = [runs.tensors] if runs.tensors is not None else []
        names = [f"result_bs{batch}" for batch in models]
        names += [_loop_name(batch, copies) for batch in models for copies in runs.copies]
        check_run(compiled, tensors, runs.folder, names, runs.loop or 1)


def _loop_name(batch: int, copies: Copies) -> str:
    """The folder of a pure loop's results; `auto` where the runtime is asked how many instances are best."""
    marks = {"x": copies.processes, "i": copies.instances or "auto"}
    return f"pure_bs{batch}" + "".join(f"_{mark}{count}" for mark, count in marks.items() if count != 1)


def measure(model: Path, batch: int, runs: Runs, ledger: Ledger, say: Say = silent) -> Measured:
    """Runs the client; raises PipelineError where it refuses, fails, leaves an image out, or the model changes."""
    with Unchanged(*model_files(model)):
        return _Measuring(model, batch, runs, ledger, say).all()


class _Measuring:
    """The runs of one model at one batch size, each by the `ledger`, which may have it of an earlier program."""

    def __init__(self, model: Path, batch: int, runs: Runs, ledger: Ledger, say: Say) -> None:
        self._model, self._batch, self._runs, self._ledger, self._say = model, batch, runs, ledger, say
        self._steps: list[data.Step] = []
        self._files = digests(model)

    def all(self) -> Measured:
        """The accuracy, then the speeds; the rows are in bench.json as they come."""
        result, summaries = None, []
        if self._runs.tensors is not None and self._runs.labels is not None:
            summaries = self._results(self._runs.tensors)
            result = accuracy(self._model, self._batch, summaries, self._runs.labels)
        timings: list[Timed] = []
        for copies in self._copies():
            timings.append(self._time(copies))
            found = measured(self._model, self._batch, self._files, result, summaries, timings, self._steps)
            self._ledger.write(self._batch, found.rows)
            if self._runs.search and not helps([each.images_per_second for each in timings]):
                break
        return found

    def _run(self, name: str, made_of: Mapping[str, Any], devices: Sequence[int], work: Callable[[], Any]) -> Run:
        made_of = {"model": self._files, "devices": list(devices), **made_of}
        run = self._ledger.run(name, summaries_of(self._runs.folder, name, devices), made_of, work)
        self._steps += run.steps
        return run

    def _client(self, name: str, title: str, devices: Sequence[int], flags: Sequence[str]) -> data.Step:
        flags = [*self._runs.flags(self._batch), *flags]
        spent = run_client(self._model, self._runs.folder, name, *flags, devices=devices).spent
        return data.Step(title, spent.seconds, spent.peak_bytes)

    def _results(self, tensors: PathLike) -> list[Path]:
        """Summaries of the results for all tensors."""
        # Six digits are enough for logits, not for probabilities.
        outfmt = "NPY" if _gives_probabilities(self._model) else "TXT"
        name, devices = f"result_bs{self._batch}", self._runs.devices
        made_of = {"outfmt": outfmt, "tensors": tensors_state(tensors), "input": os.fspath(tensors)}
        flags, title = [f"--input={tensors}", "--outfmt", outfmt], f"data set, batch {self._batch}"
        self._run(name, made_of, devices, lambda: [self._client(name, title, devices, flags)])
        return summaries_of(self._runs.folder, name, devices)

    def _copies(self) -> list[Copies]:
        """With the number that the runtime finds best, where that is asked for; each once, and a search goes upward."""
        found = dict.fromkeys(copies if copies.instances else self._best(copies) for copies in self._runs.copies)
        return sorted(found) if self._runs.search else list(found)

    def _best(self, copies: Copies) -> Copies:
        name = _loop_name(self._batch, copies)
        title = f"asking for instances, batch {self._batch}"
        self._run(name, {}, [0], lambda: [self._client(name, title, [0], ["--instances=auto"])])
        (summary,) = summaries_of(self._runs.folder, name, [0])
        return copies._replace(instances=int(read_summary(summary).get("instances", 1)))

    def _time(self, copies: Copies) -> Timed:
        runs, name = self._runs, _loop_name(self._batch, copies)
        devices = [device for device in runs.devices for _ in range(copies.processes)]
        summaries, log = summaries_of(runs.folder, name, devices), runs.folder / f"{name}.log"
        made_of = {"loop": runs.loop, "duration": runs.duration, "warmup": runs.warmup}
        run = self._run(name, made_of, devices, lambda: self._loops(copies, name, devices))
        loops = spans(log, len(devices)) if len(devices) > 1 else None
        found = timed(self._batch, copies, summaries, loops)._replace(date=run.date)
        kept = ", kept from an earlier run" if run.kept else ""
        self._say(f"batch {self._batch}{copies.words}: {found.images_per_second:.1f} images/s{kept}")
        return found

    def _loops(self, copies: Copies, name: str, devices: Sequence[int]) -> list[data.Step]:
        """Runs the pure loop; again, and longer, where the processes began too far apart for it."""
        steps, instances = [], copies.instances or 1
        summaries, log = summaries_of(self._runs.folder, name, devices), self._runs.folder / f"{name}.log"
        flags = [f"--warmup_count={self._runs.warmup}", *([f"--instances={instances}"] if instances > 1 else [])]

        def run(loop: int) -> list[Span] | None:
            title = f"pure loop, batch {self._batch}{copies.words}"
            steps.append(self._client(name, title, devices, [f"--loop={loop * instances}", *flags]))
            return spans(log, len(devices)) if len(devices) > 1 else None

        loop = self._runs.loop
        if loop is None:
            run(TRIAL)
            loop = filling(self._runs.duration or 0, summaries)
        loops = run(loop)
        for _ in range(MOST_TRIES - 1):
            if loops is not None and shared(loops) < ENOUGH and loop < MOST_LOOPS:
                loop = longer(loop, loops)
                loops = run(loop)
        if loops is not None and shared(loops) < ENOUGH:
            raise PipelineError(
                f"{self._model}: of {len(devices)} processes all ran for {100 * shared(loops):.0f} % of {loop:,} runs, "
                f"the rest had the device for themselves; run it again with --loop {min(MOST_LOOPS, 4 * loop)}"
            )
        return steps


def filling(seconds: float, summaries: Sequence[Path]) -> int:
    """How many runs take so long, of what a few took; ais_bench takes at most MOST_LOOPS."""
    times = [time for summary in summaries for time in read_summary(summary)["npu_compute_time_list"]]
    run = float(np.median(times)) / 1000  # the first ones may be slow
    return min(MOST_LOOPS, max(1, math.ceil(seconds / run))) if run > 0 else MOST_LOOPS


def timed(batch: int, copies: Copies, summaries: Sequence[Path], loops: Sequence[Span] | None) -> Timed:
    """Processes and devices work side by side: their images/s add up, their latencies are those of one.

    Where `loops` say when each process ran, the runs count that had all others beside them. Of instances the client
    itself says what they gave by the clock.
    """
    if (instances := copies.instances or 1) > 1:
        (summary,) = map(read_summary, summaries)
        times = np.asarray(summary["npu_compute_time_list"], float)
        return Timed(copies.processes, instances, float(summary["throughput"]), times)
    every = [read_summary(summary)["npu_compute_time_list"] for summary in summaries]
    counted = [np.asarray(times, float) for times in every] if loops is None else side_by_side(every, loops)
    if not all(map(len, counted)):
        raise PipelineError(f"{summaries[0]}: holds no run that had all others beside it; take a larger --loop")
    rate = sum(1000 * batch / float(np.mean(times)) for times in counted)
    return Timed(copies.processes, 1, rate, np.concatenate(counted), _remarks(batch, rate, every, loops))


def _remarks(
    batch: int, rate: float, every: Sequence[Sequence[float]], loops: Sequence[Span] | None
) -> tuple[str, ...]:
    name = f"batch {batch}, {len(every)} processes"
    if len(every) == 1:
        return ()
    if loops is None:
        return (f"{name}: the client did not say when each ran, so the sum holds if all did at the same time",)
    by_the_clock = sum(batch * len(times) / loop.seconds for times, loop in zip(every, loops))
    if by_the_clock < BY_THE_CLOCK * rate:
        return (f"{name}: {rate:.1f} images/s of the network alone, {by_the_clock:.1f} by the clock, with all copies",)
    return ()


def _gives_probabilities(model: Path) -> bool:
    return bool(sidecar.read(model).get("answers") == "probabilities")


def measured(
    model: Path,
    batch: int,
    files: dict[str, str],
    result: Result | None,
    summaries: list[Path],
    timings: Sequence[Timed],
    steps: list[data.Step],
) -> Measured:
    """A row for each of `timings`; the accuracy is the model's, of these `files`, however many copies ran."""
    top1, top5 = (100 * result.score.top1_acc, 100 * result.score.top5_acc) if result else (None, None)
    says = record_of(model, files)
    network, precision, dtype, chip = (str(says.get(key, UNKNOWN)) for key in ("network", "precision", "dtype", "chip"))
    rows = []
    for each in timings:
        p50, p90, p99, p99_9 = np.percentile(each.times_ms, (50, 90, 99, 99.9)).tolist()
        mean, rate, runs = float(each.times_ms.mean()), each.images_per_second, len(each.times_ms)
        rows.append(
            BenchRow(
                *(batch, each.processes, each.instances, top1, top5, rate, mean, p50, p90, p99, p99_9, runs, each.date),
                *(str(model), files, network, precision, dtype, chip),
            )
        )
    judged = None
    if result:
        fastest = max(row.images_per_second for row in rows)
        judged = collect.Judged("compiled", batch, result, summaries, fastest)
    speeds = [
        collect.speed(batch, each.images_per_second, each.times_ms, each.processes, each.instances) for each in timings
    ]
    remarks = [remark for each in timings for remark in each.remarks]
    return Measured(rows, judged, speeds, steps, remarks, collect.layer_costs(says))


def accuracy(model: Path, batch: int, summaries: Sequence[Path], labels: PathLike) -> Result:
    """Scores the results; raises PipelineError unless every image has one."""
    for summary in summaries:
        _check_batch(model, batch, summary)
    result = score_summaries(summaries, labels, probabilities=_gives_probabilities(model))
    for kind, cases in result.problems.items():
        if cases:
            raise PipelineError(
                f"{summaries[0]}: {len(cases)} {kind}, such as {cases[0]}; look with: python ResNeSt_postprocess.py "
                f"{' '.join(f'--results={summary}' for summary in summaries)} --labels={labels}"
            )
    return result


def _check_batch(model: Path, batch: int, summary: Path) -> None:
    """Raises PipelineError where a model of this batch size would have taken another number of runs."""
    fields = read_summary(summary)
    runs, images = len(fields["npu_compute_time_list"]), len(fields["filesinfo"])
    if runs != math.ceil(images / batch):
        raise PipelineError(
            f"{model}: took {runs} runs for {images} images, a batch of {batch} takes {math.ceil(images / batch)}; its "
            "batch size is not the one asked for, compile it again with convert.sh"
        )
