"""Stage 4: for every batch size the accuracy of the compiled model and a pure-loop speed run, as a table."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import datetime
import json
import math
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

import numpy as np

from ResNeSt import cards, chips
from ResNeSt.arguments import positive
from ResNeSt.cards import Published
from ResNeSt.client import check_input, check_output, make_output_folder, read_summary, run_client
from ResNeSt.convert import compiled_name, parse_batches
from ResNeSt.errors import ArgumentError, PipelineError, run
from ResNeSt.files import PathLike, read_json, whole, write_json
from ResNeSt.labels import check_names, read_labels
from ResNeSt.parallel import cores
from ResNeSt.report import collect, data
from ResNeSt.report.draw import REPORTS, draw_where_possible
from ResNeSt.scoring import Result, score_summaries
from ResNeSt.tables import table
from ResNeSt.tensors import TensorFormat, check_tensors, read_index, tensor_files

USUAL_DATA = ("prep_dataset", "val_label.txt")
PACKAGES = ("ais_bench", "aclruntime", "openvino", "numpy")


@dataclasses.dataclass(frozen=True)
class Row:
    """One batch size: accuracy in percent (None where it was not measured), images/s, latency of a batch in ms."""

    batch: int
    top1: Optional[float]
    top5: Optional[float]
    images_per_second: float
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float


class Bench(NamedTuple):
    """What one batch size gave: its row, and for the report its score, its latencies and what the runs spent."""

    row: Row
    judged: Optional[collect.Judged]
    speed: data.Speed
    steps: List[data.Step]


def main() -> int:
    """Command line of bench.sh."""
    options = _parser().parse_args()
    batches = parse_batches(options.batches)
    chip = chips.resolve(options.chip)
    if chip == chips.CPU and options.device != [0]:
        raise ArgumentError("--device is for NPUs; on cpu there is device 0 only, which takes all cores")
    _find_data(options)
    models = {batch: _model(options.model, batch, chip) for batch in batches}
    if options.input:
        files = [tensor.path for tensor in tensor_files(options.input)]
        check_names(options.labels, read_labels(options.labels), options.input, files)
    output = make_output_folder(options.output_dir)
    for name in ("bench.csv", "bench.json", *REPORTS):  # of an earlier run
        (output / name).unlink(missing_ok=True)
    made = [_bench(model, batch, output, options) for batch, model in models.items()]
    rows = [found.row for found in made]
    _write(output, rows, chip, options)
    print(_table(rows))
    print(f"chip {chip}, {options.loop} runs a row, * is the fastest; written to {output}/bench.csv and bench.json")
    data.write(output, _report(made, models[batches[0]], chip, options))
    if not options.no_report:
        draw_where_possible(output)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench.sh", description=__doc__)
    parser.add_argument("batches", metavar="BATCHES", help="batch sizes, like 1,4,8")
    parser.add_argument("chip", metavar="CHIP", help="a chip like 310P3, cpu, or auto")
    parser.add_argument(
        "--model", default="resnest50", metavar="PREFIX", help="models are PREFIX_bs<N>.om [%(default)s]"
    )
    parser.add_argument("--input", metavar="DIR", help="tensors of stage 1 [prep_dataset, if there]")
    parser.add_argument("--labels", metavar="FILE", help="for the accuracy [val_label.txt, if there]")
    parser.add_argument("--loop", type=positive, default=100, help="runs of the speed measurement [%(default)s]")
    parser.add_argument(
        "--device", type=_devices, default=[0], metavar="N[,N…]", help="NPUs, which share the data set [0]"
    )
    parser.add_argument("--output-dir", default="bench", metavar="DIR", help="[%(default)s]")
    parser.add_argument("--images", metavar="DIR", help="the pictures behind the tensors, for the report")
    parser.add_argument("--no-report", action="store_true", help="draw no report.html")
    return parser


def _devices(text: str) -> List[int]:
    return [int(number) for number in text.split(",")]


def _find_data(options: argparse.Namespace) -> None:
    """Settles --input and --labels: as given, else the usual names where both are there, else none."""
    if bool(options.input) != bool(options.labels):
        raise ArgumentError("accuracy takes both --input and --labels; for speed alone leave both out")
    if not options.input and all(map(os.path.exists, USUAL_DATA)):
        options.input, options.labels = USUAL_DATA
    if not options.input:
        print(f"speed alone: no {' and '.join(USUAL_DATA)} here, no --input and --labels given")


def _model(prefix: str, batch: int, chip: str) -> Path:
    path = Path(compiled_name(prefix, batch, chip))
    if not path.is_file():
        raise PipelineError(f"{path}: no such file; make it with: bash convert.sh {batch} {chip}")
    compiled_for = _record(path).get("batch", batch)
    if compiled_for != batch:
        raise PipelineError(
            f"{path}: is compiled for batch {compiled_for}, says {path.name}.json; "
            f"make it with: bash convert.sh {batch} {chip}"
        )
    return path


def _bench(model: Path, batch: int, output: Path, options: argparse.Namespace) -> Bench:
    if model.suffix == ".om":
        check_output(output)
        for path in filter(None, (model, options.input)):
            check_input(path)
        if options.input:
            _check_tensors(model, options.input)
    steps: List[data.Step] = []
    summaries: List[Path] = []
    result = None
    if options.input:
        flags = [f"--input={options.input}", f"--batchsize={batch}", "--outfmt", "TXT"]
        summaries, spent = run_client(model, output, f"result_bs{batch}", *flags, devices=options.device)
        steps.append(data.Step(f"data set, batch {batch}", spent.seconds, spent.peak_bytes))
        result = _accuracy(model, batch, summaries, options.labels)
    flags = [f"--loop={options.loop}", f"--batchsize={batch}"]
    speed, spent = run_client(model, output, f"pure_bs{batch}", *flags, devices=options.device)
    steps.append(data.Step(f"pure loop, batch {batch}", spent.seconds, spent.peak_bytes))
    return _made(batch, result, summaries, speed, steps)


def _check_tensors(model: Path, tensors: str) -> None:
    """check_tensors for a `.om`, whose record says what it takes; without one ais_bench alone looks at the sizes."""
    said = _record(model)
    info = said.get("info", {})
    if {"recipe", "size", "mean", "std"} <= info.keys():
        size, dtype = int(info["size"]), said.get("dtype", "float32")
        shape = TensorFormat(info["recipe"], size, dtype, (), ()).shape
        check_tensors(tensors, (1, *shape), dtype, info)


def _record(model: Path) -> Dict[str, Any]:
    """What convert.sh wrote beside the model; empty where there is nothing."""
    path = model.with_name(f"{model.name}.json")
    said = read_json(path) if path.is_file() else None
    return said if isinstance(said, dict) else {}


def _made(
    batch: int, result: Optional[Result], summaries: List[Path], speed: Sequence[Path], steps: List[data.Step]
) -> Bench:
    """Devices work side by side: their images/s add up, their latencies are those of one."""
    lists = [read_summary(summary)["npu_compute_time_list"] for summary in speed]
    rate = sum(1000 * batch / float(np.mean(times)) for times in lists)
    times = np.concatenate(lists)
    p50, p90, p99 = (float(value) for value in np.percentile(times, (50, 90, 99)))
    top1, top5 = (100 * result.score.top1_acc, 100 * result.score.top5_acc) if result else (None, None)
    row = Row(batch, top1, top5, rate, float(times.mean()), p50, p90, p99)
    judged = collect.Judged("compiled", batch, result, summaries, rate) if result else None
    return Bench(row, judged, collect.speed(batch, rate, times), steps)


def _accuracy(model: Path, batch: int, summaries: Sequence[Path], labels: str) -> Result:
    """Scores the results; raises PipelineError unless every image has one."""
    for summary in summaries:
        _check_batch(model, batch, summary)
    result = score_summaries(summaries, labels)
    for kind, found in result.problems.items():
        if found:
            raise PipelineError(
                f"{summaries[0]}: {len(found)} {kind}, such as {found[0]}; look with: python ResNeSt_postprocess.py "
                f"{' '.join(f'--result_path={summary}' for summary in summaries)} --gt_path={labels}"
            )
    return result


def _check_batch(model: Path, batch: int, summary: Path) -> None:
    """Raises PipelineError where a model of this batch size would have taken another number of runs."""
    found = read_summary(summary)
    runs, images = len(found["npu_compute_time_list"]), len(found["filesinfo"])
    if runs != math.ceil(images / batch):
        raise PipelineError(
            f"{model}: took {runs} runs for {images} images, a batch of {batch} takes {math.ceil(images / batch)}; its "
            "batch size is not that of its name, compile it again with convert.sh"
        )


def _fastest(rows: Sequence[Row]) -> Row:
    return max(rows, key=lambda row: row.images_per_second)


def _table(rows: Sequence[Row]) -> str:
    head = ["batch", "top-1 %", "top-5 %", "images/s", "mean ms", "p50 ms", "p90 ms", "p99 ms"]
    best = _fastest(rows)
    lines = [
        [
            f"{row.batch}{'*' if row is best else ' '}",
            *("-" if value is None else f"{value:.2f}" for value in (row.top1, row.top5)),
            f"{row.images_per_second:.1f}",
            *(f"{value:.2f}" for value in (row.mean_ms, row.p50_ms, row.p90_ms, row.p99_ms)),
        ]
        for row in rows
    ]
    return table(head, lines)


def environment(chip: str) -> Dict[str, Any]:
    """Where and with what a figure was measured."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "host": platform.node(),
        "machine": platform.machine(),
        "cores": cores(),
        "chip": chip,
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }


def _version(package: str) -> Optional[str]:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def about(chip: str) -> Dict[str, str]:
    """The same in words, for a report."""
    found = environment(chip)
    versions = found.pop("versions")
    return {**{key: str(value) for key, value in found.items()}, **versions}


def _report(made: Sequence[Bench], model: Path, chip: str, options: argparse.Namespace) -> data.Report:
    said = _record(model)
    info = said.get("info", {})
    return data.Report(
        model=info.get("model", Path(options.model).name),
        size=int(info["size"]) if "size" in info else None,
        about={"models": f"{options.model}_bs*{model.suffix}", **_precision(said), **about(chip)},
        loop=options.loop,
        images=options.images,
        class_names=json.loads(info["class_names"]) if "class_names" in info else None,
        published=_published(info, options.input),
        speeds=[found.speed for found in made],
        steps=[step for found in made for step in found.steps],
        **collect.of_stages([found.judged for found in made if found.judged]),
    )


def _published(info: Dict[str, str], tensors: Optional[str]) -> Optional[Published]:
    """For the recipe of the tensors, or else the one that the model names; a card of the user's own has nothing."""
    if info.get("model") not in cards.names() or "class_names" in info:
        return None
    index = read_index(tensors) if tensors else None
    recipe = index.format.recipe if index else info.get("recipe")
    found = cards.card(info["model"]).published
    return next((accuracy for accuracy in found if accuracy.recipe == recipe), None)


def _precision(record: Dict[str, Any]) -> Dict[str, str]:
    return {"precision": str(record["precision"])} if "precision" in record else {}


def _write(output: Path, rows: List[Row], chip: str, options: argparse.Namespace) -> None:
    where = environment(chip)
    best = _fastest(rows).batch
    figures = [{**dataclasses.asdict(row), "best": row.batch == best} for row in rows]
    write_json(output / "bench.json", {**where, "model": options.model, "loop": options.loop, "rows": figures})
    versions = " ".join(f"{name}={version}" for name, version in where.pop("versions").items())
    _write_csv(output / "bench.csv", [{**row, **where, "versions": versions} for row in figures])


def _write_csv(path: PathLike, rows: Sequence[Dict[str, Any]]) -> None:
    with whole(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    run(main)
