"""One batch size: a run over the tensors for the accuracy, and a pure loop for the speed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ResNeSt.bench.models import record_of
from ResNeSt.bench.rows import UNKNOWN, BenchRow
from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.common.made_of import Unchanged
from ResNeSt.infer.client import check_input, check_om_tensors, check_output, run_client
from ResNeSt.models import sidecar
from ResNeSt.models.files import digests, model_files
from ResNeSt.report import collect, data
from ResNeSt.score.outputs import read_summary
from ResNeSt.score.score import Result, score_summaries


class Runs(NamedTuple):
    """What runs for every batch size; results go to `folder`, without tensors and labels the pure loop alone runs."""

    folder: Path
    tensors: PathLike | None
    labels: PathLike | None
    loop: int
    devices: Sequence[int]


class Measured(NamedTuple):
    """What one batch size gave: its row, and for the report its score, its latencies and what the runs spent."""

    row: BenchRow
    judged: collect.Judged | None
    speed: data.Speed
    steps: list[data.Step]


def measure(model: Path, batch: int, runs: Runs) -> Measured:
    """Runs the client; raises PipelineError where it refuses, fails, leaves an image out, or the model changes."""
    if model.suffix == ".om":
        check_output(runs.folder)
        for path in (model, *([runs.tensors] if runs.tensors is not None else [])):
            check_input(path)
        if runs.tensors is not None:
            check_om_tensors(model, runs.tensors)
    with Unchanged(*model_files(model)):
        return _measure(model, batch, runs)


def _measure(model: Path, batch: int, runs: Runs) -> Measured:
    steps: list[data.Step] = []
    summaries: list[Path] = []
    result = None
    if runs.tensors is not None and runs.labels is not None:
        # Six digits are enough for logits, not for probabilities.
        outfmt = "NPY" if _gives_probabilities(model) else "TXT"
        flags = [f"--input={runs.tensors}", f"--batchsize={batch}", "--outfmt", outfmt]
        summaries, spent = run_client(model, runs.folder, f"result_bs{batch}", *flags, devices=runs.devices)
        steps.append(data.Step(f"data set, batch {batch}", spent.seconds, spent.peak_bytes))
        result = accuracy(model, batch, summaries, runs.labels)
    flags = [f"--loop={runs.loop}", f"--batchsize={batch}"]
    speed, spent = run_client(model, runs.folder, f"pure_bs{batch}", *flags, devices=runs.devices)
    steps.append(data.Step(f"pure loop, batch {batch}", spent.seconds, spent.peak_bytes))
    return measured(model, batch, result, summaries, speed, steps)


def _gives_probabilities(model: Path) -> bool:
    return bool(sidecar.read(model).get("answers") == "probabilities")


def measured(
    model: Path,
    batch: int,
    result: Result | None,
    summaries: list[Path],
    speed: Sequence[Path],
    steps: list[data.Step],
) -> Measured:
    """Devices work side by side: their images/s add up, their latencies are those of one."""
    lists = [read_summary(summary)["npu_compute_time_list"] for summary in speed]
    rate = sum(1000 * batch / float(np.mean(times)) for times in lists)
    times = np.concatenate(lists)
    p50, p90, p99 = (float(value) for value in np.percentile(times, (50, 90, 99)))
    top1, top5 = (100 * result.score.top1_acc, 100 * result.score.top5_acc) if result else (None, None)
    files = digests(model)
    says = record_of(model, files)
    network, precision, dtype, chip = (str(says.get(key, UNKNOWN)) for key in ("network", "precision", "dtype", "chip"))
    row = BenchRow(
        *(batch, top1, top5, rate, float(times.mean()), p50, p90, p99),
        *(str(model), files, network, precision, dtype, chip),
    )
    judged = None
    if result:
        probabilities = _gives_probabilities(model)
        judged = collect.Judged("compiled", batch, result, summaries, rate, probabilities=probabilities)
    return Measured(row, judged, collect.speed(batch, rate, times), steps)


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
            "batch size is not that of its name, compile it again with convert.sh"
        )
