"""All four stages in one go, by the same commands a user would type, ending in a table of what each stage gives.

Every command is printed before it runs, and every file stays in the work folder, so any step can be repeated by hand.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

from ResNeSt import chips, metadata, onnx_header
from ResNeSt.agreement import Agreement, Tolerance
from ResNeSt.arguments import positive
from ResNeSt.bench import about, environment
from ResNeSt.cards import Card, card
from ResNeSt.checkpoint import fetch
from ResNeSt.client import read_summary, run_client
from ResNeSt.compare import compare
from ResNeSt.convert import parse_batches
from ResNeSt.errors import ArgumentError, PipelineError, run
from ResNeSt.files import read_json, sha256, write_json
from ResNeSt.labels import check_names, read_labels
from ResNeSt.preprocess import find_images
from ResNeSt.processes import spend
from ResNeSt.report import collect, data
from ResNeSt.report.draw import REPORTS, draw_where_possible
from ResNeSt.scoring import Result, Score, score_summary
from ResNeSt.tables import table

PROJECT = Path(__file__).resolve().parent.parent
DEMO = Path(os.path.relpath(PROJECT / "demo"))  # as short as can be, since commands with it are printed

DEMO_MODEL = "resnest_demo"

# float32 differs by rounding, about 1e-6; the other precisions may flip images that were close.
FP32 = Tolerance(agreement=0.999, difference=1e-3)
REDUCED = Tolerance(agreement=0.95)


@dataclasses.dataclass(frozen=True)
class Job:
    """What is run on what; `folder` takes every file that is made; `model` is what the scripts call the card."""

    card: Card
    model: str
    weights: Path
    images: Path
    labels: Path
    chip: str
    precision: str
    batches: list[int]
    loop: int
    folder: Path

    @property
    def tensors(self) -> Path:
        """Stage 1's result."""
        return self.folder / "prep_dataset"

    @property
    def onnx(self) -> Path:
        """Stage 2's result."""
        return self.folder / f"{self.card.name}.onnx"

    @property
    def simplified(self) -> Path:
        """Stage 3's first result."""
        return self.folder / f"{self.card.name}_sim.onnx"

    @property
    def results(self) -> Path:
        """Stage 4's results."""
        return self.folder / "results"


class Stage(NamedTuple):
    """One row of the table; `images_per_second` is of the stage's own compute time, file work left out.

    `agreement` is with PyTorch and has to be within `tolerance`; `closer` is the command that looks into it.
    """

    name: str
    batch: int
    result: Result
    summary: Path
    agreement: Agreement
    images_per_second: float
    tolerance: Tolerance
    closer: list[str]

    @property
    def score(self) -> Score:
        """Of all images."""
        return self.result.score

    @property
    def judged(self) -> collect.Judged:
        """What the report takes of it."""
        return collect.Judged(
            self.name, self.batch, self.result, [self.summary], self.images_per_second, self.agreement.difference
        )

    @property
    def complaint(self) -> str | None:
        """Why the run must not go on, or None."""
        found = self.tolerance.complaint(self.agreement)
        if found is None:
            return None
        return (
            f"{self.name}, batch {self.batch}, compared with PyTorch: {found}; to dig further run: "
            f"{shlex.join(['python', '-m', 'ResNeSt.compare', *self.closer])}"
        )


def main() -> None:
    """Command line of run.sh."""
    job = _job(_parser().parse_args())
    job.folder.mkdir(parents=True, exist_ok=True)
    for name in ("summary.json", *REPORTS):  # of an earlier run
        (job.folder / name).unlink(missing_ok=True)
    steps = [*_preprocess(job), *_export(job), *_convert(job)]
    stages = _run_uncompiled(job, steps)
    if not any(stage.complaint for stage in stages):
        stages += _run_compiled(job, steps)
    _write(job, stages)
    print(f"\n{_table(stages)}\n")
    print(
        f"{job.card.name} on {stages[0].agreement.images} images, chip {job.chip}; written to {job.folder}/summary.json"
    )
    data.write(job.folder, _report(job, stages, steps))
    draw_where_possible(job.folder)
    for complaint in filter(None, (stage.complaint for stage in stages)):
        raise PipelineError(complaint)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="run.sh", description=__doc__)
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of images [the bundled demo]")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="val_label.txt of these images")
    parser.add_argument("--model", metavar="NAME", help="or a card file [resnest50; resnest_demo without --images]")
    parser.add_argument("--weights", metavar="PTH", default="auto", help="checkpoint [auto: fetch the official file]")
    parser.add_argument(
        "--chip",
        default="cpu",
        help="cpu, auto, or one like 310P3, where this Python has PyTorch and ais_bench [%(default)s]",
    )
    parser.add_argument("--precision", metavar="P", help="of the compiled models, as convert.sh takes it [the chip's]")
    parser.add_argument("--batch", default="1,4,8", metavar="LIST", help="batch sizes [%(default)s]")
    parser.add_argument("--loop", type=positive, default=100, help="runs of each speed measurement [%(default)s]")
    parser.add_argument("--work", type=Path, metavar="DIR", help="folder for all files [work/NAME]")
    return parser


def _job(options: argparse.Namespace) -> Job:
    if (options.images is None) != (options.labels is None):
        raise ArgumentError("give both --images and --labels, or neither for the bundled demo")
    demo = options.images is None
    model = options.model or (DEMO_MODEL if demo else "resnest50")
    found = card(model)
    if demo and model != DEMO_MODEL:
        raise ArgumentError(f"--model {model}: the demo's images go with {DEMO_MODEL}; name yours with --images")
    folder = options.work or Path("work") / found.name
    chip = chips.resolve(options.chip)
    precision, batches = chips.precision(options.precision, chip), parse_batches(options.batch)
    images, labels = options.images or DEMO / "val", options.labels or DEMO / "val_label.txt"
    check_names(labels, read_labels(labels), images, find_images(images))
    return Job(
        card=found,
        model=model,
        weights=_weights(found, options.weights, folder),
        images=images,
        labels=labels,
        chip=chip,
        precision=precision,
        batches=batches,
        loop=options.loop,
        folder=folder,
    )


def _weights(found: Card, given: str, folder: Path) -> Path:
    if given != "auto":
        return Path(given)
    if found == card(DEMO_MODEL):
        return DEMO / f"{found.name}-{found.sha256}.pth"
    folder.mkdir(parents=True, exist_ok=True)
    return fetch(found, folder)


def _preprocess(job: Job) -> list[data.Step]:
    return [_command("preprocess", "resnest_preprocess.py", job.images, job.tensors, "--model", job.model)]


def _export(job: Job) -> list[data.Step]:
    if _is_exported(job):
        return []
    flags = [f"--source={job.weights}", f"--target={job.onnx}", f"--model={job.model}"]
    return [_command("export", "resnest_pth2onnx.py", *flags)]


def _is_exported(job: Job) -> bool:
    """Whether the ONNX file says that it was made of these very weights and of this card."""
    if not job.onnx.is_file() or not job.weights.is_file():
        return False
    made_of = metadata.of_onnx(onnx_header.read(job.onnx).metadata)
    weights = made_of.get("weights", "")
    asked = {"class_names": None, **metadata.describe(job.card, job.card.size, weights)}
    same = all(made_of.get(key) == value for key, value in asked.items())
    return same and weights.endswith(f"sha256:{sha256(job.weights)}")


def _convert(job: Job) -> list[data.Step]:
    flags = [f"--onnx={job.onnx}", f"--output-dir={job.folder}"]
    if job.precision != chips.precision(None, job.chip):
        flags.append(f"--precision={job.precision}")
    if job.precision == "int8":
        flags.append(f"--calibration={job.tensors}")
    return [_command("convert", "convert.sh", ",".join(map(str, job.batches)), job.chip, *flags)]


def _run_uncompiled(job: Job, steps: list[data.Step]) -> list[Stage]:
    """Runs checkpoint and ONNX files, each judged by PyTorch's outputs; a closer look is at it and the one before.

    What they spend goes to `steps`.
    """
    batch = max(job.batches)
    models = {"PyTorch": job.weights, "ONNX": job.onnx, "simplified ONNX": job.simplified}
    rows = []
    before = job.weights
    for number, (name, model) in enumerate(models.items()):
        print(f"running {model} on {job.tensors}", flush=True)
        flags = [f"--input={job.tensors}", f"--dymBatch={batch}", "--outfmt=BIN"]
        architecture = [f"--arch={job.model}"] if model == job.weights else []
        (summary,), spent = run_client(model, job.results, f"stage{number}", *flags, *architecture)
        steps.append(data.Step(name, spent.seconds, spent.peak_bytes))
        look = ["--layers", str(before), str(model), f"--input={job.tensors}", f"--arch={job.model}"]
        rows.append(_stage(name, batch, summary, job, FP32, look))
        before = model
    return rows


def _run_compiled(job: Job, steps: list[data.Step]) -> list[Stage]:
    """bench.sh, its outputs judged by PyTorch's; a closer look is at them and those of what was compiled."""
    batches = ",".join(map(str, job.batches))
    flags = [f"--input={job.tensors}", f"--labels={job.labels}", f"--loop={job.loop}", f"--output-dir={job.results}"]
    flags.append("--no-report")  # what it would say is in ours
    steps.append(_command("bench", "bench.sh", batches, job.chip, f"--model={job.folder / job.card.name}", *flags))
    speeds = {row["batch"]: row["images_per_second"] for row in read_json(job.results / "bench.json")["rows"]}
    tolerance = FP32 if job.precision == "fp32" else REDUCED
    stages = []
    for batch in job.batches:
        summary = job.results / f"result_bs{batch}_summary.json"
        look = [str(job.results / "stage2_summary.json"), str(summary), *tolerance.flags()]
        stages.append(_stage("compiled", batch, summary, job, tolerance, look))
    return [stage._replace(images_per_second=speeds[stage.batch]) for stage in stages]


def _stage(name: str, batch: int, summary: Path, job: Job, tolerance: Tolerance, closer: list[str]) -> Stage:
    result = score_summary(summary, job.labels)
    throughput = read_summary(summary)["throughput"]
    found = compare(job.results / "stage0_summary.json", summary)
    return Stage(name, batch, result, summary, found, throughput, tolerance, closer)


def _command(step: str, *arguments: str | Path) -> data.Step:
    """Runs one of the project's scripts as a user would; returns what it spent. Ends the run where it fails."""
    name, *rest = map(str, arguments)
    print(f"\n$ {shlex.join(['bash' if name.endswith('.sh') else 'python', name, *rest])}", flush=True)
    interpreter = "bash" if name.endswith(".sh") else sys.executable
    # The scripts take the Python of this process, too, and not one that only served to make the environment.
    spent = spend([interpreter, str(PROJECT / name), *rest], env={**os.environ, "PYTHON": sys.executable})
    if spent.code:
        raise PipelineError(
            f"{name} ended with exit code {spent.code}; the command is above, run it alone to look closer"
        )
    return data.Step(step, spent.seconds, spent.peak_bytes)


def _table(stages: list[Stage]) -> str:
    head = ["stage", "batch", "top-1 %", "top-5 %", "top-1 as PyTorch", "largest difference", "images/s"]
    rows = [
        [
            stage.name,
            str(stage.batch),
            f"{100 * stage.score.top1_acc:.2f}",
            f"{100 * stage.score.top5_acc:.2f}",
            f"{stage.agreement.same_top1} of {stage.agreement.images}",
            f"{stage.agreement.difference:.1e}",
            f"{stage.images_per_second:.1f}",
        ]
        for stage in stages
    ]
    return table(head, rows)


def _report(job: Job, stages: list[Stage], steps: list[data.Step]) -> data.Report:
    speeds = data.read(job.results).speeds if stages[-1].name == "compiled" else []
    files = {"weights": str(job.weights), "pictures": str(job.images), "labels": str(job.labels)}
    return data.Report(
        model=job.card.name,
        size=job.card.size,
        about={**files, "precision": job.precision, **about(job.chip)},
        loop=job.loop,
        images=str(job.images),
        class_names=list(job.card.class_names) if job.card.class_names else None,
        published=job.card.own,
        speeds=speeds,
        steps=steps,
        **collect.of_stages([stage.judged for stage in stages]),
    )


def _write(job: Job, stages: list[Stage]) -> None:
    rows = [
        {
            "stage": stage.name,
            "batch": stage.batch,
            **dataclasses.asdict(stage.score),
            **stage.agreement.figures(),
            "images_per_second": stage.images_per_second,
        }
        for stage in stages
    ]
    made_of = {"model": job.card.name, "weights": str(job.weights), "images": str(job.images), **environment(job.chip)}
    write_json(job.folder / "summary.json", {**made_of, "stages": rows})


if __name__ == "__main__":
    run(main)
