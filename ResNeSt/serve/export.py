"""A model -> a folder of a model repository as Triton, OpenVINO Model Server and KServe read it.

NAME/config.pbtxt           Triton's ModelConfig (model_config.proto)
NAME/labels.txt             a class name a line, for Triton's classification extension (where a request is of one
                            image, or of as many as it likes)
NAME/1/model.onnx           or model.xml and model.bin
NAME/inferenceservice.yaml  for KServe (serving.kserve.io/v1beta1), with its Triton runtime
NAME/resnest.json           what was written here, so that the next export replaces that and nothing else
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ResNeSt.common.arguments import LARGEST_BATCH, Parser, batch_size, write_result
from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.common.files import PathLike, read_json, scratch_folder, sha256, write_json
from ResNeSt.common.flags import take
from ResNeSt.common.progress import aloud
from ResNeSt.engines.engine import ANY_SIZE, Engine
from ResNeSt.engines.image_batches import FREE_BATCH
from ResNeSt.engines.opening import CHECKPOINTS, open_engine
from ResNeSt.formats.onnx_weights import write_one_file
from ResNeSt.labels.class_names import names_of
from ResNeSt.models import classifier
from ResNeSt.models.files import model_files
from ResNeSt.serve.settings import plain_name

RECORD = "resnest.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")  # a folder, and a part of a URL
_TYPES = {
    "float32": "TYPE_FP32",
    "float16": "TYPE_FP16",
    "float64": "TYPE_FP64",
    "bfloat16": "TYPE_BF16",
    "uint8": "TYPE_UINT8",
}
_REMEDIES = {
    ".om": "Triton has no backend for it; serve it with python -m ResNeSt.serve, or give the .onnx that it was made of",
    **dict.fromkeys(CHECKPOINTS, "make the .onnx of it with resnest_pth2onnx.py first"),
}


class Tensor(NamedTuple):
    """An end of the model: name, NumPy dtype, shape without the batch axis."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class Exported(NamedTuple):
    """The model's folder, the name that requests use, and Triton's max_batch_size: 0 for a model's own batch alone."""

    folder: Path
    name: str
    batch: int


def export(
    model: PathLike,
    output: PathLike,
    name: str | None = None,
    names: PathLike | None = None,
    max_batch: int | None = None,
    storage_uri: str | None = None,
) -> Exported:
    """Writes the .onnx or .xml file `model` into the model repository `output`, as `name`.

    `name` is by default the file's; `names` a file with a class name a line, by default the
    model's own, or ImageNet's for 1,000 classes. `max_batch` is the largest batch of an ONNX file with a free batch
    axis. `storage_uri` is where KServe finds a copy of the repository.
    What an earlier export wrote is replaced. Raises PipelineError where anything else stands in its place, and where
    the file is no classifier; ArgumentError for a file that Triton has no backend for, a name that it does not take,
    and a `max_batch` for a model whose batch is set; what opening a model raises.
    """
    path, output = Path(model), Path(output)
    if path.suffix not in (".onnx", ".xml"):
        remedy = _REMEDIES.get(path.suffix, "name an .onnx or .xml file")
        raise ArgumentError(f"{path}: only .onnx and .xml files go into a model repository; {remedy}")
    engine = open_engine(path, batch=2)  # one that leaves its batch free is seen to take two
    name = _checked(name or plain_name(path.stem))
    classes = engine.run(np.zeros(engine.input.shape, engine.input.dtype)).shape[1]
    images, answers = _ends(path, engine, classes)
    batch = _batch(path, engine, max_batch)
    labels = [" ".join((each.name or each.synset).split()) for each in names_of(engine.info, classes, names)]
    if not batch and engine.sizes != (1,):
        labels = []  # without max_batch_size Triton ranks the answers to all images as one

    if output.exists() and not output.is_dir():
        raise PipelineError(f"{output}: is no folder; name the model repository, or one to be made, with --output")
    output.mkdir(parents=True, exist_ok=True)
    folder = output / name
    _refuse_others(folder)
    with scratch_folder(output, "export") as scratch:
        made = scratch / name
        (made / "1").mkdir(parents=True)
        _write_model(path, made / "1")
        if any(labels):
            (made / "labels.txt").write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
        config = _config(name, path.suffix, images, answers, batch, any(labels), engine)
        (made / "config.pbtxt").write_text(config, encoding="utf-8")
        service = _service(name, storage_uri or f"pvc://models/{output.absolute().name}")
        (made / "inferenceservice.yaml").write_text(service, encoding="utf-8")
        write_json(made / RECORD, {"model": path.name, "files": dict(_digests(made))})
        if folder.exists():
            os.rename(folder, scratch / "before")
        os.rename(made, folder)
    return Exported(folder, name, batch)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ArgumentError(f"--name {name!r}, expected letters, digits and . _ - with a letter or digit first")
    return name


def _batch(path: Path, engine: Engine, max_batch: int | None) -> int:
    """Triton's max_batch_size."""
    if path.suffix == ".onnx" and engine.sizes is ANY_SIZE:
        batch = FREE_BATCH if max_batch is None else max_batch
        if not 1 <= batch <= LARGEST_BATCH:
            raise ArgumentError(f"--max-batch {batch}, expected a whole number from 1 to {LARGEST_BATCH:,}")
        return batch
    if max_batch is not None:
        raise ArgumentError(
            f"--max-batch is for an .onnx file with a free batch axis; leave it out for {path}, whose requests bring "
            "its own batch"
        )
    return 0


def _ends(path: Path, engine: Engine, classes: int) -> tuple[Tensor, Tensor]:
    """Input and output, with the names that the runtimes give them."""
    images = Tensor(engine.input.name, engine.input.dtype, engine.input.shape[1:])
    if path.suffix == ".onnx":
        output = classifier.read(path).output
        return images, Tensor(output.name, output.dtype, (classes,))
    import openvino as ov  # it has just opened the model

    port = ov.Core().read_model(path).output(0)
    try:
        name = port.get_any_name()
    except RuntimeError:
        raise PipelineError(f"{path}: its output has no name, which requests need; make it with convert.sh") from None
    return images, Tensor(name, np.dtype(port.element_type.to_dtype()).name, (classes,))


def _write_model(path: Path, folder: Path) -> None:
    if path.suffix == ".onnx":
        write_one_file(path, folder / "model.onnx")
        return
    for file in model_files(path):
        shutil.copyfile(file, folder / f"model{file.suffix}")


def _refuse_others(folder: Path) -> None:
    """Raises PipelineError where something stands in `folder` that no export wrote, or that was changed since."""
    if not os.path.lexists(folder):
        return
    ways_out = "move it away, or export with another --name or --output"
    if folder.is_symlink() or not (folder / RECORD).is_file():
        raise PipelineError(f"{folder}: no {RECORD} in it says that this command made it; {ways_out}")
    record = read_json(folder / RECORD)
    files = record.get("files") if isinstance(record, dict) else None
    if not isinstance(files, dict):
        raise PipelineError(f"{folder / RECORD}: is not what this command writes; {ways_out}")
    for file, digest in _digests(folder):
        if files.get(file) != digest:
            how = "was changed since it was exported" if file in files else "was not written by this command"
            raise PipelineError(f"{folder / file}: {how}, and would be lost; {ways_out}")


def _digests(folder: Path) -> Iterator[tuple[str, str]]:
    """What lies in `folder` but the record: paths and SHA-256; of what is no plain file, something else."""
    for path in sorted(folder.rglob("*")):
        file = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            yield file, "not a plain file"
        elif path.is_file() and file != RECORD:
            yield file, sha256(path)
        elif path.is_dir() and not any(path.iterdir()):
            yield file, "an empty folder"


def _config(name: str, suffix: str, images: Tensor, answers: Tensor, batch: int, labelled: bool, engine: Engine) -> str:
    own = [] if batch else [engine.input.shape[0] if len(engine.sizes) == 1 else -1]
    keys = ("recipe", "mean", "std") if images.dtype == "float32" else ("recipe",)  # of uint8 the model does the rest
    prepared = [f"{key} {engine.info[key]}" for key in keys if key in engine.info]
    lines = [
        f"# {', '.join(['Images: RGB', *prepared])}."
        if prepared
        else "# The model does not say how to prepare images.",
        f"# Answers: {'probabilities' if engine.probabilities else 'logits'}.",
        f"name: {_quoted(name)}",
        f"backend: {_quoted('onnxruntime' if suffix == '.onnx' else 'openvino')}",
        f"default_model_filename: {_quoted(f'model{suffix}')}",
        f"max_batch_size: {batch}",
        *(["dynamic_batching { }"] if batch else []),
        *_tensor("input", images, own),
        *_tensor("output", answers, own, *(['label_filename: "labels.txt"'] if labelled else [])),
    ]
    return "\n".join(lines) + "\n"


def _tensor(kind: str, tensor: Tensor, own: Sequence[int], *rest: str) -> list[str]:
    dims = ", ".join(map(str, [*own, *tensor.shape]))
    inside = [f"name: {_quoted(tensor.name)}", f"data_type: {_TYPES[tensor.dtype]}", f"dims: [ {dims} ]", *rest]
    return [f"{kind} [", "  {", *(f"    {line}" for line in inside), "  }", "]"]


def _service(name: str, storage_uri: str) -> str:
    """KServe's names are DNS labels, and it gives Triton the whole repository."""
    label = re.sub(r"[^a-z0-9-]", "-", name.lower()).strip("-")
    label = label if label[:1].isalpha() else f"model-{label}"
    return f"""\
# kubectl apply -f inferenceservice.yaml, where storageUri holds the whole repository: the folder above this one.
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {_quoted(label[:63].rstrip("-"))}
spec:
  predictor:
    model:
      modelFormat:
        name: triton
      protocolVersion: v2
      storageUri: {_quoted(storage_uri)}
"""


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def main() -> int:
    """Runs the command line."""
    options = make_parser().parse_args()
    done = export(options.model, options.output, options.name, options.names, options.max_batch, options.storage_uri)
    how = f"batches of up to {done.batch}" if done.batch else "requests bring the model's own batch"
    aloud(f"{done.folder}: {done.name} for Triton, OpenVINO Model Server and KServe, {how}")
    write_result(options, done._asdict())
    return 0


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(
        prog="python -m ResNeSt.serve export",
        description="A model -> a folder of a model repository.",
        example="python -m ResNeSt.serve export --model work/resnest_demo/resnest_demo.onnx --output work/repository",
    )
    take(parser, "model", required=True, note=".onnx or .xml")
    take(parser, "output", required=True, note="the model repository", old=["--target"])
    take(parser, "name", note="the file's")
    take(parser, "names", note="the model's, or ImageNet's for 1,000")
    parser.add_argument(
        "--max-batch",
        type=batch_size,
        metavar="N",
        help=f"largest batch of an .onnx file with a free batch axis [{FREE_BATCH}]",
    )
    parser.add_argument(
        "--storage-uri",
        metavar="URI",
        help="where KServe finds a copy of the repository [pvc://models/ and its folder's name]",
    )
    return parser
