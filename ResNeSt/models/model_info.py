"""What a model file says of itself: the keys that travel from the export through every later stage."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ResNeSt.common.arguments import check_side
from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.common.files import PathLike, sha256
from ResNeSt.images.recipes import RECIPES
from ResNeSt.models.cards import Card, are_moments
from ResNeSt.tensors.format import LAYOUTS, TensorFormat, dtype_of

# In ONNX metadata_props the keys carry this prefix; in OpenVINO's rt_info they are a section of this name.
SECTION = "resnest"
# What says that an ONNX file is compiled for a GPU: the chip of convert.sh.
CHIP, CUDA = "chip", "cuda"
# Names of the exported graph's ends, as the original sample has them.
INPUT, OUTPUT = "actual_input_1", "output1"


def describe(card: Card, size: int, weights: str) -> dict[str, str]:
    """Metadata of a model of `card` at `size` pixels; `weights` says where its weights come from."""
    names = {} if card.class_names is None else {"class_names": json.dumps(card.class_names)}
    return {
        "model": card.name,
        "size": str(size),
        "recipe": card.recipe,
        "mean": json.dumps(card.mean),
        "std": json.dumps(card.std),
        "classes": str(card.classes),
        "weights": weights,
        **names,
    }


def weights_of(path: PathLike, ema: bool | None) -> str:
    """Where a model's weights come from: the checkpoint's name and hash, and what was chosen in it."""
    chosen = {None: "", True: " --ema", False: " --no-ema"}[ema]
    return f"{Path(path).name} sha256:{sha256(path)}{chosen}"


def format_of(card: Card, dtype: str, recipe: str | None = None, size: int | None = None) -> TensorFormat:
    """What stage 1 makes of images for a model of `card`: its recipe and size, unless others are given.

    Raises ArgumentError for a dtype that tensors do not have, or that its size cannot have.
    """
    side = check_side(card.size if size is None else size)
    return TensorFormat(recipe or card.recipe, side, dtype, card.mean, card.std)


def recipe_note(info: Mapping[str, str], recipe: str | None) -> str:
    """What is to be told beside figures of tensors or images of `recipe`, unless that is the model's own.

    `info` is what the model says of itself; `recipe` is None where nothing says which it is.
    """
    own = info.get("recipe")
    if recipe is None or recipe == own:
        return ""
    return f"prepared by {recipe}, " + (f"the model's own recipe is {own}" if own else "the model does not say its own")


def of_onnx(properties: Mapping[str, str]) -> dict[str, str]:
    """The metadata among an ONNX file's metadata_props; empty for a file of another program."""
    prefix = SECTION + "."
    return {key[len(prefix) :]: value for key, value in properties.items() if key.startswith(prefix)}


def normalisation(info: Mapping[str, str], path: PathLike) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Mean and std, each None where the metadata `info` of the file at `path` does not say it.

    Raises PipelineError where they cannot be that.
    """
    try:
        mean, std = (_floats(info[key]) if key in info else None for key in ("mean", "std"))
        possible = are_moments((0.0,) * 3 if mean is None else mean, (1.0,) * 3 if std is None else std)
    except (ArithmeticError, RecursionError, TypeError, ValueError):
        possible = False
    if not possible:
        said = ", ".join(f"{key} {info[key]!r:.60}" for key in ("mean", "std") if key in info)
        raise PipelineError(
            f"{path}: its metadata says {said}, expected three numbers each, std above 0; export it again"
        )
    return mean, std


def _floats(text: str) -> tuple[float, ...]:
    return tuple(float(value) for value in json.loads(text))


def refuse_other(info: Mapping[str, str], said: Mapping[str, str], path: PathLike, name: str) -> None:
    """Raises ArgumentError where the metadata `info` of the file at `path` and those of the card `name` differ."""
    for key, value in said.items():
        if info.get(key, value) != value:
            raise ArgumentError(
                f"{path}: says itself that its {key} is {info[key]:.60}, {name} has {value:.60}; leave --arch out, or "
                "export it with that card"
            )


def tensor_format(info: Mapping[str, str], shape: Sequence[int], dtype: str, path: PathLike) -> TensorFormat:
    """What the images for a model must be turned into; `shape` and `dtype` are its input's, with the batch axis.

    Raises PipelineError where the metadata `info` of the file at `path` does not say it, or the input is no image.
    """
    mean, std = normalisation(info, path)
    recipe = info.get("recipe")
    if mean is None or std is None or recipe is None:
        lacking = ", ".join(key for key in ("recipe", "mean", "std") if key not in info)
        raise PipelineError(
            f"{path}: does not say how its images are prepared ({lacking} lacking); name its network with --arch"
        )
    if recipe not in RECIPES:
        raise PipelineError(
            f"{path}: says that its recipe is {recipe!r}, expected one of {', '.join(RECIPES)}; export it again"
        )
    kind = dtype_of(shape[1:], dtype)
    if kind is None:
        raise PipelineError(
            f"{path}: its input is {dtype} {list(shape)}, which holds no square images ({', '.join(LAYOUTS)}); export "
            "it again"
        )
    return TensorFormat(recipe, int(shape[2]), kind, mean, std)
