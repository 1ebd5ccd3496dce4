"""Whether a model file is an image classifier that this pipeline can serve: the one place that decides it.

A network of another program is often not one as it stands: it has a second output, ends in an ArgMax, was exported as
in training. It would run all the same and give numbers that mean something else, so it is refused, with how to make it
one. One that ends in Softmax or Sigmoid is taken: its answers are probabilities already.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ResNeSt.common.errors import PipelineError
from ResNeSt.common.files import PathLike
from ResNeSt.formats import onnx_header
from ResNeSt.formats.onnx_header import Header, Node, Tensor
from ResNeSt.tensors.format import dtype_of

FLOATS = ("float32", "float16", "float64", "bfloat16")
# Operators whose result is the probabilities of the classes.
PROBABILITIES = ("Softmax", "Sigmoid", "HardSigmoid")
# These change the form of what they are given, not its meaning.
_PASSING = {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Cast", "Convert", "Dropout"}
_PASSING |= {"QuantizeLinear", "DequantizeLinear"}
_CHOOSING = {"ArgMax", "ArgMin", "TopK", "OneHot", "NonMaxSuppression"}
_RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
# What follows such an operator are numbers of classes, or values in another order than the classes'.
_WITHOUT = "export it without the ArgMax or TopK at its end"


class Classifier(NamedTuple):
    """One input of images, one output of a value for every class: probabilities, or else logits."""

    input: Tensor
    output: Tensor
    probabilities: bool


def of_onnx(path: PathLike, header: Header) -> Classifier:
    """The classifier in the ONNX file at `path`; its input is float32 (N, 3, height, width), N free or set.

    Raises PipelineError with what it is, and how to make it a classifier, where it is none.
    """
    return of_graph(path, header.inputs, header.outputs, header.nodes, ("float32",))


def of_graph(
    path: PathLike, inputs: Sequence[Tensor], outputs: Sequence[Tensor], nodes: Sequence[Node], dtypes: Sequence[str]
) -> Classifier:
    """The same of any graph whose images are of one of `dtypes`: float32 NCHW, uint8 NHWC or NV12."""
    images, answers = _ends(path, inputs, outputs, dtypes)
    for node in nodes:
        name = node.name or (node.outputs or ("",))[0]
        if node.trains:
            raise PipelineError(
                f"{path}: {node.operator} {name} works as in training, so that answers depend on the other images of "
                "the batch or on chance; call model.eval() and export it again for inference"
            )
        if node.operator in _RANDOM:
            raise PipelineError(f"{path}: {node.operator} {name} makes its answers random; export it without")
        if node.domain not in ("", "ai.onnx"):
            raise PipelineError(
                f"{path}: {node.operator} {name} is an operator of {node.domain}, not of ONNX itself, which the "
                "compilers do not know; export it again in ONNX's own operators (as it was before a runtime optimized "
                "or quantized it)"
            )
    last = _last_operator(nodes, answers.name)
    if last in _CHOOSING:
        raise PipelineError(f"{path}: its output is what {last} makes, expected a value for every class; {_WITHOUT}")
    return Classifier(images, answers, last in PROBABILITIES)


def _ends(
    path: PathLike, inputs: Sequence[Tensor], outputs: Sequence[Tensor], dtypes: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """The input and the output, which must be the only ones."""
    if len(inputs) != 1 or (remedy := _wrong_images(inputs[0], dtypes)):
        expected = " or ".join({"float32": "float32 [N, 3, height, width]"}.get(d, f"{d} NHWC or NV12") for d in dtypes)
        remedy = remedy if len(inputs) == 1 else "export the network alone, with the images as its only input"
        raise PipelineError(f"{path}: inputs are {_told(inputs)}, expected one of {expected}; {remedy}")
    if len(outputs) != 1:
        raise PipelineError(
            f"{path}: outputs are {_told(outputs)}, expected one of [N, classes]: which of them are the classes? Keep "
            "that one, in the ONNX file, with onnx.utils.extract_model('all.onnx', 'classifier.onnx', ['NAME OF THE "
            "INPUT'], ['NAME OF THE OUTPUT'])"
        )
    if remedy := _wrong_answers(outputs[0]):
        raise PipelineError(f"{path}: its output is {_told(outputs)}, expected float [N, classes]; {remedy}")
    return inputs[0], outputs[0]


def _told(tensors: Sequence[Tensor]) -> str:
    """Names, dtypes and shapes of inputs or outputs, for a message."""
    shapes = ["of unknown shape" if tensor.shape is None else str(list(tensor.shape)) for tensor in tensors]
    return "[" + ", ".join(f"{tensor.name} {tensor.dtype} {shape}" for tensor, shape in zip(tensors, shapes)) + "]"


def _wrong_images(tensor: Tensor, dtypes: Sequence[str]) -> str:
    """What to do about an input that is not one of images; "" where it is."""
    shape = tensor.shape or ()
    if dtype_of([side if isinstance(side, int) else 0 for side in shape[1:]], tensor.dtype) and tensor.dtype in dtypes:
        return ""
    if tensor.dtype not in dtypes:
        return "export it in float32: convert.sh chooses the precision, and --dtype uint8 takes the pixels as they are"
    if len(shape) != 4:
        return "export the classifier of images itself, with resnest_pth2onnx.py or torch.onnx.export"
    sides, channels = (shape[2:], shape[1]) if tensor.dtype == "float32" else (shape[1:3], shape[3])
    if channels != 3 and shape[3 if tensor.dtype == "float32" else 1] == 3:
        return "its channels come last; export it in NCHW (a Transpose in front does it)"
    if channels != 3:
        return "pictures have three channels here; export a classifier of RGB images"
    if not all(isinstance(side, int) and side > 0 for side in sides):
        return "export it for one height and width, with axis 0 alone among the dynamic_axes"
    if sides[0] != sides[1]:
        return "pictures are made square here; export it for one height and width that are equal"
    return ""


def _wrong_answers(tensor: Tensor) -> str:
    """What to do about an output that is not one value for every class; "" where it is, or may be."""
    if tensor.dtype not in FLOATS:
        return f"class numbers alone cannot be scored or compared; {_WITHOUT}"
    if tensor.shape is not None and len(tensor.shape) != 2:
        return "export it with a Flatten (start_dim=1), and with the batch axis kept"
    if tensor.shape is not None and tensor.shape[1] == 1:
        return "one value is no choice between classes; export it with a value for every class"
    return ""


def _last_operator(nodes: Sequence[Node], output: str) -> str:
    """The operator that makes `output`, past those that only change its form; a Softmax in parts counts as one."""
    made_by = {name: node for node in nodes for name in node.outputs}
    seen: set[str] = set()
    while output in made_by and output not in seen:
        seen.add(output)
        node = made_by[output]
        sources = {made_by[name].operator for name in node.inputs if name in made_by}
        if node.operator in ("Div", "Divide") and "Exp" in sources:
            return "Softmax"
        if node.operator not in _PASSING or not node.inputs:
            return node.operator
        output = node.inputs[0]
    return ""


def read(path: PathLike) -> Classifier:
    """`of_onnx` of the file at `path`, whose weights must be there, too."""
    return of_onnx(path, onnx_header.read(path))
