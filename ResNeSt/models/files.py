"""What a model is on disk: its file and those that belong to it."""

from __future__ import annotations

from pathlib import Path

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike, sha256
from ResNeSt.formats import onnx_header
from ResNeSt.models import classifier, model_info, sidecar
from ResNeSt.models.checkpoint import card_for


def model_files(path: PathLike) -> list[Path]:
    """The model file at `path` and those of its weights: the `.bin` of a `.xml` or `.param`, data files of a `.onnx`.

    Raises PipelineError where an ONNX file or its weights are damaged or missing.
    """
    path = Path(path)
    if path.suffix in {".xml", ".param"}:
        return [path, path.with_suffix(".bin")]
    if path.suffix == ".onnx" and path.exists():  # one to come is a single file
        return [path, *(path.parent / name for name in onnx_header.read(path).data_files)]
    return [path]


def digests(path: PathLike) -> dict[str, str]:
    """Hex SHA-256 of each file of the model at `path`, by its name: `files` of its record; raises as `model_files`."""
    return {file.name: sha256(file) for file in model_files(path)}


def check_record(path: PathLike) -> None:
    """Raises PipelineError where the model at `path` is not the one that the record beside it is of, if there is one.

    A runtime takes whatever lies there: weights of another training with the same shapes, or damaged ones.
    """
    path = Path(path)
    record = sidecar.recorded(path, ["files"])
    if record and not sidecar.is_of(record, digests(path)):
        what = " or ".join(file.name for file in model_files(path)[1:])
        raise PipelineError(
            f"{path}: it{f' or {what}' if what else ''} is not as convert.sh left it; copy "
            f"{'both' if what else 'it'} again, with {path.name}.json"
        )


def info_of_file(path: PathLike) -> dict[str, str]:
    """What a model's file, its record or its card says of it (ResNeSt.models.model_info); the model is not opened.

    Raises PipelineError where there is no such file, or where it is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise PipelineError(f"{path}: no such model file")
    if path.suffix == ".onnx":
        header = onnx_header.read(path)
        shape = classifier.of_onnx(path, header).output.shape or ("", "")
        return {"classes": str(shape[1]), **model_info.of_onnx(header.metadata)}
    if path.suffix in {".xml", ".param", ".om"}:
        return sidecar.info_of(path)
    found = card_for(path, None)
    return model_info.describe(found, found.size, path.name)
