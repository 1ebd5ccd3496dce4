"""All four stages in one go, by the same commands a user would type, ending in a table of what each stage gives.

Every command is printed before it runs, and every file stays in the work folder, so any step can be repeated by hand.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from ResNeSt.common.ais_bench_paths import check_output, check_path
from ResNeSt.common.arguments import Parser, check_share, hold_json, write_result
from ResNeSt.common.errors import READER_GONE, ArgumentError, FailedCommandError, PipelineError, run
from ResNeSt.common.files import alone, read_json, remove_plain, write_json
from ResNeSt.common.flags import take
from ResNeSt.common.paths import as_argument
from ResNeSt.common.progress import Say, aloud, is_quiet, remark, silent
from ResNeSt.common.tables import table
from ResNeSt.common.timed_process import Spent, spend
from ResNeSt.compare.agreement import Agreement, Tolerance
from ResNeSt.compare.pairs import compare
from ResNeSt.convert import calibration, chips, targets
from ResNeSt.convert.targets import check_dynamic, check_taken, compiled_name, parse_batches
from ResNeSt.images.decode import orientation_notes
from ResNeSt.images.listing import image_names, list_images
from ResNeSt.infer.client import run_client
from ResNeSt.labels.carried import own_labels
from ResNeSt.labels.class_names import ClassList, class_list
from ResNeSt.labels.file import check_names, read_labels, write_labels
from ResNeSt.labels.sources import check_folders
from ResNeSt.models import model_info, onnx_file, sidecar
from ResNeSt.models.cards import Card, card, card_beside
from ResNeSt.models.checkpoint import card_for
from ResNeSt.models.download import fetch
from ResNeSt.report import collect, data
from ResNeSt.report.draw import REPORTS, draw_where_possible
from ResNeSt.report.machine import about, environment
from ResNeSt.score.label_numbers import remarks_on
from ResNeSt.score.outputs import read_summary
from ResNeSt.score.score import Result, Score, check_labels, score_summary
from ResNeSt.tensors.folder import list_tensors
from ResNeSt.tensors.format import index_path, read_index

PROJECT = Path(__file__).resolve().parent.parent
# The scripts that are run, and what they are called where the package alone is installed: `resnest COMMAND`.
SCRIPTS = {
    "resnest_preprocess.py": "preprocess",
    "resnest_pth2onnx.py": "export",
    "convert.sh": "convert",
    "bench.sh": "bench",
}


def _short(path: Path) -> Path:
    """As it is seen from here, since commands with it are printed; as it is where "here" has been deleted."""
    try:
        return Path(os.path.relpath(path))
    except FileNotFoundError:
        return path


DEMO = _short(PROJECT / "demo")

DEMO_MODEL, DEFAULT_MODEL = "resnest_demo", "resnest50"
AUTO = "auto"  # as weights: the official ones
CALIBRATED = "calibration"  # key of summary.json and of the report

# float32 differs by rounding, about 1e-6; the other precisions may flip images that were close.
FP32 = Tolerance(agreement=0.999, difference=1e-3)
REDUCED = Tolerance(agreement=0.95)


@dataclasses.dataclass(frozen=True)
class RunPlan:
    """What is run on what; `output` takes every file that is made; `arch` is what the scripts call the card.

    `calibration` holds the pictures to calibrate with, or their tensors; None takes those that are scored.
    `min_agreement` is the share of images that must keep the top-1, of compiled models with PyTorch; None the usual.
    `dynamic_batch` compiles one model for all of `batches`.
    """

    card: Card
    arch: str
    weights: Path
    images: Path
    labels: Path
    chip: str
    precision: str
    batches: list[int]
    loop: int
    output: Path
    calibration: Path | None = None
    min_agreement: float | None = None
    exif: bool = False
    ema: bool | None = None
    dynamic_batch: bool = False

    @property
    def tensors(self) -> Path:
        """Stage 1's result."""
        return self.output / "prep_dataset"

    @property
    def calibration_tensors(self) -> Path:
        """Those to calibrate with, and to judge by."""
        if self.calibration is None:
            return self.tensors
        return self.calibration if _holds_tensors(self.calibration) else self.output / "calibration"

    @property
    def tolerance(self) -> Tolerance:
        """Of compiled models."""
        usual = FP32 if self.precision == "fp32" else REDUCED
        return usual if self.min_agreement is None else usual._replace(agreement=self.min_agreement)

    @property
    def onnx(self) -> Path:
        """Stage 2's result."""
        return self.output / f"{self.card.name}.onnx"

    @property
    def simplified(self) -> Path:
        """Stage 3's first result."""
        return self.output / f"{self.card.name}_sim.onnx"

    @property
    def results(self) -> Path:
        """Stage 4's results."""
        return self.output / "results"


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
        complaint = self.tolerance.complaint(self.agreement)
        if complaint is None:
            return None
        return (
            f"{self.name}, batch {self.batch}, compared with PyTorch: {complaint}; to dig further run: "
            f"{shlex.join(['python', '-m', 'ResNeSt.compare', *self.closer])}"
        )


def run_pipeline(plan: RunPlan, say: Say = silent) -> list[Stage]:
    """Runs all four stages by the commands that a user would type, and writes summary.json and report.json.

    Returns PyTorch's row, the ONNX files' and, if none of these is out of tolerance, one for each batch size compiled.
    `say` hears the commands; what they print goes to stdout. Raises PipelineError where one of them fails,
    where another run works in the folder, and before anything runs where ais_bench would refuse the folder.
    """
    if chips.is_ascend(plan.chip):
        check_path(plan.tensors)
        check_output(plan.results)
    plan.output.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with alone(plan.output / "summary.json"):
        stages = _run_all(plan, say)
    say(f"\nall stages: {time.perf_counter() - started:.1f} s")
    return stages


def _run_all(plan: RunPlan, say: Say) -> list[Stage]:
    for name in ("summary.json", *REPORTS):  # of an earlier run
        remove_plain(plan.output / name)
    steps = [*_preprocess(plan, say), *_export(plan, say), *_convert(plan, say)]
    stages = _run_uncompiled(plan, steps, say)
    if not any(stage.complaint for stage in stages):
        stages += _run_compiled(plan, steps, say)
    calibrated = _calibrated(plan)
    _write(plan, stages, calibrated)
    data.write(plan.output, _report(plan, stages, steps, calibrated))
    return stages


def _preprocess(plan: RunPlan, say: Say) -> list[data.Step]:
    """The tensors that are scored, and those that calibrate where they are made of other pictures."""
    made = {"preprocess": (plan.images, plan.tensors)}
    if plan.calibration not in (None, plan.calibration_tensors):
        made["preprocess, calibration"] = (plan.calibration, plan.calibration_tensors)
    exif = ["--exif"] if plan.exif else []
    return [
        _command(say, step, "resnest_preprocess.py", pictures, tensors, "--arch", plan.arch, *_naming(pictures), *exif)
        for step, (pictures, tensors) in made.items()
    ]


def _naming(pictures: Path) -> list[str]:
    """The flag that tells pictures of one name apart, where there are any."""
    paths = list_images(pictures)
    alone = image_names(paths, pictures) == [os.path.basename(path) for path in paths]
    return [] if alone else ["--distinct-names"]


def _holds_tensors(folder: Path) -> bool:
    return folder.is_dir() and (index_path(folder).exists() or bool(list_tensors(folder)))


def _calibrated(plan: RunPlan) -> dict[str, str]:
    """What int8 was calibrated on, and whether that is scored; nothing for another precision."""
    if plan.precision != "int8":
        return {}
    tensors = calibration.choose(plan.calibration_tensors, onnx_file.read(plan.simplified))
    count, both = len(tensors.calibration), calibration.scored_too(tensors, plan.tensors)
    if not both:
        return {CALIBRATED: f"int8 was calibrated on {count} tensors of {plan.calibration}, none of which is scored"}
    overlap = f"int8 was calibrated on {both} of the images that are scored; they overlap, so the score flatters it"
    return {CALIBRATED: f"{overlap} (--calibration DIR takes others)"}


def _export(plan: RunPlan, say: Say) -> list[data.Step]:
    if _is_exported(plan):
        say(f"\nexport: kept, {plan.onnx} was made of these weights")
        return []
    flags = [f"--source={plan.weights}", f"--target={plan.onnx}", f"--arch={plan.arch}", *_ema_flag(plan)]
    return [_command(say, "export", "resnest_pth2onnx.py", *flags)]


def _ema_flag(plan: RunPlan) -> list[str]:
    return [] if plan.ema is None else ["--ema" if plan.ema else "--no-ema"]


def _is_exported(plan: RunPlan) -> bool:
    """Whether the ONNX file says that it was made of these very weights and of this card, in the form that is asked."""
    if not plan.weights.is_file():
        return False
    weights = model_info.weights_of(plan.weights, plan.ema)
    info = {"class_names": None, **model_info.describe(plan.card, plan.card.size, weights), "form": "deploy"}
    return onnx_file.holds(plan.onnx, {f"{model_info.SECTION}.{key}": value for key, value in info.items()})


def _convert(plan: RunPlan, say: Say) -> list[data.Step]:
    flags = [f"--onnx={plan.onnx}", f"--output={plan.output}"]
    if plan.precision != chips.precision(None, plan.chip):
        flags.append(f"--precision={plan.precision}")
    if plan.precision == "int8" or plan.calibration is not None:
        flags.append(f"--calibration={plan.calibration_tensors}")
        # On Ascend nothing judges there, but 0 lets pass what it would refuse to calibrate with.
        if plan.min_agreement is not None and (not chips.is_ascend(plan.chip) or plan.min_agreement == 0):
            flags.append(f"--min-agreement={plan.min_agreement:g}")
    if plan.dynamic_batch:
        flags.append("--dynamic-batch")
    if replaced := _of_another_question(plan):
        say(f"compiled for another precision, chip or batch, and made anew: {', '.join(map(str, replaced))}")
        flags.append("--force")
    return [_command(say, "convert", "convert.sh", ",".join(map(str, plan.batches)), plan.chip, *flags)]


def _of_another_question(plan: RunPlan) -> list[Path]:
    """The models of an earlier run in the work folder, which is this program's own, in the place of those to come."""
    asked: dict[str, Any] = {"chip": plan.chip, "precision": plan.precision, "dtype": "float32"}
    if plan.dynamic_batch:
        asked["batch"] = plan.batches
    batches = targets.models(plan.batches, plan.dynamic_batch)
    models = [plan.output / compiled_name(plan.card.name, batch, plan.chip) for batch in batches]
    found = {model: sidecar.recorded(model, asked) for model in models if model.exists()}
    return [model for model, says in found.items() if says and says != asked]


def _run_uncompiled(plan: RunPlan, steps: list[data.Step], say: Say) -> list[Stage]:
    """Runs checkpoint and ONNX files, each judged by PyTorch's outputs; a closer look is at it and the one before.

    What they spend goes to `steps`.
    """
    batch = max(plan.batches)
    models = {"PyTorch": plan.weights, "ONNX": plan.onnx, "simplified ONNX": plan.simplified}
    rows = []
    before = plan.weights
    for number, (name, model) in enumerate(models.items()):
        say(f"running {model} on {plan.tensors}")
        flags = [f"--input={plan.tensors}", f"--dymBatch={batch}", "--outfmt=BIN"]
        architecture = [f"--arch={plan.arch}", *_ema_flag(plan)] if model == plan.weights else []
        (summary,), spent = run_client(model, plan.results, f"stage{number}", *flags, *architecture)
        steps.append(_step(say, name, spent))
        look = ["--layers", str(before), str(model), f"--tensors={plan.tensors}", f"--arch={plan.arch}"]
        look += _ema_flag(plan)
        rows.append(_stage(name, batch, summary, plan, FP32, look))
        before = model
    return rows


def _run_compiled(plan: RunPlan, steps: list[data.Step], say: Say) -> list[Stage]:
    """bench.sh, its outputs judged by PyTorch's; a closer look is at them and those of what was compiled."""
    batches = ",".join(map(str, plan.batches))
    flags = [
        f"--tensors={plan.tensors}",
        f"--labels={plan.labels}",
        f"--loop={plan.loop}",
        f"--output={plan.results}",
    ]
    if plan.dynamic_batch:
        flags.append("--dynamic-batch")
    flags.append("--no-report")  # what it would say is in ours
    steps.append(
        _command(say, "bench", "bench.sh", batches, plan.chip, f"--prefix={plan.output / plan.card.name}", *flags)
    )
    speeds = {row["batch"]: row["images_per_second"] for row in read_json(plan.results / "bench.json")["rows"]}
    tolerance = plan.tolerance
    stages = []
    for batch in plan.batches:
        summary = plan.results / f"result_bs{batch}_summary.json"
        look = [str(plan.results / "stage2_summary.json"), str(summary), *tolerance.flags()]
        stages.append(_stage("compiled", batch, summary, plan, tolerance, look))
    return [stage._replace(images_per_second=speeds[stage.batch]) for stage in stages]


def _stage(name: str, batch: int, summary: Path, plan: RunPlan, tolerance: Tolerance, closer: list[str]) -> Stage:
    result = score_summary(summary, plan.labels)
    throughput = read_summary(summary)["throughput"]
    agreement = compare(plan.results / "stage0_summary.json", summary)
    return Stage(name, batch, result, summary, agreement, throughput, tolerance, closer)


def _command(say: Say, step: str, *arguments: str | Path) -> data.Step:
    """Runs one of SCRIPTS as a user would; returns what it spent. Raises PipelineError where it fails."""
    name, *rest = [as_argument(each) if isinstance(each, Path) else each for each in arguments]
    if (PROJECT / name).is_file():
        shown = ["bash" if name.endswith(".sh") else "python", name]
        command = ["bash" if name.endswith(".sh") else sys.executable, str(PROJECT / name)]
    else:
        shown, command = ["resnest", SCRIPTS[name]], [sys.executable, "-m", "ResNeSt", SCRIPTS[name]]
    say(f"\n$ {shlex.join([*shown, *rest])}")
    # The scripts take the Python of this process, too, and not one that only served to make the environment.
    with open(os.devnull, "w") as nowhere:
        printed = nowhere if is_quiet() else None  # of bench.sh, say, the table, of which ours holds what is asked for
        spent = spend([*command, *rest], env={**os.environ, "PYTHON": sys.executable}, stdout=printed)
    if spent.code == READER_GONE:
        raise BrokenPipeError
    if spent.code:
        message = f"{name} ended with exit code {spent.code}; the command is above, run it alone to look closer"
        raise FailedCommandError(message, spent.code)
    return _step(say, step, spent)


def _step(say: Say, name: str, spent: Spent) -> data.Step:
    """What the report has of a step, told as soon as it is done."""
    say(f"{name}: {spent.seconds:.1f} s")
    return data.Step(name, spent.seconds, spent.peak_bytes)


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


def _report(plan: RunPlan, stages: list[Stage], steps: list[data.Step], calibrated: dict[str, str]) -> data.Report:
    files = {"weights": str(plan.weights), "pictures": str(plan.images), "labels": str(plan.labels)}
    benched = data.read(plan.results) if stages[-1].name == "compiled" else None
    return collect.report(
        collect.of_card(plan.card, plan.weights),
        {**files, "precision": plan.precision, **calibrated, **about(plan.chip)},
        [stage.judged for stage in stages],
        benched.speeds if benched else [],
        steps,
        plan.loop,
        plan.images,
        benched.layer_costs if benched else None,
        [stage.complaint for stage in stages if stage.complaint],
    )


def _write(plan: RunPlan, stages: list[Stage], calibrated: dict[str, str]) -> None:
    rows = [
        {
            "stage": stage.name,
            "batch": stage.batch,
            "top1": stage.score.top1,
            "top5": stage.score.top5,
            "total": stage.score.total,
            **stage.agreement.figures(),
            "images_per_second": stage.images_per_second,
        }
        for stage in stages
    ]
    made_of = {
        "model": plan.card.name,
        "recipe": plan.card.recipe,
        "weights": str(plan.weights),
        "images": str(plan.images),
        **calibrated,
        **environment(plan.chip),
    }
    write_json(plan.output / "summary.json", {**made_of, "stages": rows})


def main() -> None:
    """Command line of run.sh; raises PipelineError where a stage is out of tolerance."""
    options = make_parser().parse_args()
    plan = _plan(options)
    stages = run_pipeline(plan, aloud)
    print(f"\n{_table(stages)}\n")
    summary = read_json(plan.output / "summary.json")
    if calibrated := summary.get(CALIBRATED):
        print(f"{calibrated}\n")
    images = stages[0].agreement.images
    aloud(f"{plan.card.name} on {images} images, chip {plan.chip}; written to {plan.output}/summary.json")
    made = read_index(plan.tensors)
    notes = [
        *remarks_on(stages[0].result, plan.labels),
        *(orientation_notes(made.unturned, made.images) if made else []),
    ]
    for note in notes:
        remark(note)
    draw_where_possible(plan.output)
    complaints = [stage.complaint for stage in stages if stage.complaint]
    write_result(options, {"folder": plan.output, **summary, "notes": notes, "complaints": complaints})
    for complaint in complaints:
        raise PipelineError(complaint)


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(
        prog="run.sh",
        description=__doc__,
        example="bash run.sh --images demo/val --labels demo/val_label.txt --weights demo/resnest_demo-d78f3683.pth",
    )
    take(parser, "images", type=Path, note="the bundled demo")
    take(parser, "labels", type=Path, note="the demo's; of other images what comes with them, or class folders")
    take(
        parser,
        "arch",
        note=f"by --weights; without, {DEFAULT_MODEL}, or {DEMO_MODEL} without --images",
        old=["--model"],
    )
    take(parser, "weights", note="the demo's")
    take(parser, "ema")
    take(
        parser,
        "chip",
        default="cpu",
        note="%(default)s; or cuda, ncnn, auto, or one like 310P3, where this Python has PyTorch and ais_bench",
    )
    take(parser, "precision", note="the chip's own, as convert.sh has it")
    take(
        parser,
        "calibration",
        type=Path,
        note="the demo's train; without --precision int8 none; else the images that are scored, and the table says so; "
        "pictures, or float32 tensors of them",
    )
    take(parser, "min-agreement", note=f"fp32: {FP32.agreement}, else {REDUCED.agreement}; with PyTorch")
    take(parser, "batch", several=True, type=parse_batches, note="1,4,8; ncnn: 1")
    take(parser, "dynamic-batch")
    take(parser, "loop", default=100)
    take(parser, "exif")
    take(parser, "output", type=Path, note="work/NAME", old=["--work"])
    take(parser, "threads")
    return parser


def _plan(options: argparse.Namespace) -> RunPlan:
    demo = options.images is None
    if demo and options.labels is not None:
        raise ArgumentError("--labels are of images of your own; name these with --images, or leave both for the demo")
    if demo and not DEMO.is_dir():
        raise ArgumentError(f"{DEMO}: the demo is not installed, it lies in the project's folder; name yours: --images")
    arch, model_card = _arch(options.weights or AUTO, options.arch, DEMO_MODEL if demo else DEFAULT_MODEL)
    if demo and model_card.classes != card(DEMO_MODEL).classes:
        raise ArgumentError(f"--arch {arch}: the demo's images go with {DEMO_MODEL}; name yours with --images")
    weights = options.weights or _unasked(model_card)
    folder = options.output or Path("work") / model_card.name
    hold_json(options, [DEMO], [folder])
    chip = chips.resolve(options.chip)
    precision = chips.precision(options.precision, chip)
    batches = options.batch or ([1] if chip == chips.NCNN else [1, 4, 8])
    check_taken(chip, batches, dynamic=options.dynamic_batch)
    if options.dynamic_batch:
        batches = check_dynamic(batches, chip, precision)
    check_share("--min-agreement", options.min_agreement)
    images, labels = options.images or DEMO / "val", DEMO / "val_label.txt" if demo else options.labels
    known = class_list(arch, model_card.class_names, model_card.classes)
    labels = labels or _own_labels(images, known, folder)
    truth, found = read_labels(labels), list_images(images)
    check_names(labels, truth, images, found)
    check_folders(labels, truth, found, images, known)
    check_labels(truth, model_card.classes, labels)
    return RunPlan(
        card=model_card,
        arch=arch,
        weights=_weights(model_card, weights, folder),
        images=images,
        labels=labels,
        chip=chip,
        precision=precision,
        batches=batches,
        loop=options.loop,
        output=folder,
        calibration=_calibration(options.calibration, chip, precision, demo),
        min_agreement=options.min_agreement,
        exif=options.exif,
        ema=options.ema,
        dynamic_batch=options.dynamic_batch,
    )


def _own_labels(images: Path, known: ClassList, folder: Path) -> Path:
    """A labels file in the work folder, of what comes with the images or of the class folders that they lie in."""
    labels, path = own_labels(images, known, aloud), folder / "val_label.txt"
    folder.mkdir(parents=True, exist_ok=True)
    write_labels(labels, path, keep=True)
    return path


def _unasked(model_card: Card) -> str:
    """The weights where none are named: the demo's; others would be downloaded, which a user has to ask for."""
    if model_card == card(DEMO_MODEL):
        return AUTO
    if model_card.url is None:
        raise ArgumentError(f"{model_card.name}: has no published weight file; name your own (--weights FILE.pth)")
    raise ArgumentError(
        f"--weights is missing: name a checkpoint (--weights FILE.pth), or --weights {AUTO}, which downloads the "
        f"official weights of {model_card.name}"
    )


def _calibration(given: Path | None, chip: str, precision: str, demo: bool) -> Path | None:
    if given is None:
        return DEMO / "train" if demo and precision == "int8" else None
    if chips.is_ascend(chip) and precision != "int8":
        raise ArgumentError(f"--calibration is for int8 on {chip}; leave it out for {precision}")
    if not _holds_tensors(given):
        list_images(given)  # raises where there are none
    return given


def _arch(weights: str, arch: str | None, default: str) -> tuple[str, Card]:
    """What the scripts call the card, and the card: the one asked for, else that of the weights."""
    if weights == AUTO:
        return arch or default, card(arch or default)
    model_card = card_for(weights, arch)
    if arch is None:
        beside = card_beside(weights)
        arch = str(beside) if beside.is_file() else model_card.name
    return arch, model_card


def _weights(model_card: Card, given: str, folder: Path) -> Path:
    if given != AUTO:
        if not Path(given).is_file():
            raise PipelineError(f"{given}: no such checkpoint; name one with --weights, or auto")
        return Path(given)
    if model_card == card(DEMO_MODEL):
        return DEMO / f"{model_card.name}-{model_card.sha256}.pth"
    folder.mkdir(parents=True, exist_ok=True)
    return fetch(model_card, folder)


if __name__ == "__main__":
    run(main)
