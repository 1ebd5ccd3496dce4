"""Stage 4: for every batch size the accuracy of the compiled model and a pure-loop speed run, as a table."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import math
import operator
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ResNeSt.common.ais_bench_names import stem
from ResNeSt.common.arguments import Parser, positive
from ResNeSt.common.errors import ArgumentError, PipelineError, run
from ResNeSt.common.files import PathLike, alone, remove_plain, whole, write_json
from ResNeSt.common.made_of import Unchanged
from ResNeSt.common.paths import refuse_clashes
from ResNeSt.common.tables import table
from ResNeSt.convert import chips
from ResNeSt.convert.targets import check_batches, compiled_name, parse_batches
from ResNeSt.images.listing import image_names, list_images
from ResNeSt.infer.client import check_input, check_om_tensors, check_output, make_output_folder, run_client
from ResNeSt.labels.file import check_names, read_labels
from ResNeSt.models import sidecar
from ResNeSt.models.files import digests, model_files
from ResNeSt.models.model_info import recipe_note
from ResNeSt.report import collect, data
from ResNeSt.report.draw import NAME as REPORT
from ResNeSt.report.draw import draw_where_possible
from ResNeSt.report.machine import about, environment
from ResNeSt.score.label_numbers import remarks_on
from ResNeSt.score.outputs import read_summary
from ResNeSt.score.score import Result, score_summaries
from ResNeSt.tensors.folder import tensor_files
from ResNeSt.tensors.format import read_index

UNKNOWN = "unknown"
PREFIX = "resnest50"
USUAL_DATA = ("prep_dataset", "val_label.txt")


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What is asked of stage 4.

    Models are `<prefix>_bs<N>.om` or `.xml` for each N of `batches` on `chip` (or `auto`). `tensors` and
    `labels` are for the accuracy; without both the speed alone is measured, by `loop` runs. `devices` are NPUs, which
    share the data set. Everything is written to `folder`; `images` are the pictures behind the tensors, for the report.
    A report.html of an earlier run is removed unless `keep_report`.
    """

    batches: Sequence[int]
    chip: str
    prefix: str = PREFIX
    tensors: PathLike | None = None
    labels: PathLike | None = None
    loop: int = 100
    devices: Sequence[int] = (0,)
    folder: PathLike = "bench"
    images: PathLike | None = None
    keep_report: bool = False


@dataclasses.dataclass(frozen=True)
class BenchRow:
    """One batch size: accuracy in percent (None where it was not measured), images/s, latency of a batch in ms.

    And what ran: the model, the SHA-256 of each of its files, the SHA-256 of the ONNX file that it was made from, and
    what it was compiled for; "unknown" where no record beside it is of these very files.
    """

    batch: int
    top1: float | None
    top5: float | None
    images_per_second: float
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    model: str
    sha256: dict[str, str]
    network: str
    precision: str
    dtype: str
    compiled_for: str


@dataclasses.dataclass(frozen=True)
class Benched:
    """A row per batch size, in the order asked for; bench.csv, bench.json and report.json lie in `folder`.

    `remarks` say where the labels seem to count from another class than the model, or the tensors' recipe is not the
    model's own. `recipe` is that of the tensors, `model_recipe` the model's own, None where nothing says it.
    """

    rows: tuple[BenchRow, ...]
    folder: Path
    remarks: tuple[str, ...] = ()
    recipe: str | None = None
    model_recipe: str | None = None

    @property
    def fastest(self) -> BenchRow:
        """The row with the most images/s."""
        return max(self.rows, key=lambda row: row.images_per_second)


class _Measured(NamedTuple):
    """What one batch size gave: its row, and for the report its score, its latencies and what the runs spent."""

    row: BenchRow
    judged: collect.Judged | None
    speed: data.Speed
    steps: list[data.Step]


def bench(benchmark: Benchmark) -> Benched:
    """Measures every batch size; the figures of an older run in the folder go first.

    Raises ArgumentError for options that do not go together, PipelineError where a model or a file is not there, does
    not fit or is refused by ais_bench, or where a client fails, MissingRuntimeError where ais_bench is not installed.
    """
    chip, batches = chips.resolve(benchmark.chip), check_batches(benchmark.batches)
    prefix, loop = os.fspath(benchmark.prefix), operator.index(benchmark.loop)
    if loop < 1:
        raise ArgumentError(f"loop {loop}, expected a whole number above 0")
    benchmark = dataclasses.replace(benchmark, chip=chip, batches=batches, prefix=prefix, loop=loop)
    _check_devices(benchmark.chip, benchmark.devices)
    if (benchmark.tensors is None) != (benchmark.labels is None):
        raise ArgumentError("accuracy takes both --input and --labels; for speed alone leave both out")
    models = {batch: _model(benchmark.prefix, batch, benchmark.chip) for batch in benchmark.batches}
    records = {model: _record(model, digests(model)) for model in models.values()}
    _refuse_others(records, benchmark)
    files: list[str] = []
    if benchmark.tensors is not None and benchmark.labels is not None:
        files = [tensor.path for tensor in tensor_files(benchmark.tensors)]
        check_names(benchmark.labels, read_labels(benchmark.labels), benchmark.tensors, files)
    if benchmark.images is not None:
        _check_images(benchmark.images, files)
    figures = [Path(benchmark.folder, name) for name in ("bench.csv", "bench.json", data.NAME)]
    read = [path for path in (benchmark.tensors, benchmark.labels, benchmark.images) if path is not None]
    refuse_clashes([*read, *models.values()], figures)
    folder = make_output_folder(benchmark.folder)
    with alone(folder / "bench.json"):
        for path in figures if benchmark.keep_report else [*figures, folder / REPORT]:  # of an earlier run
            remove_plain(path)
        measured = [_measure(model, batch, folder, benchmark) for batch, model in models.items()]
        rows = tuple(each.row for each in measured)
        info = sidecar.info_of(next(iter(models.values())))
        index = read_index(benchmark.tensors) if benchmark.tensors is not None else None
        recipe = index.format.recipe if index else None
        remarks = [*_remarks(measured[0], benchmark.labels), *_unlike(rows), *filter(None, [recipe_note(info, recipe)])]
        benched = Benched(rows, folder, tuple(remarks), recipe, info.get("recipe"))
        _write(benched, benchmark)
        data.write(folder, _report(measured, next(iter(models.values())), benchmark, benched))
    return benched


def _check_devices(chip: str, devices: Sequence[int]) -> None:
    if chip == chips.CPU and list(devices) != [0]:
        raise ArgumentError("--device is for NPUs; on cpu there is device 0 only, which takes all cores")


def _check_images(folder: PathLike, tensors: Sequence[str]) -> None:
    """Raises PipelineError unless the folder holds pictures, among them one of `tensors`, where there are any."""
    images = list_images(folder)
    here = set(map(stem, image_names(images, folder)))
    if tensors and not any(stem(tensor) in here for tensor in tensors):
        raise PipelineError(
            f"{folder}: holds {len(images)} pictures, but none of which the tensors are, such as {stem(tensors[0])}; "
            "name the folder of those pictures, or leave --images out"
        )


def _model(prefix: str, batch: int, chip: str) -> Path:
    path = Path(compiled_name(prefix, batch, chip))
    for file in model_files(path):
        if not file.is_file():
            raise PipelineError(f"{file}: no such file; make it with: {_compile_command(prefix, batch, chip)}")
    compiled_for = sidecar.read(path).get("batch", batch)
    if compiled_for != batch:
        raise PipelineError(
            f"{path}: is compiled for batch {compiled_for}, says {path.name}.json; "
            f"make it with: {_compile_command(prefix, batch, chip)}"
        )
    return path


def _compile_command(prefix: str, batches: object, chip: str) -> str:
    """The command that makes the models called so, of the ONNX file that is called so."""
    folder = os.path.dirname(prefix)
    onnx = [] if prefix == PREFIX else [f"--onnx={prefix}.onnx"]
    flags = [*onnx, *([f"--output-dir={folder}"] if folder else [])]
    return shlex.join(["bash", "convert.sh", str(batches), chip, *flags])


def _record(model: Path, files: dict[str, str]) -> dict[str, Any]:
    """What lies beside the model, if it is of `files`, names with digests."""
    record = sidecar.read(model)
    return record if record.get("files") == files else {}


def _refuse_others(records: Mapping[Path, dict[str, Any]], benchmark: Benchmark) -> None:
    """Raises PipelineError where a model is for another chip, or where one table would be of two networks."""
    for model, record in records.items():
        its_chip = record.get("chip", benchmark.chip)
        if its_chip != benchmark.chip:
            raise PipelineError(
                f"{model}: is compiled for {its_chip}, says {model.name}.json, not for {benchmark.chip}; run bench.sh "
                f"for {its_chip}, or compile it for {benchmark.chip} into another folder"
            )
    known = [(model, record) for model, record in records.items() if "network" in record]
    for model, record in known[1:]:
        first, its = known[0]
        if record["network"] != its["network"] and record.get("source") != its.get("source"):
            raise PipelineError(
                f"{model}: is compiled from another network than {first}; compile them anew: "
                f"{_compile_command(benchmark.prefix, ','.join(map(str, benchmark.batches)), benchmark.chip)}"
            )


def _measure(model: Path, batch: int, folder: Path, benchmark: Benchmark) -> _Measured:
    tensors = benchmark.tensors
    if model.suffix == ".om":
        check_output(folder)
        for path in (model, *([tensors] if tensors is not None else [])):
            check_input(path)
        if tensors is not None:
            check_om_tensors(model, tensors)
    with Unchanged(*model_files(model)):
        return _run(model, batch, folder, benchmark)


def _run(model: Path, batch: int, folder: Path, benchmark: Benchmark) -> _Measured:
    tensors, devices = benchmark.tensors, benchmark.devices
    steps: list[data.Step] = []
    summaries: list[Path] = []
    result = None
    if tensors is not None and benchmark.labels is not None:
        # Six digits are enough for logits, not for probabilities.
        outfmt = "NPY" if _gives_probabilities(model) else "TXT"
        flags = [f"--input={tensors}", f"--batchsize={batch}", "--outfmt", outfmt]
        summaries, spent = run_client(model, folder, f"result_bs{batch}", *flags, devices=devices)
        steps.append(data.Step(f"data set, batch {batch}", spent.seconds, spent.peak_bytes))
        result = _accuracy(model, batch, summaries, benchmark.labels)
    flags = [f"--loop={benchmark.loop}", f"--batchsize={batch}"]
    speed, spent = run_client(model, folder, f"pure_bs{batch}", *flags, devices=devices)
    steps.append(data.Step(f"pure loop, batch {batch}", spent.seconds, spent.peak_bytes))
    return _measured(model, batch, result, summaries, speed, steps)


def _gives_probabilities(model: Path) -> bool:
    return bool(sidecar.read(model).get("answers") == "probabilities")


def _measured(
    model: Path,
    batch: int,
    result: Result | None,
    summaries: list[Path],
    speed: Sequence[Path],
    steps: list[data.Step],
) -> _Measured:
    """Devices work side by side: their images/s add up, their latencies are those of one."""
    lists = [read_summary(summary)["npu_compute_time_list"] for summary in speed]
    rate = sum(1000 * batch / float(np.mean(times)) for times in lists)
    times = np.concatenate(lists)
    p50, p90, p99 = (float(value) for value in np.percentile(times, (50, 90, 99)))
    top1, top5 = (100 * result.score.top1_acc, 100 * result.score.top5_acc) if result else (None, None)
    files = digests(model)
    says = _record(model, files)
    network, precision, dtype, chip = (str(says.get(key, UNKNOWN)) for key in ("network", "precision", "dtype", "chip"))
    row = BenchRow(
        *(batch, top1, top5, rate, float(times.mean()), p50, p90, p99),
        *(str(model), files, network, precision, dtype, chip),
    )
    judged = None
    if result:
        probabilities = _gives_probabilities(model)
        judged = collect.Judged("compiled", batch, result, summaries, rate, probabilities=probabilities)
    return _Measured(row, judged, collect.speed(batch, rate, times), steps)


def _accuracy(model: Path, batch: int, summaries: Sequence[Path], labels: PathLike) -> Result:
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


def _remarks(measured: _Measured, labels: PathLike | None) -> tuple[str, ...]:
    return tuple(remarks_on(measured.judged.result, labels)) if measured.judged and labels is not None else ()


def _report(measured: Sequence[_Measured], model: Path, benchmark: Benchmark, benched: Benched) -> data.Report:
    precision = {"precision": ", ".join(dict.fromkeys(each.row.precision for each in measured))}
    return collect.report(
        collect.of_info(sidecar.info_of(model), Path(benchmark.prefix).name, benched.recipe),
        {"models": f"{benchmark.prefix}_bs*{model.suffix}", **precision, **about(benchmark.chip)},
        [each.judged for each in measured if each.judged],
        [each.speed for each in measured],
        [step for each in measured for step in each.steps],
        benchmark.loop,
        benchmark.images,
    )


def _write(benched: Benched, benchmark: Benchmark) -> None:
    where, folder = environment(benchmark.chip), benched.folder
    figures = [{**dataclasses.asdict(row), "best": row is benched.fastest} for row in benched.rows]
    recipes = {"recipe": benched.recipe, "model_recipe": benched.model_recipe}
    asked = {"model": benchmark.prefix, "loop": benchmark.loop, **recipes}
    write_json(folder / "bench.json", {**where, **asked, "rows": figures})
    versions = _in_words(where.pop("versions"))
    flat = [{**row, "sha256": _in_words(row["sha256"])} for row in figures]
    _write_csv(folder / "bench.csv", [{**row, **recipes, **where, "versions": versions} for row in flat])


def _in_words(pairs: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in pairs.items())


def _write_csv(path: PathLike, rows: Sequence[dict[str, Any]]) -> None:
    with whole(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def main() -> int:
    """Command line of bench.sh."""
    options = _parser().parse_args()
    batches, chip = parse_batches(options.batches), chips.resolve(options.chip)
    _check_devices(chip, options.device)
    tensors, labels = _data(options)
    benchmark = Benchmark(
        batches=batches,
        chip=chip,
        prefix=options.model,
        tensors=tensors,
        labels=labels,
        loop=options.loop,
        devices=options.device,
        folder=options.output_dir,
        images=options.images,
        keep_report=options.no_report,
    )
    benched = bench(benchmark)
    print("\n".join([_table(benched), *(f"note: {remark}" for remark in benched.remarks)]))
    written = f"{benched.folder}/bench.csv and bench.json"
    print(f"chip {chip}, {options.loop} runs a row, * is the fastest; written to {written}")
    if not options.no_report:
        draw_where_possible(benched.folder)
    return 0


def _parser() -> Parser:
    parser = Parser(prog="bench.sh", description=__doc__)
    parser.add_argument("batches", metavar="BATCHES", help="batch sizes, like 1,4,8")
    parser.add_argument("chip", metavar="CHIP", help="a chip like 310P3, cpu, or auto")
    parser.add_argument("--model", default=PREFIX, metavar="PREFIX", help="models are PREFIX_bs<N>.om [%(default)s]")
    parser.reads("--input", metavar="DIR", help="tensors of stage 1 [prep_dataset, if there]")
    parser.reads("--labels", metavar="FILE", help="for the accuracy [val_label.txt, if there]")
    parser.add_argument("--loop", type=positive, default=100, help="runs of the speed measurement [%(default)s]")
    parser.add_argument(
        "--device", type=_devices, default=[0], metavar="N[,N…]", help="NPUs, which share the data set [0]"
    )
    parser.fills("--output-dir", default="bench", metavar="DIR", help="[%(default)s]")
    parser.reads("--images", metavar="DIR", help="the pictures behind the tensors, for the report")
    parser.add_argument("--no-report", action="store_true", help="draw no report.html")
    return parser


def _devices(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _data(options: argparse.Namespace) -> tuple[str | None, str | None]:
    """--input and --labels as given, else the usual names where both are there, else none."""
    if options.input or options.labels:
        return options.input, options.labels
    if all(map(os.path.exists, USUAL_DATA)):
        return USUAL_DATA
    print(f"speed alone: no {' and '.join(USUAL_DATA)} here, no --input and --labels given")
    return None, None


def _unlike(rows: Sequence[BenchRow]) -> list[str]:
    """What the models were compiled for, a line each, where that is not the same for all, or not known."""
    kinds = {(row.precision, row.dtype) for row in rows}
    if len(kinds) == 1 and (UNKNOWN, UNKNOWN) not in kinds:
        return []
    return [f"{row.model}: precision {row.precision}, dtype {row.dtype}" for row in rows]


def _table(benched: Benched) -> str:
    head = ["batch", "top-1 %", "top-5 %", "images/s", "mean ms", "p50 ms", "p90 ms", "p99 ms"]
    lines = [
        [
            f"{row.batch}{'*' if row is benched.fastest else ' '}",
            *("-" if value is None else f"{value:.2f}" for value in (row.top1, row.top5)),
            f"{row.images_per_second:.1f}",
            *(f"{value:.2f}" for value in (row.mean_ms, row.p50_ms, row.p90_ms, row.p99_ms)),
        ]
        for row in benched.rows
    ]
    return table(head, lines)


if __name__ == "__main__":
    run(main)
