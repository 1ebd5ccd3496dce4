"""The compiled models that a table is of: found by their names, refused where they do not go together."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ResNeSt.common.errors import PipelineError
from ResNeSt.convert.targets import compiled_name
from ResNeSt.models import sidecar
from ResNeSt.models.files import digests, model_files

PREFIX = "resnest50"


def find_models(prefix: str, batches: Sequence[int], chip: str) -> dict[int, Path]:
    """The model of every batch size, `<prefix>_bs<N>.om` or `.xml`.

    Raises PipelineError where one is not there, is for another batch size or chip, or is of another network.
    """
    models = {batch: _model(prefix, batch, chip) for batch in batches}
    records = {model: record_of(model, digests(model)) for model in models.values()}
    _refuse_other_chips(records, chip)
    _refuse_other_networks(records, _compile_command(prefix, ",".join(map(str, batches)), chip))
    return models


def record_of(model: Path, files: dict[str, str]) -> dict[str, Any]:
    """What lies beside the model, if it is of `files`, names with digests."""
    record = sidecar.read(model)
    return record if record.get("files") == files else {}


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
