"""Stage 3: .onnx -> simplified .onnx -> a compiled model per batch size, for an Ascend chip or the CPU.

Beside each compiled model lies `<model>.json`, which says from what and how it was made; a model whose record still
holds is not compiled again.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import os
import shlex
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

from tqdm import tqdm

from ResNeSt import amct, atc, chips, network, openvino_ir, preflight, quantize, simplify
from ResNeSt.errors import ArgumentError, MissingRuntimeError, PipelineError, run
from ResNeSt.files import read_json, write_json
from ResNeSt.model_files import sha256_of_model
from ResNeSt.tensors import LAYOUTS

MIN_AGREEMENT = 0.95


def compiled_name(stem: str, batch: int, chip: str) -> str:
    """File name of the model of `stem`.onnx compiled for `batch` images on `chip` (a name of `chips.resolve`)."""
    return f"{stem}_bs{batch}.{'xml' if chip == chips.CPU else 'om'}"


def parse_batches(text: str) -> List[int]:
    """`1,4,8` -> [1, 4, 8], duplicates dropped; raises ArgumentError for anything but whole numbers above 0."""
    batches = []
    for part in text.split(","):
        # isdigit alone takes digits like a superscript two, which int refuses
        if not (part.isascii() and part.isdigit() and int(part) > 0):
            raise ArgumentError(f"batch sizes must be whole numbers above 0, like 1,4,8; found {part!r} in {text!r}")
        batches.append(int(part))
    return list(dict.fromkeys(batches))


@dataclasses.dataclass(frozen=True)
class Job:
    """What is compiled, and how; `stem` starts the names of the compiled files in `folder`."""

    network: network.Network
    stem: str
    folder: Path
    chip: str
    dtype: str
    precision: str
    log: Optional[str]
    gate: Optional[quantize.Gate] = None

    def target(self, batch: int) -> Path:
        """The compiled model for `batch`."""
        return self.folder / compiled_name(self.stem, batch, self.chip)

    @property
    def aipp(self) -> Optional[Path]:
        """ATC's pre-processing file, which uint8 inputs need; the CPU's models hold theirs."""
        needed = self.dtype == "uint8" and self.chip != chips.CPU
        return self.folder / f"{self.stem}_aipp.cfg" if needed else None

    def atc_command(self, batch: int) -> List[str]:
        """The ATC command for `batch`."""
        name = self.target(batch).stem
        return atc.command(self.network, batch, self.chip, self.precision, name, self.aipp, self.log)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Command line of convert.sh."""
    args = _parse(argv)
    batches = parse_batches(args.batches)
    chip = chips.resolve(args.chip)
    precision = chips.precision(args.precision, chip)
    if chip.startswith("310P") and precision == "fp32":
        print("note: on a 310P AvgPool and MaxPool take no float32, so a network in fp32 does not stay on its AI core")
    simplified = args.output_dir / f"{args.onnx.stem}_sim.onnx"
    source = _simplified(args.onnx, simplified, args.dry_run or args.check)
    if args.check:
        targets = [args.output_dir / compiled_name(args.onnx.stem, batch, chip) for batch in batches]
        preflight.run(network.read(source), chip, precision, targets)
        return 0
    found = network.read(source)
    if source != simplified:  # a dry run before it is made, which will be in one file
        found = dataclasses.replace(found, path=simplified, data_files=())
    job = Job(found, args.onnx.stem, args.output_dir, chip, args.dtype, precision, args.log)
    if args.calibration or precision == "int8":
        job = _gated(job, args)
    if args.min_agreement is not None and job.gate is None:
        raise ArgumentError("--min-agreement takes --calibration and chip cpu; nothing else is judged")
    if args.dry_run:
        _print_plan(job, batches)
    else:
        _compile_all(job, batches, args.force)
    return 0


def _parse(argv: Optional[Sequence[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="convert.sh", description="Compile an ONNX file, one model per batch size.")
    parser.add_argument("batches", metavar="BATCHES", help="batch sizes, like 1,4,8")
    parser.add_argument("chip", metavar="CHIP", help="a chip like 310P3 or Ascend310P3, cpu, or auto")
    parser.add_argument("--onnx", type=Path, default=Path("resnest50.onnx"), metavar="FILE", help="[%(default)s]")
    parser.add_argument("--output-dir", type=Path, default=Path("."), metavar="DIR", help="[%(default)s]")
    parser.add_argument("--dtype", choices=list(LAYOUTS), default="float32", help="of the tensors [%(default)s]")
    parser.add_argument(
        "--precision", help="fp16, fp32, mixed or int8 on Ascend [fp16]; fp32, bf16 or int8 on cpu [fp32]"
    )
    parser.add_argument("--calibration", type=Path, metavar="DIR", help="float32 tensors, to quantize and to judge by")
    parser.add_argument(
        "--min-agreement", type=float, metavar="SHARE", help=f"with the top-1 of fp32, on cpu [{MIN_AGREEMENT}]"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the exact commands and change nothing")
    parser.add_argument("--check", action="store_true", help="say what will fail on this Ascend host, and end there")
    parser.add_argument("--log", choices=atc.LOG_LEVELS, help="ATC's log level; shows all that it prints")
    parser.add_argument("--force", action="store_true", help="compile even what is up to date")
    return parser.parse_args(argv)


def _gated(job: Job, args: argparse.Namespace) -> Job:
    """The job on the quantized file for int8, which is made unless it is up to date; on cpu with a gate."""
    if not args.calibration:
        raise ArgumentError("--precision int8 takes --calibration DIR, a folder of float32 tensors of stage 1")
    if job.chip != chips.CPU and job.precision != "int8":
        raise ArgumentError(f"--calibration is for int8 on {job.chip}; leave it out for {job.precision}")
    tensors = quantize.choose(args.calibration, job.network)
    if job.chip == chips.CPU:
        wanted = MIN_AGREEMENT if args.min_agreement is None else args.min_agreement
        job = dataclasses.replace(job, gate=quantize.Gate(job.network, tensors.held_out, wanted))
    if job.precision != "int8":
        return job
    quantized = _quantized_on_cpu if job.chip == chips.CPU else _quantized_for_ascend
    target = quantized(job, tensors, args)
    return dataclasses.replace(job, network=dataclasses.replace(job.network, path=target, data_files=()))


def _quantized_on_cpu(job: Job, tensors: quantize.Tensors, args: argparse.Namespace) -> Path:
    target = job.folder / f"{job.stem}_int8.onnx"
    if args.dry_run:
        print(f"# NNCF: {job.network.path} -> {target}, {len(tensors.calibration)} tensors of {args.calibration}")
    elif args.force or not quantize.is_current(target, quantize.describe(job.network.path, tensors)):
        quantize.quantize(job.network, target, tensors)
        print(f"{target.name}: quantized from {job.network.path}, {len(tensors.calibration)} tensors")
    return target


def _quantized_for_ascend(job: Job, tensors: quantize.Tensors, args: argparse.Namespace) -> Path:
    target, count = amct.target_of(job.folder, job.stem), len(tensors.calibration)
    if args.dry_run:
        # The simplified file may not be there yet; its convolutions have the names of those of its source.
        readable = job.network.path if job.network.path.exists() else args.onnx
        lines = amct.configuration(readable, count).splitlines()
        print(f"# in a scratch directory with {count} tensors of {args.calibration} in ./data and this ./quant.cfg:")
        print("".join(f"# {line}\n" for line in lines), end="")
        print(shlex.join(amct.command(job.network)))
        return target
    made_of = quantize.describe(job.network.path, tensors)
    if args.force or not amct.is_current(target, made_of):
        print(f"{target.name}: AMCT calibrates on {count} tensors, which takes minutes", flush=True)
        amct.quantize(job.network, target, tensors.calibration, made_of, verbose=job.log is not None)
    return target


def _simplified(source: Path, target: Path, dry_run: bool) -> Path:
    """Brings the simplified ONNX up to date and returns it; a dry run returns the file that can be read now."""
    if simplify.is_current(source, target):
        if not dry_run:
            simplify.check(source, target)
        return target
    if not source.exists():
        raise PipelineError(f"{source}: no such file; make it with resnest_pth2onnx.py, or name another with --onnx")
    if dry_run:
        print(shlex.join(simplify.command(source, target)))
        return source
    target.parent.mkdir(parents=True, exist_ok=True)
    simplify.simplify(source, target)
    print(f"{target.name}: simplified from {source}")
    return target


def _print_plan(job: Job, batches: List[int]) -> None:
    if job.aipp is not None:
        print(f"# {job.aipp}:")
        print("".join(f"# {line}\n" for line in atc.aipp_config(job.network).splitlines()), end="")
    if job.chip != chips.CPU and job.network.data_files:
        print(f"# {job.network.one_file}: {job.network.path} with the weights that lie beside it")
    for batch in batches:
        target = job.target(batch)
        if job.chip == chips.CPU:
            print(f"# OpenVINO: {job.network.path} -> {target}, batch {batch}, {job.dtype}, {job.precision}")
        else:
            print(f"# in a scratch directory; {target.name} is then moved to {job.folder}")
            print(shlex.join(job.atc_command(batch)))


def _compile_all(job: Job, batches: List[int], force: bool) -> None:
    source = sha256_of_model(job.network.path)
    stale = []
    for batch in batches:
        if not force and _is_current(job, batch, source):
            print(f"{job.target(batch).name}: up to date")
        else:
            stale.append(batch)
    if stale:
        _compile_stale(job, stale, source)


def _compile_stale(job: Job, batches: List[int], source: str) -> None:
    compile_one = _compiler(job, batches, source)
    for batch in tqdm(batches, "compile", unit="model", disable=None):
        target = job.target(batch)
        # Of what was made before, nothing stays that could be taken for what is asked for now.
        _sidecar(target).unlink(missing_ok=True)
        target.unlink(missing_ok=True)
        made = compile_one(batch)
        write_json(
            _sidecar(target),
            {**_record(job, batch, source), **made, "info": job.network.info, "files": _sizes(target)},
        )


def _compiler(job: Job, batches: List[int], source: str) -> Callable[[int], Dict[str, Any]]:
    """A function that compiles for a batch size and returns what is to be recorded of it: `tool`, and `agreement`."""
    if job.chip == chips.CPU:
        if job.precision == "bf16" and not openvino_ir.has_bf16():
            print("note: this CPU does not compute in bf16; the models run here in fp32")
        return functools.partial(_compile_on_cpu, job, source)
    toolkit = atc.find_toolkit()
    if toolkit is None:
        sizes = ",".join(str(batch) for batch in batches)
        raise MissingRuntimeError(
            f"atc is not on this machine; run `bash convert.sh {sizes} {job.chip}` with the same options on one with "
            f"CANN (an NPU is not needed), after copying {' and '.join(map(str, job.network.files))} there"
        )
    job.network.write_one_file()
    if job.aipp is not None:
        atc.write_aipp(job.network, job.aipp)
    return functools.partial(_compile_for_ascend, job, toolkit)


def _compile_on_cpu(job: Job, source: str, batch: int) -> Dict[str, Any]:
    target = job.target(batch)
    judged = {}

    def check(model: Path) -> None:
        if job.gate is not None:
            judged["agreement"] = job.gate.check(model, job.network.path, target.name)

    version = openvino_ir.compile_model(job.network, target, batch, job.dtype, job.precision, source, check)
    size = sum(_sizes(target).values())
    tqdm.write(f"{target.name}: batch {batch}, {job.dtype} {LAYOUTS[job.dtype]}, {job.precision}, {size:,} bytes")
    return {"tool": f"OpenVINO {version}", **judged}


def _compile_for_ascend(job: Job, toolkit: atc.Toolkit, batch: int) -> Dict[str, Any]:
    target = job.target(batch)
    tqdm.write(f"{target.name}: compiling for Ascend{job.chip}, which takes minutes")
    sys.stdout.flush()
    header = atc.compile_model(toolkit, job.atc_command(batch), target, verbose=job.log is not None)
    tqdm.write(f"{target.name}: {header}")
    # Where atc lies tells its release: CANN installs each into a folder of its version.
    return {"tool": os.path.realpath(toolkit.atc)}


def _record(job: Job, batch: int, source: str) -> Dict[str, Any]:
    """Everything that a compiled model depends on, and what it is judged by; `source` is the SHA-256 of the ONNX."""
    judged_by = {"held_out": job.gate.tensors} if job.gate else {}
    return {
        **judged_by,
        "source": source,
        "batch": batch,
        "chip": job.chip,
        "dtype": job.dtype,
        "precision": job.precision,
    }


def _sidecar(target: Path) -> Path:
    return target.with_name(target.name + ".json")


def _sizes(target: Path) -> Dict[str, int]:
    files = [target, target.with_suffix(".bin")] if target.suffix == ".xml" else [target]
    return {path.name: path.stat().st_size for path in files}


def _is_current(job: Job, batch: int, source: str) -> bool:
    """Whether the model's files are as they were left, made from this source, and found as good as is asked for."""
    target = job.target(batch)
    with contextlib.suppress(OSError, PipelineError):
        saved = read_json(_sidecar(target))
        if not isinstance(saved, dict):
            return False
        passed = job.gate is None or saved.get("agreement", 0) >= job.gate.minimum
        return passed and {**_record(job, batch, source), "files": _sizes(target)}.items() <= saved.items()
    return False


if __name__ == "__main__":
    run(main)
