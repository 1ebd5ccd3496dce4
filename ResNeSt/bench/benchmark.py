"""Stage 4 as a function: for every batch size the accuracy of the compiled model and a pure-loop speed run."""

from __future__ import annotations

import dataclasses
import operator
import os
from collections.abc import Sequence
from pathlib import Path

from ResNeSt.bench import msprof, profile, rows
from ResNeSt.bench.measure import Measured, Runs, check, measure
from ResNeSt.bench.models import PREFIX, find_models
from ResNeSt.bench.profile import Profile
from ResNeSt.bench.rows import BenchRow
from ResNeSt.common.ais_bench_names import stem
from ResNeSt.common.cores import shares
from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.common.files import PathLike, alone, remove_plain
from ResNeSt.common.paths import refuse_clashes
from ResNeSt.convert import chips
from ResNeSt.convert.targets import check_batches
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


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What is asked of stage 4.

    Models are `<prefix>_bs<N>.om` or `.xml` for each N of `batches` on `chip` (or `auto`), with `dynamic_batch` it is
    the one `<prefix>_dyn` that takes them all. `tensors` and
    `labels` are for the accuracy; without both the speed alone is measured, by `loop` runs. `devices` are NPUs, which
    share the data set. The speed is that of each number of `processes` side by side on every device; on cpu they share
    the cores. Everything is written to `folder`; `images` are the pictures behind the tensors, for the report.
    A report.html of an earlier run is removed unless `keep_report`. With `profile` the operators of every model are
    timed, too, once all speeds are measured: by msprof on an NPU, by OpenVINO's counters on cpu.
    """

    batches: Sequence[int]
    chip: str
    prefix: str = PREFIX
    tensors: PathLike | None = None
    labels: PathLike | None = None
    loop: int = 100
    devices: Sequence[int] = (0,)
    processes: Sequence[int] = (1,)
    folder: PathLike = "bench"
    images: PathLike | None = None
    keep_report: bool = False
    profile: bool = False
    dynamic_batch: bool = False


@dataclasses.dataclass(frozen=True)
class Benched:
    """A row per batch size and number of processes, in the order asked for.

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


def bench(benchmark: Benchmark) -> Benched:
    """Measures every batch size; the figures of an older run in the folder go first.

    Raises ArgumentError for options that do not go together, PipelineError where a model or a file is not there, does
    not fit or is refused by ais_bench, or where a client fails, MissingRuntimeError where ais_bench is not installed.
    """
    benchmark = _checked(benchmark)
    program = msprof.find() if benchmark.profile and benchmark.chip != chips.CPU else None
    models = find_models(benchmark.prefix, benchmark.batches, benchmark.chip, benchmark.dynamic_batch)
    _check_data(benchmark)
    figures = [Path(benchmark.folder, name) for name in (rows.CSV, rows.JSON, data.NAME)]
    figures += [profile.csv_of(Path(benchmark.folder), batch) for batch in models]
    read = [path for path in (benchmark.tensors, benchmark.labels, benchmark.images) if path is not None]
    refuse_clashes([*read, *models.values()], figures)
    folder = Path(benchmark.folder)
    runs = Runs(
        *(folder, benchmark.tensors, benchmark.labels, benchmark.loop),
        *(benchmark.devices, benchmark.processes, benchmark.dynamic_batch),
    )
    check(models, runs)
    make_output_folder(folder)
    with alone(folder / rows.JSON):
        for path in figures if benchmark.keep_report else [*figures, folder / REPORT]:  # of an earlier run
            remove_plain(path)
        measured = [measure(model, batch, runs) for batch, model in models.items()]
        model = next(iter(models.values()))
        benched = _benched(measured, folder, model, benchmark)
        recipes = {"recipe": benched.recipe, "model_recipe": benched.model_recipe}
        asked = {"model": benchmark.prefix, "loop": benchmark.loop}
        rows.write(folder, benched.rows, environment(benchmark.chip), asked, recipes)
        data.write(folder, _report(measured, model, benchmark, benched))
        if benchmark.profile:
            profiles = tuple(_profile(model, batch, runs, program) for batch, model in models.items())
            benched = dataclasses.replace(benched, profiles=profiles)
    return benched


def _profile(model: Path, batch: int, runs: Runs, program: str | None) -> Profile:
    loop = min(runs.loop, profile.MOST_RUNS)
    if program is None:
        return profile.write(runs.folder, batch, profile.on_cpu(model, batch, loop))
    name, flags = profile.csv_of(runs.folder, batch).stem, [f"--loop={loop}", *runs.flags(batch)]
    calls = msprof.profile(program, model, runs.folder, name, *flags, device=runs.devices[0])
    return profile.write(runs.folder, batch, calls)


def check_devices(chip: str, devices: Sequence[int], processes: Sequence[int]) -> None:
    """Raises ArgumentError where the chip has no such devices, or fewer cores than processes."""
    if len(set(devices)) < len(devices):
        raise ArgumentError(f"--device {','.join(map(str, devices))}: names one twice; --processes N runs N on each")
    if not processes or min(processes) < 1:
        raise ArgumentError(f"processes {list(processes)}, expected whole numbers above 0")
    if chip == chips.CPU and list(devices) != [0]:
        raise ArgumentError("--device is for NPUs; on cpu there is device 0 only, which takes all cores")
    if chip == chips.CPU:
        shares(max(processes))


def _checked(benchmark: Benchmark) -> Benchmark:
    """The same with values of the kinds that it names, `auto` resolved; raises ArgumentError for what cannot be."""
    chip, batches = chips.resolve(benchmark.chip), check_batches(benchmark.batches)
    prefix, loop = os.fspath(benchmark.prefix), operator.index(benchmark.loop)
    if loop < 1:
        raise ArgumentError(f"loop {loop}, expected a whole number above 0")
    processes = list(dict.fromkeys(map(operator.index, benchmark.processes)))
    check_devices(chip, benchmark.devices, processes)
    if (benchmark.tensors is None) != (benchmark.labels is None):
        raise ArgumentError("accuracy takes both --input and --labels; for speed alone leave both out")
    return dataclasses.replace(benchmark, chip=chip, batches=batches, prefix=prefix, loop=loop, processes=processes)


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


def _benched(measured: Sequence[Measured], folder: Path, model: Path, benchmark: Benchmark) -> Benched:
    found = tuple(row for each in measured for row in each.rows)
    info = sidecar.info_of(model)
    index = read_index(benchmark.tensors) if benchmark.tensors is not None else None
    recipe = index.format.recipe if index else None
    remarks = [
        *_remarks(measured[0], benchmark.labels),
        *rows.unlike(found),
        *filter(None, [recipe_note(info, recipe)]),
        *(remark for each in measured for remark in each.remarks),
    ]
    return Benched(found, folder, tuple(remarks), recipe, info.get("recipe"))


def _remarks(measured: Measured, labels: PathLike | None) -> tuple[str, ...]:
    return tuple(remarks_on(measured.judged.result, labels)) if measured.judged and labels is not None else ()


def _report(measured: Sequence[Measured], model: Path, benchmark: Benchmark, benched: Benched) -> data.Report:
    precision = {"precision": ", ".join(dict.fromkeys(row.precision for row in benched.rows))}
    return collect.report(
        collect.of_info(sidecar.info_of(model), Path(benchmark.prefix).name, benched.recipe),
        {
            "models": str(model) if benchmark.dynamic_batch else f"{benchmark.prefix}_bs*{model.suffix}",
            **precision,
            **about(benchmark.chip),
        },
        [each.judged for each in measured if each.judged],
        [speed for each in measured for speed in each.speeds],
        [step for each in measured for step in each.steps],
        benchmark.loop,
        benchmark.images,
    )
