"""Stage 4 as a function: for every batch size the accuracy of the compiled model and pure-loop speed runs."""

from __future__ import annotations

import dataclasses
import operator
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ResNeSt.bench import copies, msprof, profile, rows
from ResNeSt.bench.copies import Copies
from ResNeSt.bench.ledger import Ledger, earlier_runs
from ResNeSt.bench.measure import Measured, Runs, check, measure
from ResNeSt.bench.models import PREFIX, check_prefix, compiled_batches, find_models, several
from ResNeSt.bench.profile import Profile
from ResNeSt.bench.rows import BenchRow
from ResNeSt.common import cann_libraries
from ResNeSt.common.ais_bench_names import stem
from ResNeSt.common.arguments import LARGEST_DEVICE
from ResNeSt.common.cann_libraries import LIBRARY
from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.common.files import PathLike, alone, remove_plain
from ResNeSt.common.paths import refuse_clashes
from ResNeSt.common.progress import Say, silent
from ResNeSt.convert import chips
from ResNeSt.convert.targets import check_batches, check_taken
from ResNeSt.images.listing import image_names, list_images
from ResNeSt.infer.client import make_output_folder
from ResNeSt.labels.file import check_names, read_labels
from ResNeSt.models import sidecar
from ResNeSt.models.model_info import recipe_note
from ResNeSt.report import collect, data
from ResNeSt.report.draw import NAME as REPORT
from ResNeSt.report.machine import about, environment
from ResNeSt.score.label_numbers import remarks_on
from ResNeSt.tensors.folder import tensor_files
from ResNeSt.tensors.format import read_index

SEARCH = "auto"  # instead of batch sizes
USUAL_LOOP = 100
LONGEST = 86_400  # seconds of one speed measurement


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What is asked of stage 4.

    Models are `<prefix>_bs<N>.om`, `.xml`, `.ncnn.param` or `.onnx` for each N of `batches` on `chip` (or `auto`), with
    `dynamic_batch` it is the one `<prefix>_dyn` that takes them all. `tensors` and `labels` are for the accuracy;
    without both the speed alone is measured, by `loop` runs (100), or by as many as fill `duration` seconds, after
    `warmup` uncounted ones. `devices` are NPUs, which share the data set, or one GPU. The speed is that of each number
    of `instances` in one process on cpu or ncnn (None: as many as the runtime finds best), or of `processes` on every
    device, which share the cores on cpu; one alone where neither is named. Everything is written to `output`; `images`
    are the pictures behind the tensors, for the report. A report.html of an earlier run is removed unless
    `keep_report`. With `profile` the operators of every model are timed, too, once all speeds are measured: by msprof
    on an NPU, by OpenVINO's counters on cpu.

    `batches` of `auto` is a search: over all batch sizes that are compiled and, unless they are named, 1, 2, 4 and so
    on up to the cores instances, or 1, 2 and 4 processes on an NPU; at each batch size it ends where more no longer
    help (copies.GAIN). It takes what an earlier run in the folder measured in the same way.
    """

    batches: Sequence[int] | str
    chip: str
    prefix: str = PREFIX
    tensors: PathLike | None = None
    labels: PathLike | None = None
    loop: int | None = None
    duration: float | None = None
    warmup: int = 1
    devices: Sequence[int] = (0,)
    processes: Sequence[int] | None = None
    instances: Sequence[int | None] | None = None
    output: PathLike = "bench"
    images: PathLike | None = None
    keep_report: bool = False
    profile: bool = False
    dynamic_batch: bool = False


@dataclasses.dataclass(frozen=True)
class Benched:
    """A row per batch size and number of processes or instances, in the order asked for.

    bench.csv, bench.json and report.json lie in `folder`. `remarks` say where the labels seem to count from another
    class than the model, the tensors' recipe is not the model's own, or a figure needs a word. `recipe` is that of the
    tensors, `model_recipe` the model's own, None where nothing says it. `profiles` hold the operators, where asked.
    """

    rows: tuple[BenchRow, ...]
    folder: Path
    remarks: tuple[str, ...] = ()
    recipe: str | None = None
    model_recipe: str | None = None
    profiles: tuple[Profile, ...] = ()

    @property
    def fastest(self) -> BenchRow:
        """The row with the most images/s."""
        return rows.fastest(self.rows)


def bench(benchmark: Benchmark, say: Say = silent) -> Benched:
    """Measures every batch size; the figures of an older run in the folder go first, but for what a search takes.

    `say` hears of every speed as soon as it is measured. bench.json is whole after each, `finished` after the last.
    Raises ArgumentError for options that do not go together, PipelineError where a model or a file is not there, does
    not fit or is refused by ais_bench, or where a client fails, MissingRuntimeError where ais_bench is not installed.
    """
    benchmark, search = checked(benchmark), benchmark.batches == SEARCH
    program = msprof.find() if benchmark.profile and chips.is_ascend(benchmark.chip) else None
    models = find_models(benchmark.prefix, _batches(benchmark), benchmark.chip, benchmark.dynamic_batch)
    _check_data(benchmark)
    figures = [Path(benchmark.output, name) for name in (rows.CSV, rows.JSON, data.NAME)]
    figures += [profile.csv_of(Path(benchmark.output), batch) for batch in models]
    read = [path for path in (benchmark.tensors, benchmark.labels, benchmark.images) if path is not None]
    refuse_clashes([*read, *models.values()], figures)
    folder = Path(benchmark.output)
    runs = Runs(
        *(folder, benchmark.tensors, benchmark.labels, benchmark.loop, benchmark.duration, benchmark.warmup),
        *(benchmark.devices, _copies(benchmark, search), benchmark.dynamic_batch, search),
    )
    check(models, runs)
    make_output_folder(folder)
    with alone(folder / rows.JSON):
        earlier = earlier_runs(folder) if search else {}
        if earlier:
            figures.remove(folder / rows.JSON)  # which the first row replaces
        for path in figures if benchmark.keep_report else [*figures, folder / REPORT]:  # of an earlier run
            remove_plain(path)
        where, model = _where(benchmark.chip), next(iter(models.values()))
        recipes = _recipes(model, benchmark)
        ledger = Ledger(folder, where, {**_asked(benchmark), **recipes}, earlier)
        measured = [measure(model, batch, runs, ledger, say) for batch, model in models.items()]
        benched = _benched(measured, folder, model, benchmark, recipes)
        rows.write(folder, benched.rows, where, recipes)
        data.write(folder, _report(measured, model, benchmark, benched))
        ledger.finish()
        if benchmark.profile:
            profiles = tuple(_profile(model, batch, runs, program) for batch, model in models.items())
            benched = dataclasses.replace(benched, profiles=profiles)
    return benched


def _where(chip: str) -> dict[str, Any]:
    """Where it is measured; on an NPU the library that runs the models, whose folder names CANN's release, as well."""
    library = {LIBRARY: cann_libraries.library(cann_libraries.environment())} if chips.is_ascend(chip) else {}
    return {**environment(chip), **library}


def _asked(benchmark: Benchmark) -> dict[str, Any]:
    names = {"prefix": "model", "loop": "loop", "duration": "duration", "warmup": "warmup"}
    return {name: getattr(benchmark, field) for field, name in names.items()}


def _copies(benchmark: Benchmark, search: bool) -> list[Copies]:
    return copies.asked(benchmark.chip, benchmark.processes, benchmark.instances, search)


def _profile(model: Path, batch: int, runs: Runs, program: str | None) -> Profile:
    loop = min(runs.loop or profile.MOST_RUNS, profile.MOST_RUNS)
    if program is None:
        return profile.write(runs.folder, batch, profile.on_cpu(model, batch, loop))
    name, flags = profile.csv_of(runs.folder, batch).stem, [f"--loop={loop}", *runs.flags(batch)]
    calls = msprof.profile(program, model, runs.folder, name, *flags, device=runs.devices[0])
    return profile.write(runs.folder, batch, calls)


def check_devices(chip: str, devices: Sequence[int]) -> None:
    """Raises ArgumentError where the chip has no such devices."""
    if not devices or not all(type(number) is int and 0 <= number <= LARGEST_DEVICE for number in devices):
        raise ArgumentError(f"devices {list(devices)}, expected numbers from 0 to {LARGEST_DEVICE}")
    if len(set(devices)) < len(devices):
        raise ArgumentError(f"--device {','.join(map(str, devices))}: names one twice; --processes N runs N on each")
    if not chips.has_cards(chip) and list(devices) != [0]:
        raise ArgumentError(f"--device is for NPUs and GPUs; on {chip} there is device 0 only, which takes all cores")
    if chip == chips.CUDA and len(devices) > 1:
        raise ArgumentError("--device takes one GPU; several can be measured one after the other")


def checked(benchmark: Benchmark) -> Benchmark:
    """The same with values of the kinds that it names, the chip resolved; raises ArgumentError for what cannot be."""
    chip, prefix = chips.resolve(benchmark.chip), os.fspath(benchmark.prefix)
    check_devices(chip, benchmark.devices)
    _copies(dataclasses.replace(benchmark, chip=chip), search=False)
    loop, duration = _length(benchmark)
    warmup = operator.index(benchmark.warmup)
    if warmup < 0:
        raise ArgumentError(f"warmup {warmup}, expected a whole number from 0")
    if (benchmark.tensors is None) != (benchmark.labels is None):
        raise ArgumentError("accuracy takes both --tensors and --labels; for speed alone leave both out")
    if benchmark.profile and chip == chips.CUDA:
        raise ArgumentError("--profile is for NPUs and cpu; on a GPU Nsight Systems does it: nsys profile COMMAND")
    if benchmark.profile and chip == chips.NCNN:
        raise ArgumentError("--profile is for NPUs and cpu: ncnn counts no operators' time; leave it out")
    check_taken(chip, _check_named(benchmark.batches) or (), dynamic=benchmark.dynamic_batch)
    check_prefix(prefix)
    return dataclasses.replace(benchmark, chip=chip, prefix=prefix, loop=loop, duration=duration, warmup=warmup)


def _check_named(batches: Sequence[int] | str) -> list[int] | None:
    """The batch sizes that are named, None for a search; raises ArgumentError for anything else."""
    if not isinstance(batches, str):
        return check_batches(batches)
    if batches != SEARCH:
        raise ArgumentError(f"batches {batches!r}, expected numbers like [1, 4, 8], or {SEARCH!r}")
    return None


def _batches(benchmark: Benchmark) -> list[int]:
    named = _check_named(benchmark.batches)
    return named or compiled_batches(benchmark.prefix, benchmark.chip, benchmark.dynamic_batch)


def _length(benchmark: Benchmark) -> tuple[int | None, float | None]:
    """Runs or seconds of the speed measurement, one of both."""
    if benchmark.duration is None:
        loop = USUAL_LOOP if benchmark.loop is None else operator.index(benchmark.loop)
        if loop < 1:
            raise ArgumentError(f"loop {loop}, expected a whole number above 0")
        return loop, None
    if benchmark.loop is not None:
        raise ArgumentError("a speed measurement is as long as --loop or as --duration says; name one of both")
    if not 0 < benchmark.duration <= LONGEST:
        raise ArgumentError(f"duration {benchmark.duration:g}, expected seconds above 0, at most {LONGEST:,}")
    return None, float(benchmark.duration)


def _check_data(benchmark: Benchmark) -> None:
    """Raises PipelineError unless every tensor has a label, and the pictures are those of the tensors."""
    files: list[str] = []
    if benchmark.tensors is not None and benchmark.labels is not None:
        files = [tensor.path for tensor in tensor_files(benchmark.tensors)]
        check_names(benchmark.labels, read_labels(benchmark.labels), benchmark.tensors, files)
    if benchmark.images is not None:
        _check_images(benchmark.images, files)


def _check_images(folder: PathLike, tensors: Sequence[str]) -> None:
    """Raises PipelineError unless the folder holds pictures, among them one of `tensors`, where there are any."""
    images = list_images(folder)
    here = set(map(stem, image_names(images, folder)))
    if tensors and not any(stem(tensor) in here for tensor in tensors):
        raise PipelineError(
            f"{folder}: holds {len(images)} pictures, but none of which the tensors are, such as {stem(tensors[0])}; "
            "name the folder of those pictures, or leave --images out"
        )


def _recipes(model: Path, benchmark: Benchmark) -> dict[str, str | None]:
    index = read_index(benchmark.tensors) if benchmark.tensors is not None else None
    recipe = index.format.recipe if index else None
    return {"recipe": recipe, "model_recipe": sidecar.info_of(model).get("recipe")}


def _benched(
    measured: Sequence[Measured], folder: Path, model: Path, benchmark: Benchmark, recipes: Mapping[str, str | None]
) -> Benched:
    found = tuple(row for each in measured for row in each.rows)
    remarks = [
        *_remarks(measured[0], benchmark.labels),
        *rows.unlike(found),
        *filter(None, [recipe_note(sidecar.info_of(model), recipes["recipe"])]),
        *(remark for each in measured for remark in each.remarks),
    ]
    return Benched(found, folder, tuple(remarks), recipes["recipe"], recipes["model_recipe"])


def _remarks(measured: Measured, labels: PathLike | None) -> tuple[str, ...]:
    return tuple(remarks_on(measured.judged.result, labels)) if measured.judged and labels is not None else ()


def _report(measured: Sequence[Measured], model: Path, benchmark: Benchmark, benched: Benched) -> data.Report:
    precision = {"precision": ", ".join(dict.fromkeys(row.precision for row in benched.rows))}
    return collect.report(
        collect.of_info(sidecar.info_of(model), Path(benchmark.prefix).name, benched.recipe),
        {
            "models": str(model) if benchmark.dynamic_batch else several(os.fspath(benchmark.prefix), benchmark.chip),
            **precision,
            **about(benchmark.chip),
        },
        [each.judged for each in measured if each.judged],
        [speed for each in measured for speed in each.speeds],
        [step for each in measured for step in each.steps],
        benchmark.loop,
        benchmark.images,
        next((each.layer_costs for each in measured if each.layer_costs), None),
    )
