"""Stage 3 as a function: .onnx -> simplified .onnx -> a compiled model per batch size, or one for several."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ResNeSt.common import cann
from ResNeSt.common.arguments import check_share
from ResNeSt.common.errors import ArgumentError, MissingRuntimeError, PipelineError
from ResNeSt.common.files import alone
from ResNeSt.common.made_of import Unchanged, differing
from ResNeSt.common.progress import Say, silent
from ResNeSt.convert import amct, aoe, atc, calibration, chips, nncf, preflight, simplify, taken_paths
from ResNeSt.convert.calibration import CalibrationTensors
from ResNeSt.convert.compile import Compilation, Compiled, compile_all
from ResNeSt.convert.finding import FAILS, Finding
from ResNeSt.convert.gate import Gate
from ResNeSt.convert.targets import (
    Batch,
    check_batches,
    check_dynamic,
    check_taken,
    compiled_name,
    in_words,
    models,
    recorded,
)
from ResNeSt.engines.opening import open_engine
from ResNeSt.formats import onnx_header
from ResNeSt.models import onnx_file, sidecar
from ResNeSt.models.cards import card
from ResNeSt.models.files import model_files
from ResNeSt.tensors.format import check_dtype

MIN_AGREEMENT = 0.95
SIMPLIFIED = "_sim"  # ends the stem of a simplified file
_WAYS_OUT = "--force replaces it, --output names another folder"


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What is asked of stage 3.

    `onnx` is the file of stage 2, `batches` the batch sizes, `chip` `cpu`, `cuda`, `ncnn` (batch 1, float32), one like
    310P3, or `auto`, `output` where the models go. `dtype` is that of the tensors: float32 NCHW; uint8 NHWC, with the
    normalisation in the model; or yuv420sp, NV12 with even sides, with the change to RGB in it, too. `precision` is the
    chip's default if None. `calibration` is a folder of float32 tensors, to quantize with (precision int8) and to judge
    by (on cpu and ncnn); `min_agreement` the share of them that must keep the top-1 of fp32 [0.95], 0 takes whatever
    comes out. `arch` names the card of a network whose file does not tell it. `dynamic_batch` makes one model for all
    of `batches`, 2 to 100, instead of one each; on cpu it takes any. `tune` is what AOE tunes on this machine's card
    before an Ascend model is compiled: operators, subgraphs, or both. `log` is ATC's log level. `force` makes even what
    is up to date, and replaces what is of another question.
    """

    onnx: Path
    batches: Sequence[int]
    chip: str
    output: Path = Path(".")
    dtype: str = "float32"
    precision: str | None = None
    calibration: Path | None = None
    min_agreement: float | None = None
    arch: str | None = None
    log: str | None = None
    force: bool = False
    dynamic_batch: bool = False
    tune: str | None = None

    @property
    def is_given_simplified(self) -> bool:
        """Whether `onnx` is called what a simplified file is called: NAME_sim.onnx."""
        return self.stem != self.onnx.stem

    @property
    def stem(self) -> str:
        """What the names of all files begin with that are made."""
        name = self.onnx.stem
        return name[: -len(SIMPLIFIED)] if name.endswith(SIMPLIFIED) and name != SIMPLIFIED else name

    @property
    def models(self) -> list[Batch]:
        """What each model is compiled for, in the order of `batches`."""
        return models(self.batches, self.dynamic_batch)

    def target(self, batch: Batch) -> Path:
        """The compiled model for `batch`."""
        return self.output / compiled_name(self.stem, batch, self.chip)

    @property
    def simplified(self) -> Path:
        """The simplified ONNX file, which is made on the way where `onnx` is not one.

        Without onnxsim, as on an Ascend host, it is the one that was copied there beside `onnx`, if `output` has none.
        """
        if self.is_given_simplified:
            return self.onnx
        name = f"{self.stem}{SIMPLIFIED}.onnx"
        own, beside = self.output / name, self.onnx.with_name(name)
        return beside if not own.exists() and beside.exists() and not simplify.is_installed() else own


def convert(conversion: Conversion, say: Say = silent) -> list[Compiled]:
    """The compiled models, in the order of the batch sizes; what is up to date is kept.

    One process at a time converts a network in a folder. A model that is there for another chip, dtype or precision, or
    from another ONNX file, is not replaced without `force`.

    `say` hears a line for every step. Raises ArgumentError for what cannot be asked together, PipelineError where a
    file is damaged or changes meanwhile, a compiler fails, a model is too far from fp32 or would replace another one,
    MissingRuntimeError where a compiler is not on
    this machine. What is not right never gets its name.
    """
    conversion = resolved(conversion)
    if doubt := chips.doubt(conversion.chip):
        say(f"note: {doubt}")
    _refuse_missing(conversion)
    _refuse_mixing(conversion)
    conversion.output.mkdir(parents=True, exist_ok=True)
    with alone(conversion.output / f"{conversion.stem}{SIMPLIFIED}.onnx"):
        _refuse_to_replace(conversion)
        _simplify(conversion, say)
        return _compile(conversion, say)


def _simplify(conversion: Conversion, say: Say) -> None:
    if conversion.is_given_simplified:
        return
    can_be_made = conversion.onnx.exists() and simplify.is_installed()
    remade = conversion.force and can_be_made and simplify.is_ours(conversion.simplified)
    if not remade and simplify.is_current(conversion.onnx, conversion.simplified):
        simplify.check(conversion.onnx, conversion.simplified)
    else:
        simplify.simplify(conversion.onnx, conversion.simplified)
        say(f"{conversion.simplified.name}: simplified from {conversion.onnx}")


def _compile(conversion: Conversion, say: Say) -> list[Compiled]:
    read = Unchanged(*model_files(conversion.simplified))
    compilation = _compilation(conversion, _network(conversion, conversion.simplified), say)
    origin = {"network": simplify.origin(conversion.simplified)}
    compilation = dataclasses.replace(compilation, read=(read,), told={**_question(conversion), **origin})
    _refuse_for_amct(compilation, conversion)
    _refuse_to_overwrite(compilation, conversion)
    _refuse_to_replace_others(compilation, conversion)
    tensors = _tensors(compilation, conversion)
    compilation = _gated(compilation, conversion, tensors)
    if tensors is not None and compilation.precision == "int8":
        quantize = _quantize_for_ascend if chips.is_ascend(compilation.chip) else _quantize_on_cpu
        quantized = quantize(compilation, conversion, tensors)
        compilation = dataclasses.replace(_of_file(compilation, quantized), read=(read, Unchanged(quantized)))
    return compile_all(compilation, conversion.models, conversion.force)


def plan(conversion: Conversion) -> list[str]:
    """The commands that `convert` would run, and comments on what it does itself; changes nothing."""
    conversion = resolved(conversion)
    lines = simplification(conversion)
    _refuse_to_replace(conversion)
    if not lines:
        simplify.check(conversion.onnx, conversion.simplified)
    network = _network(conversion, _readable(conversion))
    if lines:
        network = dataclasses.replace(network, path=conversion.simplified, data_files=())  # it will be one file
    compilation = _compilation(conversion, network, silent)
    _refuse_for_amct(compilation, conversion)
    tensors = _tensors(compilation, conversion)
    compilation = _gated(compilation, conversion, tensors)
    if tensors is not None and compilation.precision == "int8":
        planned = _plan_for_ascend if chips.is_ascend(compilation.chip) else _plan_on_cpu
        lines += planned(compilation, conversion, tensors)
        compilation = _of_file(compilation, _quantized(compilation))
    doubt = chips.doubt(conversion.chip)
    return [*([f"# note: {doubt}"] if doubt else []), *lines, *_compile_plan(compilation, conversion.models)]


def resolved(conversion: Conversion) -> Conversion:
    """The same with the chip's name as CANN spells it, each batch size once, the precision named, and paths as such.

    Raises ArgumentError for an unknown chip or dtype, a batch size below 1, a precision that the chip does not have,
    batch sizes that no dynamic batch takes, or an agreement that is no share.
    """
    check_share("--min-agreement", conversion.min_agreement)
    check_dtype(conversion.dtype)
    chip, batches = chips.resolve(conversion.chip), check_batches(conversion.batches)
    precision = chips.precision(conversion.precision, chip)
    check_taken(chip, batches, conversion.dtype, conversion.dynamic_batch)
    if conversion.dynamic_batch:
        batches = check_dynamic(batches, chip, precision)
    if conversion.tune is not None:
        _check_tune(conversion.tune, chip)
    if chip == chips.CUDA and conversion.dtype != "float32":
        raise ArgumentError(f"--dtype {conversion.dtype} is not for cuda, whose models take float32; leave it out")
    return dataclasses.replace(
        conversion,
        onnx=Path(conversion.onnx),
        output=Path(conversion.output),
        calibration=None if conversion.calibration is None else Path(conversion.calibration),
        chip=chip,
        batches=batches,
        precision=precision,
    )


def _check_tune(tune: str, chip: str) -> None:
    if tune not in aoe.JOBS:
        raise ArgumentError(f"--tune {tune!r}, expected one of {', '.join(aoe.JOBS)}")
    if not chips.is_ascend(chip):
        raise ArgumentError(f"--tune is for Ascend chips, whose AOE it runs; leave it out for {chip}")


def simplification(conversion: Conversion) -> list[str]:
    """The command that is still to make the simplified ONNX file; nothing where it is up to date."""
    if _is_simplified(conversion):
        return []
    return [shlex.join(simplify.command(conversion.onnx, conversion.simplified))]


def check(conversion: Conversion) -> list[Finding]:
    """What will fail on this Ascend host, found before ATC runs; raises ArgumentError for a chip that is no NPU."""
    conversion = resolved(conversion)
    targets = list(map(conversion.target, conversion.models))
    missing = []
    if _is_simplified(conversion):
        simplify.check(conversion.onnx, conversion.simplified)
    elif not simplify.is_installed():
        missing = [Finding(FAILS, "onnxsim", simplify.elsewhere(conversion.onnx, conversion.simplified))]
    network = _network(conversion, _readable(conversion))
    found = [*missing, *preflight.findings(network, conversion.chip, _precision(conversion), targets)]
    toolkit = cann.find_toolkit() if conversion.tune else None
    return found if toolkit is None else [*found, aoe.finding(toolkit, conversion.chip, network, targets)]


def _is_simplified(conversion: Conversion) -> bool:
    _refuse_missing(conversion)
    return conversion.is_given_simplified or simplify.is_current(conversion.onnx, conversion.simplified)


def _refuse_missing(conversion: Conversion) -> None:
    if not (conversion.onnx.exists() or conversion.simplified.exists()):
        raise PipelineError(
            f"{conversion.onnx}: no such file; make it with resnest_pth2onnx.py, or name another with --onnx"
        )


def _refuse_mixing(conversion: Conversion) -> None:
    """Raises PipelineError where a network of another program mixes the images of a batch, as far as can be told here.

    What this project writes does not.
    """
    path = conversion.onnx if conversion.onnx.exists() else conversion.simplified
    if not onnx_file.read(path).info:
        with contextlib.suppress(MissingRuntimeError):
            open_engine(path, "onnxruntime")


def _refuse_to_replace(conversion: Conversion) -> None:
    """Raises PipelineError where a model stands in the place of one asked for that is of another question.

    A network that was exported anew is none: its models are compiled anew.
    """
    if conversion.force:
        return
    for batch in conversion.models:
        target = conversion.target(batch)
        if not target.exists():
            continue
        asked = {**_question(conversion), "batch": recorded(batch)}
        found = sidecar.recorded(target, asked)
        found = {"tune": None, **found} if found else found  # an earlier release recorded none
        if found.get("onnx", asked["onnx"]) != asked["onnx"] and _is_of_this_network(target, conversion):
            del found["onnx"]  # then whatever its file is called
        if other := differing(found, {key: asked[key] for key in found}):
            was, now = (", ".join(f"{key} {says[key] or 'none'}" for key in other) for says in (found, asked))
            raise PipelineError(f"{target}: was compiled for {was}, not {now}; {_WAYS_OUT}")


def _is_of_this_network(model: Path, conversion: Conversion) -> bool:
    of = conversion.onnx if conversion.onnx.exists() else conversion.simplified
    return sidecar.recorded(model, ["network"]) == {"network": simplify.origin(of)}


def _question(conversion: Conversion) -> dict[str, Any]:
    """What a model is compiled for, as its record says it; the ONNX file as seen from the model's folder."""
    return {
        "onnx": os.path.relpath(conversion.onnx, conversion.output),
        "chip": conversion.chip,
        "dtype": conversion.dtype,
        "precision": _precision(conversion),
        "tune": conversion.tune,
    }


def _refuse_for_amct(compilation: Compilation, conversion: Conversion) -> None:
    """Raises PipelineError where AMCT would not take the network, before anything runs for minutes."""
    if chips.is_ascend(compilation.chip) and compilation.precision == "int8":
        amct.check_opset(onnx_header.read(_readable(conversion)).opset, compilation.network.path)


def _refuse_to_overwrite(compilation: Compilation, conversion: Conversion) -> None:
    """Raises PipelineError where a file that would be written holds weights of the network, whoever named it so."""
    targets = [_quantized(compilation), *map(compilation.target, conversion.models)]
    written = {path.absolute() for path in targets}
    written |= {path.with_suffix(".bin") for path in written} | {sidecar.path_of(path) for path in written}
    written |= {compilation.aipp.absolute()} if compilation.aipp else set()
    for path in compilation.network.files:
        if path.absolute() in written:
            raise PipelineError(
                f"{path}: is a part of {compilation.network.path}, and would be written over; name another --output"
            )


def _refuse_to_replace_others(compilation: Compilation, conversion: Conversion) -> None:
    """Raises PipelineError where a file stands in the place of one that is written, and nothing says it is ours."""
    if conversion.force:
        return
    targets = list(map(compilation.target, conversion.models))
    for path, of in _written_with_record(compilation, targets):
        if not sidecar.recorded(of, ["source"]):
            _refuse_if_there(path, sidecar.path_of(of))
    quantized, aipp = _quantized(compilation), compilation.aipp
    foreign = compilation.precision == "int8" and quantized.exists() and not _is_own_int8(quantized, compilation.chip)
    if foreign:
        raise PipelineError(f"{quantized}: is not as convert.sh leaves it, damaged or of another program; {_WAYS_OUT}")
    if aipp and aipp.exists() and not atc.is_own_aipp(compilation.network, aipp, targets):
        raise PipelineError(f"{aipp}: is not what convert.sh writes for {compilation.network.path}; {_WAYS_OUT}")


def _written_with_record(compilation: Compilation, targets: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """What is written, and the model or bank whose record says that it is ours."""
    for target in targets:
        yield from ((path, target) for path in model_files(target))
        if compilation.tune is not None:
            bank = aoe.bank_of(target)
            yield bank, bank
            # A bank may be gone that an up-to-date model was compiled with.
            yield aoe.log_of(bank), bank if sidecar.path_of(bank).exists() else target


def _refuse_if_there(path: Path, record: Path) -> None:
    if path.exists():
        raise PipelineError(f"{path}: no {record.name} says that convert.sh made it; {_WAYS_OUT}")
    if record.exists():
        raise PipelineError(f"{record}: damaged, or not a record that convert.sh wrote; {_WAYS_OUT}")


def _is_own_int8(path: Path, chip: str) -> bool:
    if chips.is_ascend(chip):
        return amct.is_ours(path)
    with contextlib.suppress(PipelineError):  # it is not even an ONNX file
        return onnx_file.is_sealed(path, calibration.QUANTIZED)
    return False


def _readable(conversion: Conversion) -> Path:
    """The file that describes the network now."""
    return conversion.simplified if _is_simplified(conversion) else conversion.onnx


def _network(conversion: Conversion, path: Path) -> onnx_file.Network:
    """The network in `path`; raises PipelineError where it does not say what is needed, or its batch is another."""
    network = onnx_file.read(path)
    if conversion.arch is not None:
        network = onnx_file.described(network, card(conversion.arch))
    try:
        check_dtype(conversion.dtype, network.width)
    except ArgumentError as error:
        raise ArgumentError(f"{path}: {error}") from None
    if conversion.dtype != "float32":
        _ = network.normalisation
    simplify.check_batches(network, conversion.batches)
    if conversion.dynamic_batch and path == conversion.simplified:  # another one is freed when it is simplified
        simplify.check_free(network)
    return network


def _precision(conversion: Conversion) -> str:
    return chips.precision(conversion.precision, conversion.chip)


def _compilation(conversion: Conversion, network: onnx_file.Network, say: Say) -> Compilation:
    return Compilation(
        network,
        conversion.stem,
        conversion.output,
        conversion.chip,
        conversion.dtype,
        _precision(conversion),
        conversion.log,
        say,
        tune=conversion.tune,
    )


def _tensors(compilation: Compilation, conversion: Conversion) -> CalibrationTensors | None:
    """The tensors to quantize with and to judge by; raises ArgumentError where they are wanting, or of no use."""
    if conversion.calibration is None:
        if compilation.precision == "int8":
            raise ArgumentError("--precision int8 takes --calibration DIR, a folder of float32 tensors of stage 1")
        return None
    if chips.is_ascend(compilation.chip) and compilation.precision != "int8":
        raise ArgumentError(
            f"--calibration is for int8 on {compilation.chip}; leave it out for {compilation.precision}"
        )
    return calibration.choose(conversion.calibration, compilation.network, compilation.say)


def _gated(compilation: Compilation, conversion: Conversion, tensors: CalibrationTensors | None) -> Compilation:
    if tensors is None:
        if conversion.min_agreement is not None:
            raise ArgumentError("--min-agreement takes --calibration, the tensors to judge by")
        return compilation
    if chips.is_ascend(compilation.chip) and conversion.min_agreement:
        raise ArgumentError(
            f"--min-agreement for {compilation.chip} is 0 or left out: what comes out can be judged on the chip only"
        )
    if chips.is_ascend(compilation.chip):
        return compilation
    return dataclasses.replace(compilation, gate=_gate(compilation, conversion, tensors))


def _gate(compilation: Compilation, conversion: Conversion, tensors: CalibrationTensors) -> Gate:
    minimum = MIN_AGREEMENT if conversion.min_agreement is None else conversion.min_agreement
    return Gate(compilation.network, tensors.held_out, minimum, compilation.say)


def _of_file(compilation: Compilation, path: Path) -> Compilation:
    """The same of another ONNX file of the network, one that lies in a single file."""
    network = dataclasses.replace(compilation.network, path=path, data_files=())
    return dataclasses.replace(compilation, network=network)


def _quantized(compilation: Compilation) -> Path:
    """Where the network in int8 goes."""
    if not chips.is_ascend(compilation.chip):
        return compilation.folder / f"{compilation.stem}_int8.onnx"
    return amct.target_of(compilation.folder, compilation.stem)


def _quantize_on_cpu(compilation: Compilation, conversion: Conversion, tensors: CalibrationTensors) -> Path:
    network, target = compilation.network, _quantized(compilation)
    made_of = calibration.describe(network.path, tensors)
    if conversion.force or not onnx_file.holds(target, made_of):
        if compilation.gate is not None:
            compilation.gate.check_tensors()
        nncf.quantize(network, target, tensors)
        compilation.say(f"{target.name}: quantized from {network.path}, {len(tensors.calibration)} tensors")
    return target


def _quantize_for_ascend(compilation: Compilation, conversion: Conversion, tensors: CalibrationTensors) -> Path:
    network, target = compilation.network, _quantized(compilation)
    made_of = calibration.describe(network.path, tensors)
    if conversion.force or not sidecar.holds(target, made_of):
        try:
            _gate(compilation, conversion, tensors).check_tensors()
        except MissingRuntimeError:
            compilation.say(
                f"note: no ONNX Runtime here, so whether {network.path} tells the tensors apart is not known"
            )
        count = len(tensors.calibration)
        compilation.say(f"{target.name}: AMCT calibrates on {count} tensors, which takes minutes")
        amct.quantize(network, target, tensors, made_of, verbose=compilation.log is not None)
    return target


def _plan_on_cpu(compilation: Compilation, conversion: Conversion, tensors: CalibrationTensors) -> list[str]:
    count, source = len(tensors.calibration), compilation.network.path
    return [f"# NNCF: {source} -> {_quantized(compilation)}, {count} tensors of {conversion.calibration}"]


def _plan_for_ascend(compilation: Compilation, conversion: Conversion, tensors: CalibrationTensors) -> list[str]:
    count = len(tensors.calibration)
    # The simplified file may not be there yet; its convolutions have the names of those of its source.
    configuration = amct.configuration(_readable(conversion), count).splitlines()
    return [
        f"# in a scratch directory with {count} tensors of {conversion.calibration} in ./data and this ./quant.cfg:",
        *(f"# {line}" for line in configuration),
        shlex.join(amct.command(compilation.network)),
    ]


def _compile_plan(compilation: Compilation, batches: Sequence[Batch]) -> Iterator[str]:
    network = compilation.network
    if compilation.aipp is not None:
        yield f"# {compilation.aipp}:"
        yield from (f"# {line}" for line in atc.aipp_config(network, compilation.dtype).splitlines())
    for batch in batches:
        target = compilation.target(batch)
        if not chips.is_ascend(compilation.chip):
            of = f"batch {in_words(batch)}, {compilation.dtype}, {compilation.precision}"
            tool = {chips.CUDA: "ONNX for a GPU", chips.NCNN: "pnnx"}.get(compilation.chip, "OpenVINO")
            yield f"# {tool}: {network.path} -> {target}, {of}"
        else:
            if compilation.tune is not None:
                bank = aoe.bank_of(target)
                path = shlex.quote(os.path.realpath(bank))
                yield f"# both with {aoe.BANK}={path}; aoe, where that is not up to date"
            one_file = f" that holds {network.path} with the weights beside it" if network.data_files else ""
            yield f"# in a scratch directory{one_file}; {target.name} is then moved to {compilation.folder}"
            if not all(taken_paths.takes(os.path.realpath(path)) for path in (network.path, target)):
                yield "# ATC takes only letters, digits and . / _ - in a path; convert.sh gives it copies so named"
            yield from map(shlex.join, compilation.aoe_commands(batch))
            yield shlex.join(compilation.atc_command(batch))
