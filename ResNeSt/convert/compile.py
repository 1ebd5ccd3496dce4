"""A compiled model per batch size, or one for several, made unless the record beside it still holds."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable

from tqdm import tqdm

from ResNeSt.common import cann
from ResNeSt.common.errors import MissingRuntimeError, PipelineError
from ResNeSt.common.files import remove_plain, sha256
from ResNeSt.common.made_of import Unchanged
from ResNeSt.common.progress import Say, hidden
from ResNeSt.convert import aoe, atc, chips, cuda_onnx, openvino_ir, pnnx
from ResNeSt.convert.gate import Gate
from ResNeSt.convert.targets import Batch, compiled_name, in_words, recorded, sizes_of
from ResNeSt.formats.onnx_weights import sha256_of_onnx
from ResNeSt.models import sidecar
from ResNeSt.models.files import digests, model_files
from ResNeSt.models.onnx_file import Network
from ResNeSt.tensors.format import LAYOUTS


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled model, up to date: its file, and what it was compiled for.

    `batch` is its batch size, the largest of `sizes`, which are those that it was asked for. `dtype` is that of its
    input (Conversion). `agreement` is the share of held-out tensors with the top-1 of fp32, None where nothing judged
    it; `kept` whether an earlier run made it; `tune` what AOE tuned for it.
    """

    path: Path
    batch: int
    chip: str
    dtype: str
    precision: str
    agreement: float | None
    kept: bool
    sizes: tuple[int, ...]
    tune: str | None = None


@dataclasses.dataclass(frozen=True)
class Compilation:
    """What is compiled, and how; `stem` starts the names of the compiled files in `folder`.

    `read` are the ONNX files on the way, since before they were read; `told` goes to the records, too.
    """

    network: Network
    stem: str
    folder: Path
    chip: str
    dtype: str
    precision: str
    log: str | None
    say: Say
    gate: Gate | None = None
    read: tuple[Unchanged, ...] = ()
    told: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tune: str | None = None

    def target(self, batch: Batch) -> Path:
        """The compiled model for `batch`."""
        return self.folder / compiled_name(self.stem, batch, self.chip)

    @property
    def aipp(self) -> Path | None:
        """ATC's pre-processing file, which inputs of pixels need; the CPU's models hold theirs."""
        needed = self.dtype != "float32" and chips.is_ascend(self.chip)
        return self.folder / f"{self.stem}_aipp.cfg" if needed else None

    def atc_command(self, batch: Batch) -> list[str]:
        """The ATC command for `batch`."""
        options = [] if self.tune is None else aoe.bank_options(aoe.bank_of(self.target(batch)), self.tune)
        return [*self._untuned_command(batch), *options]

    def form(self, batch: Batch) -> dict[str, Any]:
        """What else than the question a model depends on: how this release compiles."""
        if not chips.is_ascend(self.chip):
            compilers = {chips.CPU: openvino_ir, chips.CUDA: cuda_onnx, chips.NCNN: pnnx}
            return {"form": compilers[self.chip].form()}
        pixels = {} if self.aipp is None else {atc.AIPP: atc.aipp_digest(self.network, self.dtype)}
        return {"form": atc.form(self._untuned_command(batch)), **pixels}

    def aoe_commands(self, batch: Batch) -> list[list[str]]:
        """The AOE commands for `batch`; none where nothing is tuned."""
        return [] if self.tune is None else aoe.commands(self._untuned_command(batch), self.tune)

    def _untuned_command(self, batch: Batch) -> list[str]:
        name = self.target(batch).stem
        return atc.command(self.network, batch, self.chip, self.precision, name, self.aipp, self.log)


def compile_all(compilation: Compilation, batches: list[Batch], force: bool) -> list[Compiled]:
    """The models for `batches`, one each, in their order; `force` compiles even what is up to date."""
    source = sha256_of_onnx(compilation.network.path)
    stale = [batch for batch in batches if force or not _is_current(compilation, batch, source)]
    for batch in batches:
        if batch not in stale:
            compilation.say(f"{compilation.target(batch).name}: up to date")
    if stale:
        _compile_stale(compilation, stale, source, force)
    return [_compiled(compilation, batch, batch not in stale) for batch in batches]


def _compiled(compilation: Compilation, batch: Batch, kept: bool) -> Compiled:
    path, sizes = compilation.target(batch), sizes_of(batch)
    of = (compilation.chip, compilation.dtype, compilation.precision)
    return Compiled(path, max(sizes), *of, sidecar.read(path).get("agreement"), kept, sizes, compilation.tune)


def _compile_stale(compilation: Compilation, batches: list[Batch], source: str, force: bool) -> None:
    compile_one = _compiler(compilation, batches, source, force)
    for batch in tqdm(batches, "compile", unit="model", disable=hidden()):
        target = compilation.target(batch)
        # Of what was made before, nothing stays that could be taken for what is asked for now.
        for path in model_files(target):
            remove_plain(path)
        sidecar.remove(target)
        compile_one(batch)


def _compiler(compilation: Compilation, batches: list[Batch], source: str, force: bool) -> Callable[[Batch], None]:
    """A function that compiles one of the models; what is tuned for it has been tuned."""
    if not chips.is_ascend(compilation.chip):
        if compilation.precision == "bf16" and not openvino_ir.has_bf16():
            compilation.say("note: this CPU does not compute in bf16; the models run here in fp32")
        here = {chips.CUDA: _compile_for_cuda, chips.NCNN: _compile_for_ncnn}.get(compilation.chip, _compile_on_cpu)
        return functools.partial(here, compilation, source)
    toolkit = cann.find_toolkit()
    if toolkit is None:
        sizes = ",".join(str(size) for batch in batches for size in sizes_of(batch))
        raise MissingRuntimeError(
            f"atc is not on this machine; run `bash convert.sh {sizes} {compilation.chip}` with the same options on "
            "one with CANN (an NPU is not needed), after copying "
            f"{' and '.join(map(str, compilation.network.files))} there"
        )
    if toolkit.driver() is None and toolkit.devlib is not None:
        compilation.say(f"note: no driver here, so ATC gets {toolkit.devlib} on its LD_LIBRARY_PATH")
    if compilation.aipp is not None:
        atc.write_aipp(compilation.network, compilation.dtype, compilation.aipp)
    if compilation.tune is not None:
        _tune(compilation, batches, source, force, toolkit)
    return functools.partial(_compile_for_ascend, compilation, source, toolkit)


def _tune(compilation: Compilation, batches: list[Batch], source: str, force: bool, toolkit: cann.Toolkit) -> None:
    """Lets AOE fill the banks that do not hold; with `force` those, too, whose model is up to date."""
    program = ""
    for batch in batches:
        bank = aoe.bank_of(compilation.target(batch))
        made_of = {**_made_of(compilation, batch, source), "tune": compilation.tune}
        anew = force and _is_current(compilation, batch, source)
        if aoe.holds(bank, made_of) and not anew:
            compilation.say(f"{bank.name}: up to date")
            continue
        program = program or aoe.find(toolkit, compilation.chip, compilation.network)
        compilation.say(f"{bank.name}: AOE tunes on the card, which takes hours; look on in {aoe.log_of(bank)}")
        commands = compilation.aoe_commands(batch)
        count = aoe.tune(program, toolkit, compilation.network, commands, bank, made_of, anew)
        found = f"tuned, files: {count}" if count else "empty: nothing is better than what CANN brings along"
        compilation.say(f"{bank.name}: {found}")


def _compile_on_cpu(compilation: Compilation, source: str, batch: Batch) -> None:
    network, target, dtype, precision = (
        compilation.network,
        compilation.target(batch),
        compilation.dtype,
        compilation.precision,
    )
    finish = functools.partial(_finish, compilation, batch, source, f"OpenVINO {openvino_ir.version()}")
    openvino_ir.compile_model(network, target, batch, dtype, precision, source, finish)
    _say_compiled(compilation, batch)


def _compile_for_cuda(compilation: Compilation, source: str, batch: Batch) -> None:
    finish = functools.partial(_finish, compilation, batch, source, f"ONNX Runtime {cuda_onnx.version()}")
    target, precision = compilation.target(batch), compilation.precision
    cuda_onnx.compile_model(compilation.network, target, batch, precision, source, finish)
    _say_compiled(compilation, batch)


def _compile_for_ncnn(compilation: Compilation, source: str, batch: Batch) -> None:
    finish = functools.partial(_finish, compilation, batch, source, pnnx.version())
    network, target, precision = compilation.network, compilation.target(batch), compilation.precision
    difference = pnnx.compile_model(network, target, precision, finish)
    _say_compiled(compilation, batch, f"; differs from {network.path.name} by {difference:.1e} of the largest logit")


def _finish(compilation: Compilation, batch: Batch, source: str, tool: str, model: Path) -> None:
    """Judges the model where it is to be judged, and writes its record."""
    gate, name = compilation.gate, compilation.target(batch).name
    judged = gate.check(model, compilation.network.path, name) if gate else {}
    _record(compilation, batch, source, model, {"tool": tool, **judged})


def _say_compiled(compilation: Compilation, batch: Batch, found: str = "") -> None:
    target, dtype = compilation.target(batch), compilation.dtype
    size = sum(path.stat().st_size for path in model_files(target))
    images = f"batch {in_words(batch)}, {dtype} {LAYOUTS[dtype].order}"
    compilation.say(f"{target.name}: {images}, {compilation.precision}, {size:,} bytes{found}")


def _compile_for_ascend(compilation: Compilation, source: str, toolkit: cann.Toolkit, batch: Batch) -> None:
    target = compilation.target(batch)
    compilation.say(f"{target.name}: compiling for Ascend{compilation.chip}, which takes minutes")

    def finish(model: Path) -> None:
        # Where atc lies tells its release: CANN installs each into a folder of its version.
        bank = aoe.used(aoe.bank_of(target)) if compilation.tune else {}
        _record(compilation, batch, source, model, {"tool": os.path.realpath(toolkit.atc), **bank})

    verbose, command = compilation.log is not None, compilation.atc_command(batch)
    header = atc.compile_model(toolkit, compilation.network, command, target, verbose, finish)
    compilation.say(f"{target.name}: {header}")


def _record(compilation: Compilation, batch: Batch, source: str, model: Path, told: dict[str, Any]) -> None:
    """Writes the record of a model that is about to get its name, so that none is without.

    Raises PipelineError where the ONNX file is no longer the one of which `source` is the digest.
    """
    for onnx in compilation.read:
        onnx.check()
    target = compilation.target(batch)
    names = [path.name for path in model_files(target)]
    files = dict(zip(names, map(sha256, model_files(model))))
    answers = "probabilities" if compilation.network.probabilities else "logits"
    made_of = {**compilation.told, **_made_of(compilation, batch, source)}
    sidecar.write(target, {**made_of, **told, "answers": answers, "files": files})


def _made_of(compilation: Compilation, batch: Batch, source: str) -> dict[str, Any]:
    """Everything that a compiled model depends on, and what it is judged by; `source` is the SHA-256 of the ONNX."""
    judged_by = {"held_out": compilation.gate.tensors} if compilation.gate else {}
    return {
        **judged_by,
        **compilation.form(batch),
        "source": source,
        "batch": recorded(batch),
        "chip": compilation.chip,
        "dtype": compilation.dtype,
        "precision": compilation.precision,
        "info": compilation.network.info,
    }


def _is_current(compilation: Compilation, batch: Batch, source: str) -> bool:
    """Whether the model's files are as they were left, made from this source, and found as good as is asked for."""
    target, gate = compilation.target(batch), compilation.gate
    with contextlib.suppress(OSError, PipelineError, TypeError):
        record = sidecar.read(target)
        passed = (gate is None or gate.passes(record)) and _is_tuned_so(compilation, target, record)
        return passed and sidecar.holds(target, {**_made_of(compilation, batch, source), "files": digests(target)})
    return False


def _is_tuned_so(compilation: Compilation, target: Path, record: Mapping[str, Any]) -> bool:
    """Whether a model was tuned as is asked for, with its bank as it is now; one that is not kept is not needed."""
    bank = aoe.used(aoe.bank_of(target)) if compilation.tune else {}
    return record.get("tune") == compilation.tune and bank.items() <= record.items()
