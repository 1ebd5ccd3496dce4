"""The compiled models that a table is of: found by their names, refused where they do not go together."""

from __future__ import annotations

import glob
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ResNeSt.common.arguments import LARGEST_BATCH
from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.convert.targets import FEWEST_SIZES, compiled_name
from ResNeSt.models import sidecar
from ResNeSt.models.files import digests, model_files

PREFIX = "resnest50"
EXAMPLE = (1, 4, 8)  # batch sizes, where none are named
_FILE = re.compile(r"(.+?)(?:_bs\d+|_dyn)?\.(?:om|xml|onnx|ncnn\.param)")


def find_models(prefix: str, batches: Sequence[int], chip: str, dynamic: bool = False) -> dict[int, Path]:
    """The model of every batch size, by its name (compiled_name): one each, or one for all where it is `dynamic`.

    Raises PipelineError where one is not there, is for other batch sizes or another chip, or is of another network.
    """
    if dynamic:
        models = dict.fromkeys(batches, _dynamic_model(prefix, batches, chip))
    else:
        models = {batch: _model(prefix, batch, chip) for batch in batches}
    records = {model: record_of(model, digests(model)) for model in dict.fromkeys(models.values())}
    _refuse_other_chips(records, chip)
    _refuse_other_networks(records, _compile_command(prefix, batches, chip, dynamic))
    return models


def check_prefix(prefix: str) -> None:
    """Raises ArgumentError where it names one file, a model or the ONNX file that they are made of."""
    named = _FILE.fullmatch(prefix)
    if named and os.path.isfile(prefix):
        raise ArgumentError(f"--prefix {prefix}: is a file; name what the names of all models begin with: {named[1]}")


def compiled_batches(prefix: str, chip: str, dynamic: bool) -> list[int]:
    """The batch sizes that models called so are there for, ascending; those of the one model where it is `dynamic`.

    Raises PipelineError where there is none, or nothing says which sizes the one takes.
    """
    command = _compile_command(prefix, EXAMPLE, chip, dynamic)
    if dynamic:
        path = Path(compiled_name(prefix, EXAMPLE, chip))
        _check_there(path, command)
        if not (sizes := sidecar.sizes_of(path)):
            raise PipelineError(f"{path}: has no {path.name}.json that says its batch sizes; name them, like 1,4,8")
        return list(sizes)
    folder = Path(prefix).parent
    here = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    names = {batch: compiled_name(Path(prefix).name, batch, chip) for batch in range(1, LARGEST_BATCH + 1)}
    if not (batches := [batch for batch, name in names.items() if name in here]):
        raise PipelineError(f"{several(prefix, chip)}: no such files; make them with: {command}")
    return batches


def several(prefix: str, chip: str) -> str:
    """What the models of all batch sizes are called."""
    return compiled_name(prefix, 1, chip).replace("_bs1.", "_bs*.")


def models_here(prefix: str, chip: str) -> list[str]:
    """The files that are called as the models of `prefix` for `chip` are, whatever their batch sizes."""
    return glob.glob(several(glob.escape(prefix), chip)) + glob.glob(compiled_name(glob.escape(prefix), EXAMPLE, chip))


def record_of(model: Path, files: dict[str, str]) -> dict[str, Any]:
    """What lies beside the model, if it is of `files`, names with digests."""
    record = sidecar.read(model)
    return record if sidecar.is_of(record, files) else {}


def _model(prefix: str, batch: int, chip: str) -> Path:
    path, command = Path(compiled_name(prefix, batch, chip)), _compile_command(prefix, [batch], chip, False)
    other = Path(compiled_name(prefix, (batch,), chip))
    hint = f"; --dynamic-batch takes {other.name}" if other.is_file() else ""
    _check_there(path, f"{command}{hint}")
    compiled_for = sidecar.read(path).get("batch", batch)
    if compiled_for != batch:
        raise PipelineError(
            f"{path}: is compiled for batch {compiled_for}, says {path.name}.json; make it with: {command}"
        )
    return path


def _dynamic_model(prefix: str, batches: Sequence[int], chip: str) -> Path:
    """The one model, which takes all of `batches`; without a record the client says whether it does."""
    path = Path(compiled_name(prefix, tuple(batches), chip))
    _check_there(path, _compile_command(prefix, batches, chip, True))
    sizes = sidecar.sizes_of(path)
    missing = [str(batch) for batch in batches if sizes and batch not in sizes]
    if missing:
        every = sorted({*sizes, *batches})
        raise PipelineError(
            f"{path}: takes batches of {', '.join(map(str, sizes))}, says {path.name}.json, not of "
            f"{', '.join(missing)}; leave them out, or make it with: {_compile_command(prefix, every, chip, True)}"
        )
    return path


def _check_there(path: Path, remedy: str) -> None:
    for file in model_files(path):
        if not file.is_file():
            raise PipelineError(f"{file}: no such file; make it with: {remedy}")


def _compile_command(prefix: str, batches: Sequence[int], chip: str, dynamic: bool) -> str:
    """The command that makes the models called so, of the ONNX file that is called so."""
    folder = os.path.dirname(prefix)
    flags = [] if prefix == PREFIX else [f"--onnx={prefix}.onnx"]
    flags += [f"--output={folder}"] if folder else []
    if dynamic:
        flags.append("--dynamic-batch")
        batches = batches if len(batches) >= FEWEST_SIZES else [*batches, 2 * batches[0]]
    return shlex.join(["bash", "convert.sh", ",".join(map(str, batches)), chip, *flags])


def _refuse_other_chips(records: Mapping[Path, dict[str, Any]], chip: str) -> None:
    for model, record in records.items():
        its_chip = record.get("chip", chip)
        if its_chip != chip:
            raise PipelineError(
                f"{model}: is compiled for {its_chip}, says {model.name}.json, not for {chip}; run bench.sh "
                f"for {its_chip}, or compile it for {chip} into another folder"
            )


def _refuse_other_networks(records: Mapping[Path, dict[str, Any]], command: str) -> None:
    known = [(model, record) for model, record in records.items() if "network" in record]
    for model, record in known[1:]:
        first, its = known[0]
        if record["network"] != its["network"] and record.get("source") != its.get("source"):
            raise PipelineError(f"{model}: is compiled from another network than {first}; compile them anew: {command}")
