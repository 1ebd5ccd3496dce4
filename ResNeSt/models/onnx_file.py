"""The network that stage 3 compiles, as its ONNX file describes it."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.formats import onnx_header
from ResNeSt.formats.onnx_weights import in_one_piece, write_one_file
from ResNeSt.models import classifier, model_info
from ResNeSt.models.cards import Card

FREE = -1  # a side that is left open, in a shape
GRAPH = "graph_sha256"  # key among the metadata_props


@dataclasses.dataclass(frozen=True)
class Network:
    """An image classifier: float32 (N, 3, height, width) -> (N, classes); `info` is its metadata, without prefix.

    `batch` is N where the file sets it. `mean` and `std` are of RGB values scaled to 0..1, None where nothing says
    them. `probabilities` is whether its answers are that, not logits. `data_files` are the names of the files beside
    `path` that hold weights.
    """

    path: Path
    input_name: str
    height: int
    width: int
    batch: int | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    probabilities: bool
    info: dict[str, str]
    data_files: tuple[str, ...] = ()

    @property
    def files(self) -> list[Path]:
        """All files that the network is."""
        return [self.path, *(self.path.parent / name for name in self.data_files)]

    @property
    def one_file(self) -> str:
        """What a compiler that wants a single file is given, in a scratch folder after `write_one_file`."""
        return self.path.name if self.data_files else str(self.path.absolute())

    def write_one_file(self, scratch: Path) -> None:
        """Makes `one_file` in the scratch folder; nothing to do where the network is a single file."""
        if self.data_files:
            write_one_file(self.path, scratch / self.one_file)

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and std; raises PipelineError where nothing says them: another network's would go unnoticed."""
        if self.mean is None or self.std is None:
            raise PipelineError(
                f"{self.path}: does not say with which mean and std its images are normalised, which the model holds "
                "for --dtype uint8 and yuv420sp; name its network, or your card, with --arch, or give the file that "
                "resnest_pth2onnx.py wrote (other tools may take its metadata away)"
            )
        return self.mean, self.std

    def shape(self, batch: int) -> list[int]:
        """Input shape at `batch`, NCHW; FREE leaves the batch axis open."""
        return [batch, 3, self.height, self.width]


def read(path: PathLike) -> Network:
    """The network in the ONNX file at `path`; raises PipelineError unless it is one (ResNeSt.models.classifier).

    The batch axis may be free or set: exporters set it to 1 unless told otherwise, and so does onnxsim's --input-shape.
    """
    header = onnx_header.read(path)
    found = classifier.of_onnx(path, header)
    batch, _, height, width = found.input.shape or ()
    info = model_info.of_onnx(header.metadata)
    mean, std = model_info.normalisation(info, path)
    return Network(
        path=Path(path),
        input_name=found.input.name,
        height=int(height),
        width=int(width),
        batch=batch if isinstance(batch, int) else None,
        mean=mean,
        std=std,
        probabilities=found.probabilities,
        info=info,
        data_files=header.data_files,
    )


def described(network: Network, card: Card) -> Network:
    """The network with what `card` says of how its images are prepared, where its file does not.

    Raises ArgumentError where the file says something else.
    """
    card_info = model_info.describe(card, network.height, weights="")
    said = {key: card_info[key] for key in ("recipe", "size", "mean", "std")}
    model_info.refuse_other(network.info, said, network.path, card.name)
    return dataclasses.replace(network, mean=card.mean, std=card.std, info={**said, **network.info})


def seal(model: Any) -> None:
    """Puts the digest of its graph into the metadata of an onnx.ModelProto, which is written as one file then."""
    for entry in [entry for entry in model.metadata_props if entry.key == GRAPH]:
        model.metadata_props.remove(entry)
    model.metadata_props.add(key=GRAPH, value=hashlib.sha256(model.graph.SerializeToString()).hexdigest())


def is_sealed(path: PathLike, key: str) -> bool:
    """Whether the ONNX file at `path` has `key` in its metadata, and the graph that it was sealed with.

    Files of releases that sealed none are taken as they are. Raises PipelineError where it is damaged.
    """
    metadata = onnx_header.read(path).metadata
    return key in metadata and metadata.get(GRAPH) in (None, onnx_header.graph_sha256(path))


def load(path: PathLike) -> Any:
    """The onnx.ModelProto in the file at `path`, its weights inside, whatever the file itself says of where they lie.

    Needs the onnx package. Raises PipelineError where the file or its weights are damaged, or larger than 2 GB.
    """
    import onnx

    return onnx.load_model_from_string(in_one_piece(path))


def holds(path: PathLike, made_of: Mapping[str, str | None]) -> bool:
    """Whether the ONNX file at `path` is there and its metadata say all of `made_of`; None is what they must not say.

    Raises PipelineError where it is damaged.
    """
    if not Path(path).is_file():
        return False
    metadata = onnx_header.read(path).metadata
    return all(metadata.get(key) == value for key, value in made_of.items())
