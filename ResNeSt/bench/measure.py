"""One model: a run over the tensors for the accuracy, and a pure loop for the speed of every number of processes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ResNeSt.bench.models import record_of
from ResNeSt.bench.overlap import ENOUGH, Span, longer, shared, side_by_side, spans
from ResNeSt.bench.rows import UNKNOWN, BenchRow
from ResNeSt.common.ais_bench_paths import MOST_LOOPS
from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.common.made_of import Unchanged
from ResNeSt.infer.client import check_run, run_client
from ResNeSt.models import sidecar
from ResNeSt.models.files import digests, model_files
from ResNeSt.report import collect, data
from ResNeSt.score.outputs import read_summary
from ResNeSt.score.score import Result, score_summaries

MOST_TRIES = 3  # of a loop that is too short; a few runs say little of how long many take
BY_THE_CLOCK = 0.9  # of the images/s: where the clock sees fewer, it is said


class Runs(NamedTuple):
    """What runs for every model; results go to `folder`, without tensors and labels the pure loops alone run."""

    folder: Path
    tensors: PathLike | None
    labels: PathLike | None
    loop: int
    devices: Sequence[int]
    processes: Sequence[int]
    dynamic: bool

    def flags(self, batch: int) -> list[str]:
        """What names the batch size to the client: the throughput's, and the model's where it takes several."""
        return [f"--batchsize={batch}", *([f"--dymBatch={batch}"] if self.dynamic else [])]


class Timed(NamedTuple):
    """The speed of a model in one number of processes a device.

    `images_per_second` are those of all processes on all devices, `times_ms` the latencies of a batch in each.
    """

    processes: int
    images_per_second: float
    times_ms: np.ndarray
    remarks: tuple[str, ...] = ()


class Measured(NamedTuple):
    """What one model gave: its rows, and for the report its score, its latencies and what the runs spent."""

    rows: list[BenchRow]
    judged: collect.Judged | None
    speeds: list[data.Speed]
    steps: list[data.Step]
    remarks: list[str]


def check(models: Mapping[int, Path], runs: Runs) -> None:
    """Raises PipelineError or ArgumentError for what ais_bench would refuse of a run, before anything runs."""
    compiled = [model for model in models.values() if model.suffix == ".om"]
    if compiled:
        tensors = [runs.tensors] if runs.tensors is not None else []
        names = [name for batch in models for name in (f"result_bs{batch}", *_loops_of(batch, runs).values())]
        check_run(compiled, tensors, runs.folder, names, runs.loop)


def _loops_of(batch: int, runs: Runs) -> dict[int, str]:
    """The folder of the pure loop's results, by the number of processes."""
    return {count: f"pure_bs{batch}{f'_x{count}' if count > 1 else ''}" for count in runs.processes}


def measure(model: Path, batch: int, runs: Runs) -> Measured:
    """Runs the client; raises PipelineError where it refuses, fails, leaves an image out, or the model changes."""
    with Unchanged(*model_files(model)):
        return _measure(model, batch, runs)


def _measure(model: Path, batch: int, runs: Runs) -> Measured:
    steps: list[data.Step] = []
    summaries: list[Path] = []
    result = None
    if runs.tensors is not None and runs.labels is not None:
        # Six digits are enough for logits, not for probabilities.
        outfmt = "NPY" if _gives_probabilities(model) else "TXT"
        flags = [f"--input={runs.tensors}", *runs.flags(batch), "--outfmt", outfmt]
        summaries, spent = run_client(model, runs.folder, f"result_bs{batch}", *flags, devices=runs.devices)
        steps.append(data.Step(f"data set, batch {batch}", spent.seconds, spent.peak_bytes))
        result = accuracy(model, batch, summaries, runs.labels)
    timed = [_time(model, batch, count, dirname, runs, steps) for count, dirname in _loops_of(batch, runs).items()]
    return measured(model, batch, result, summaries, timed, steps)


def _time(model: Path, batch: int, processes: int, dirname: str, runs: Runs, steps: list[data.Step]) -> Timed:
    """Runs the pure loop; again, and longer, where the processes began too far apart for it."""
    devices = [device for device in runs.devices for _ in range(processes)]
    title = f"pure loop, batch {batch}{data.several(processes)}"

    def run(loop: int) -> tuple[list[Path], list[Span] | None]:
        flags = [f"--loop={loop}", *runs.flags(batch)]
        summaries, spent = run_client(model, runs.folder, dirname, *flags, devices=devices)
        steps.append(data.Step(title, spent.seconds, spent.peak_bytes))
        return summaries, spans(runs.folder / f"{dirname}.log", len(devices)) if len(devices) > 1 else None

    loop = runs.loop
    summaries, loops = run(loop)
    for _ in range(MOST_TRIES - 1):
        if loops is not None and shared(loops) < ENOUGH and loop < MOST_LOOPS:
            loop = longer(loop, loops)
            summaries, loops = run(loop)
    if loops is not None and shared(loops) < ENOUGH:
        raise PipelineError(
            f"{model}: of {len(devices)} processes all ran for {100 * shared(loops):.0f} % of {loop:,} runs, the rest "
            f"had the device for themselves; run it again with --loop {min(MOST_LOOPS, 4 * loop)}"
        )
    return timed(batch, processes, summaries, loops)


def timed(batch: int, processes: int, summaries: Sequence[Path], loops: Sequence[Span] | None) -> Timed:
    """Processes and devices work side by side: their images/s add up, their latencies are those of one.

    Where `loops` say when each process ran, the runs count that had all others beside them.
    """
    every = [read_summary(summary)["npu_compute_time_list"] for summary in summaries]
    counted = [np.asarray(times, float) for times in every] if loops is None else side_by_side(every, loops)
    if not all(map(len, counted)):
        raise PipelineError(f"{summaries[0]}: holds no run that had all others beside it; take a larger --loop")
    rate = sum(1000 * batch / float(np.mean(times)) for times in counted)
    return Timed(processes, rate, np.concatenate(counted), _remarks(batch, processes, rate, every, loops))


def _remarks(
    batch: int, processes: int, rate: float, every: Sequence[Sequence[float]], loops: Sequence[Span] | None
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
    result: Result | None,
    summaries: list[Path],
    timings: Sequence[Timed],
    steps: list[data.Step],
) -> Measured:
    """A row for each of `timings`; the accuracy is the model's, however many processes ran."""
    top1, top5 = (100 * result.score.top1_acc, 100 * result.score.top5_acc) if result else (None, None)
    files = digests(model)
    says = record_of(model, files)
    network, precision, dtype, chip = (str(says.get(key, UNKNOWN)) for key in ("network", "precision", "dtype", "chip"))
    rows = []
    for each in timings:
        p50, p90, p99 = (float(value) for value in np.percentile(each.times_ms, (50, 90, 99)))
        mean, rate = float(each.times_ms.mean()), each.images_per_second
        rows.append(
            BenchRow(
                *(batch, each.processes, top1, top5, rate, mean, p50, p90, p99),
                *(str(model), files, network, precision, dtype, chip),
            )
        )
    judged = None
    if result:
        probabilities = _gives_probabilities(model)
        fastest = max(row.images_per_second for row in rows)
        judged = collect.Judged("compiled", batch, result, summaries, fastest, probabilities=probabilities)
    speeds = [collect.speed(batch, each.images_per_second, each.times_ms, each.processes) for each in timings]
    return Measured(rows, judged, speeds, steps, [remark for each in timings for remark in each.remarks])


def accuracy(model: Path, batch: int, summaries: Sequence[Path], labels: PathLike) -> Result:
    """Scores the results; raises PipelineError unless every image has one."""
    for summary in summaries:
        _check_batch(model, batch, summary)
    result = score_summaries(summaries, labels)
    for kind, cases in result.problems.items():
        if cases:
            raise PipelineError(
                f"{summaries[0]}: {len(cases)} {kind}, such as {cases[0]}; look with: python ResNeSt_postprocess.py "
                f"{' '.join(f'--result_path={summary}' for summary in summaries)} --gt_path={labels}"
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
