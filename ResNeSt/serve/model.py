"""The model behind the service: what it takes, tensors and pictures as rows for it, its logits as outputs."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

import numpy as np
from PIL import Image

from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.engines.engine import Engine, TensorSpec, fill
from ResNeSt.engines.image_batches import ModelChoice, image_format, open_for_images
from ResNeSt.engines.opening import SUFFIXES
from ResNeSt.engines.tensor_batches import Adapter, Normalisation, adapter
from ResNeSt.images.decode import BrokenImageError, open_image, tensor_maker
from ResNeSt.labels.class_names import ClassName, names_of
from ResNeSt.models.model_info import OUTPUT
from ResNeSt.score.ranking import are_probabilities, softmax, top_k_predictions
from ResNeSt.serve.batching import Batcher, Sizes
from ResNeSt.serve.errors import ModelError, RequestError
from ResNeSt.serve.protocol import BYTES, VERSION, Request, Tensor, Wanted
from ResNeSt.serve.settings import plain_name
from ResNeSt.tensors.format import LAYOUTS

MOST_PIXELS = 1 << 26  # of a picture: 8,192 by 8,192, 200 MB decoded
PROBABILITIES = "probabilities"
DATATYPE = {"float32": "FP32", "uint8": "UINT8"}
CLOSE = 0.05  # of the largest logit: files of one model at several batch sizes differ by less


@dataclasses.dataclass(frozen=True)
class Takes:
    """A tensor that the model takes: datatype, sides behind the batch axis, and how rows of it become the model's."""

    datatype: str
    sides: tuple[int, ...]
    adapt: Adapter

    def __str__(self) -> str:
        return f"{self.datatype} [N, {', '.join(map(str, self.sides))}]"


class ServedModel:
    """A model by the name that clients give; `batcher` runs it. All methods may be called from any thread."""

    def __init__(self, name: str, choices: Sequence[ModelChoice], most: int, names: PathLike | None = None) -> None:
        self._choices = choices
        self._engines: list[Engine] = []
        self.batcher = Batcher(self._open, most)
        try:
            self._describe(name, names)
        except BaseException:
            self.batcher.close(0)
            raise

    def _open(self) -> Sizes:
        self._engines = [open_for_images(choice) for choice in self._choices]
        _refuse_others(self._choices, self._engines)
        self._classes = len(_answer_of(self._engines[0]))
        return Sizes(self._engines)

    def _describe(self, name: str, names: PathLike | None) -> None:
        first, choice = self._engines[0], self._choices[0]
        suffix = Path(choice.file).suffix
        self.name = name or plain_name(first.info.get("model") or Path(choice.file).stem) or "model"
        self.title = first.title
        self.input: TensorSpec = first.input
        self.platform = f"{choice.engine or SUFFIXES[suffix]}_{suffix[1:]}"
        self.names: list[ClassName] = names_of(first.info, self._classes, names)
        self._probabilities = first.probabilities
        self._make: Callable[[PathLike, np.ndarray], object] | None = None
        self.no_pictures = ""
        normalisation = None
        try:
            tensor_format = image_format(first, choice)
            normalisation = Normalisation(tensor_format.mean, tensor_format.std)
            self._make = tensor_maker(tensor_format)
        except ArgumentError:
            raise
        except PipelineError as error:  # a network of another program takes tensors all the same
            self.no_pictures = str(error)
        self.takes = _takes(first.input, normalisation)
        if self._make is not None:
            self.decode(_small_picture(), "the first picture", self.empty(1)[0])  # which loads what decodes them

    def metadata(self) -> dict[str, Any]:
        """What the protocol's model metadata has."""
        own = self.takes[0]
        shape = [-1, self._classes]
        outputs = [{"name": name, "datatype": "FP32", "shape": shape} for name in self.outputs]
        return {
            "name": self.name,
            "versions": [VERSION],
            "platform": self.platform,
            "inputs": [{"name": self.input.name, "datatype": own.datatype, "shape": [-1, *own.sides]}],
            "outputs": outputs,
        }

    @property
    def outputs(self) -> tuple[str, str]:
        """The names of what it puts out."""
        return OUTPUT, PROBABILITIES

    def count(self, tensor: Tensor) -> int:
        """The images in `tensor`; raises RequestError where the model does not take it, or not so many."""
        if tensor.name != self.input.name:
            raise RequestError(f"no input {tensor.name!r:.99}, expected {self.input.name!r}")
        images = tensor.shape[0]
        if tensor.datatype == BYTES:
            if tensor.shape not in ((images,), (images, 1)):
                raise RequestError(f"shape {list(tensor.shape)} of BYTES, expected [N]: a picture each")
        else:
            self._taken_as(tensor)
        if images > self.batcher.most:
            raise RequestError(
                f"{images:,} images in a request, expected at most {self.batcher.most:,} (--queue); send several"
            )
        return images

    def _taken_as(self, tensor: Tensor) -> Takes:
        for takes in self.takes:
            if (tensor.datatype, tensor.shape[1:]) == (takes.datatype, takes.sides):
                return takes
        pictures = [] if self._make is None else ["BYTES [N], pictures"]
        expected = "; ".join([*map(str, self.takes), *pictures])
        raise RequestError(f"{tensor.datatype} {list(tensor.shape)}, expected {expected}")

    def rows(self, tensor: Tensor) -> np.ndarray:
        """A tensor that `count` has passed, as the engine takes it; raises RequestError where a value is not finite."""
        values = np.asarray(tensor.data)
        if tensor.datatype == "FP32" and not np.isfinite(values).all():
            image = int(np.argmin(np.isfinite(values).reshape(len(values), -1).all(axis=1)))
            raise RequestError(f"image {image + 1} of {len(values)} has NaN or infinity in it")
        return self._taken_as(tensor).adapt(values)

    def empty(self, images: int) -> np.ndarray:
        """Rows for so many images, to be filled."""
        return np.empty((images, *self.input.shape[1:]), self.input.dtype)

    def decode(self, content: bytes, place: str, row: np.ndarray) -> None:
        """A picture into its row, by what evaluate and predict do with its file; `place` is what errors call it.

        Raises RequestError where it cannot be decoded, and before that where it has more than MOST_PIXELS.
        """
        if self._make is None:
            raise RequestError(f"pictures cannot be taken: {self.no_pictures}")
        # Without a name on any disk, and gone with the process; whoever decodes files takes it for one.
        with open(os.memfd_create("picture"), "wb", buffering=0) as file:
            file.write(content)
            path = f"/proc/self/fd/{file.fileno()}"
            try:
                width, height = _sides(path)
                if width * height > MOST_PIXELS:
                    raise RequestError(
                        f"{place}: {width:,} x {height:,} pixels, expected at most {MOST_PIXELS:,}; send it smaller"
                    )
                self._make(path, row)
            except BrokenImageError as error:
                raise RequestError(str(error).replace(path, place)) from None

    def outputs_of(self, request: Request, logits: np.ndarray) -> list[Tensor]:
        """What is asked for of float32 logits (N, classes); raises ModelError where they are not finite."""
        if not np.isfinite(logits).all():
            raise ModelError("the model gives NaN or infinity for it; check the model")
        wanted = request.outputs or [Wanted(name) for name in self.outputs]
        return [self._output(one, logits) for one in wanted]

    def check_outputs(self, wanted: Sequence[Wanted]) -> None:
        """Raises RequestError for an output that there is not, or that is asked for twice."""
        names = [one.name for one in wanted]
        for place, name in enumerate(names):
            if name not in self.outputs:
                raise RequestError(f"no output {name!r:.99}, expected {' or '.join(map(repr, self.outputs))}")
            if name in names[:place]:
                raise RequestError(f"output {name!r} is asked for twice")

    def _output(self, wanted: Wanted, logits: np.ndarray) -> Tensor:
        values = logits if wanted.name == OUTPUT else self._as_probabilities(logits)
        if wanted.top is None:
            return Tensor(wanted.name, "FP32", values.shape, values)
        best = top_k_predictions(logits, wanted.top)
        told = [self._told(row[place], place) for row, places in zip(values, best) for place in places.tolist()]
        return Tensor(wanted.name, BYTES, best.shape, told)

    def _told(self, value: float, place: int) -> bytes:
        """`VALUE:CLASS:NAME`, as Triton's extension has it; a class without a name ends with its number."""
        name, synset = self.names[place]
        label = name or synset
        return (f"{value:f}:{place}" + (f":{label}" if label else "")).encode()

    def _as_probabilities(self, logits: np.ndarray) -> np.ndarray:
        """float32, as predict has them."""
        rows = [row if self._probabilities or are_probabilities(row[None]) else softmax(row) for row in logits]
        probabilities: np.ndarray = np.stack(rows).astype(np.float32)
        return probabilities


def _takes(spec: TensorSpec, normalisation: Normalisation | None) -> list[Takes]:
    """The model's own tensors first, then those of other dtypes that can be made its own."""
    side = spec.shape[2]
    shapes = [(spec.shape[1:], spec.dtype)]
    shapes += [(layout.shape(side), layout.element) for layout in LAYOUTS.values() if side % layout.step == 0]
    found: dict[tuple[tuple[int, ...], str], Takes] = {}
    for sides, element in shapes:
        adapt = adapter(sides, element, spec, normalisation)
        if adapt is not None:
            found.setdefault((sides, element), Takes(DATATYPE[element], sides, adapt))
    return list(found.values())


def _answer_of(engine: Engine) -> np.ndarray:
    """Logits of one image that every file of a model can be asked."""
    sides = engine.input.shape[1:]
    image = np.random.default_rng(0).integers(0, 256, (1, *sides), np.uint8)
    row = image.astype(np.float32) / 64 - 2 if engine.input.dtype == "float32" else image
    logits: np.ndarray = engine.run(fill(row, engine.input.shape[0]))[0]
    return logits


def _refuse_others(choices: Sequence[ModelChoice], engines: Sequence[Engine]) -> None:
    """Raises ArgumentError unless the files are one model at several batch sizes: which one answers must not matter."""
    first, taken = choices[0].file, set[int]()
    answer = _answer_of(engines[0])
    for choice, engine in zip(choices, engines):
        sizes = set(engine.sizes)
        if taken & sizes:
            raise ArgumentError(
                f"{choice.file}: is for a batch of {min(taken & sizes)}, as another --model; name a file per batch size"
            )
        taken |= sizes
        same = (engine.input.shape[1:], engine.input.dtype) == (engines[0].input.shape[1:], engines[0].input.dtype)
        if same:
            other = _answer_of(engine)
            same = other.shape == answer.shape and bool(np.abs(other - answer).max() <= CLOSE * np.abs(answer).max())
        if not same or engine.info != engines[0].info:
            raise ArgumentError(
                f"{choice.file}: is another model than {first}; name the files of one, a batch size each"
            )


def _small_picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG")
    return file.getvalue()


def _sides(path: str) -> tuple[int, int]:
    """Width and height of a picture; 0 where it is none, which whoever decodes it says better."""
    with contextlib.suppress(Exception), open_image(path) as image:  # Pillow's plugins raise nearly anything
        width, height = image.size
        return width, height
    return 0, 0
