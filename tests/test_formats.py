"""MindSpore's and Paddle's checkpoints give the logits that those frameworks give; damaged and hostile ones nothing."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ResNeSt.common.errors import PipelineError
from ResNeSt.formats import checkpoints
from ResNeSt.models.cards import card
from tests.conftest import PROJECT, assert_refused, call
from tests.frameworks.random_weights import CLASSES

if TYPE_CHECKING:
    import torch
else:
    torch = pytest.importorskip("torch")
pytest.importorskip("onnx")  # brings protobuf

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from ResNeSt.engines.engine import run_images
from ResNeSt.engines.opening import open_engine
from ResNeSt.models.checkpoint import load, read, read_state
from ResNeSt.models.pooling import set_pooling
from ResNeSt.models.resnest import ResNeSt, create_model
from ResNeSt.training.build import build

TOLERANCE = 1e-4  # of the largest logit


# The frameworks themselves, where there is a Python that has them: they want NumPy 1 and cannot live beside the rest.


def python_with(package: str, variable: str) -> str:
    python = os.environ.get(variable, sys.executable)
    if variable not in os.environ and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed here; {variable} may name a Python that has it")
    return python


def written_by(python: str, script: str, folder: Path, *arguments: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and logits of the network whose checkpoint `script` has written as folder/peer.*."""
    command = [python, str(PROJECT / "tests" / "frameworks" / script), str(folder), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    found = np.load(folder / "peer.npz")
    return found["images"], found["logits"]


def network(**shape: Any) -> ResNeSt:
    """One block a stage, else as resnest50."""
    arch = dataclasses.replace(card("resnest50").architecture, layers=(1, 1, 1, 1), **shape)
    return ResNeSt(arch, CLASSES)


def difference(model: ResNeSt, images: np.ndarray, expected: np.ndarray) -> float:
    with torch.inference_mode():
        found = model.eval()(torch.from_numpy(images)).numpy()
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.heavy
def test_a_checkpoint_of_mindcv_gives_mindspore_s_logits(tmp_path: Path) -> None:
    python = python_with("mindcv", "MINDSPORE_PYTHON")
    images, expected = written_by(python, "mindcv_resnest.py", tmp_path)
    model = network()
    load(model, tmp_path / "peer.ckpt")
    assert difference(model, images, expected) < TOLERANCE


@pytest.mark.heavy
@pytest.mark.parametrize("radix", [1, 2])
def test_a_checkpoint_of_paddleclas_gives_paddle_s_logits(radix: int, tmp_path: Path) -> None:
    python = python_with("paddleclas", "PADDLE_PYTHON")
    images, expected = written_by(python, "paddleclas_resnest.py", tmp_path, str(radix))
    model = network(radix=radix, avd_first=radix == 1)
    load(model, tmp_path / "peer.pdparams")
    assert difference(model, images, expected) < TOLERANCE


# Files as they are documented, made by other writers than the ones read: the protobuf package, the pickle module.

CHECKPOINT_PROTO = """
name: "checkpoint.proto"
message_type { name: "TensorProto"
  field { name: "dims" number: 1 label: LABEL_REPEATED type: TYPE_INT64 }
  field { name: "tensor_type" number: 2 label: LABEL_REQUIRED type: TYPE_STRING }
  field { name: "tensor_content" number: 3 label: LABEL_REQUIRED type: TYPE_BYTES } }
message_type { name: "Value"
  field { name: "tag" number: 1 label: LABEL_REQUIRED type: TYPE_STRING }
  field { name: "tensor" number: 2 label: LABEL_REQUIRED type: TYPE_MESSAGE type_name: "TensorProto" } }
message_type { name: "Checkpoint"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: "Value" } }
"""


def write_ckpt(entries: Iterable[tuple[str, np.ndarray]], path: Path, kind: str | None = None) -> None:
    """Through the protobuf package, from the schema above; `kind` is what to call the arrays' type [NumPy's name]."""
    from google.protobuf import text_format

    pool = descriptor_pool.DescriptorPool()
    pool.Add(text_format.Parse(CHECKPOINT_PROTO, descriptor_pb2.FileDescriptorProto()))
    checkpoint = message_factory.GetMessageClass(pool.FindMessageTypeByName("Checkpoint"))()
    for tag, array in entries:
        value = checkpoint.value.add(tag=tag)
        value.tensor.dims.extend(array.shape)
        value.tensor.tensor_type = kind or array.dtype.name.capitalize()
        value.tensor.tensor_content = array.tobytes()
    path.write_bytes(checkpoint.SerializeToString())


def mindcv_names(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    norms = {name.rpartition(".")[0] for name in state if name.endswith("running_mean")}
    named = {}
    for name, array in state.items():
        path, _, leaf = name.rpartition(".")
        of_norm = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
        named[f"{path}.{of_norm[leaf] if path in norms else leaf}"] = array
    return named


def zoo_entries(state: dict[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
    """The zoo keeps the groups of the 3x3 convolution apart, and its attention has no biases."""
    entries = []
    for name, array in mindcv_names(state).items():
        if name.endswith("conv2.conv.weight"):
            halves = np.split(array, 2)
            entries += [(name.replace(".weight", f".convs.{i}.weight"), half) for i, half in enumerate(halves)]
        elif name.endswith((".fc1.weight", ".fc2.weight")):
            entries.append((name.replace(".weight", ".convs.0.weight"), array))
        elif not name.endswith((".fc1.bias", ".fc2.bias")):
            entries.append((name, array))
    return entries


LAYERS = [
    (r"^conv1\.0$", "stem.conv1._conv"),
    (r"^conv1\.1$", "stem.conv1._batch_norm"),
    (r"^conv1\.3$", "stem.conv2._conv"),
    (r"^conv1\.4$", "stem.conv2._batch_norm"),
    (r"^conv1\.6$", "stem.conv3._conv"),
    (r"^bn1$", "stem.conv3._batch_norm"),
    (r"^fc$", "out"),
    (r"^(layer\d)\.(\d+)", r"\1.\1_bottleneck_\2"),
    (r"\.conv2\.conv$", ".conv2.conv1._conv"),
    (r"\.conv2\.bn0$", ".conv2.conv1._batch_norm"),
    (r"\.conv2\.fc1$", ".conv2.conv2._conv"),
    (r"\.conv2\.bn1$", ".conv2.conv2._batch_norm"),
    (r"\.conv2\.fc2$", ".conv2.conv3"),
    (r"(_\d+)\.conv(1|3)$", r"\1.conv\2._conv"),
    (r"(_\d+)\.bn(1|3)$", r"\1.conv\2._batch_norm"),
    (r"\.downsample\.1$", ".conv4"),
    (r"\.downsample\.2$", "._batch_norm"),
]
# PaddleClas's names of parameters, made from those of layers (ParamAttr in its source).
PARAMETERS = [
    (r"^stem\.", ""),
    (r"^(layer\d)\.", ""),
    (r"^out\.weight$", "fc_weights"),
    (r"^out\.bias$", "fc_offset"),
    (r"\.conv2\.conv3\.weight$", "_splat_weights"),
    (r"\.conv4\.weight$", "_weights"),
    (r"\.conv2\.conv(\d)\.", r"_splat_\1_weights."),
    (r"(_\d+)\._batch_norm", r"\1.shortcut._batch_norm"),
    (r"\._conv\.weight$", "_weight"),
    (r"\._batch_norm\.weight$", "_scale"),
    (r"\._batch_norm\.bias$", "_offset"),
    (r"\._batch_norm\._", "_"),
    (r"\.", "_"),
]


def under(prefix: str, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{prefix}{name}": array for name, array in state.items()}


def without(state: dict[str, np.ndarray], *endings: str) -> dict[str, np.ndarray]:
    return {name: array for name, array in state.items() if not name.endswith(endings)}


def paddle_names(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """In PaddleClas fc1 has no bias."""
    named = {}
    for name, array in without(state, "fc1.bias").items():
        path, _, leaf = name.rpartition(".")
        for pattern, replacement in LAYERS:
            path = re.sub(pattern, replacement, path)
        leaf = {"running_mean": "_mean", "running_var": "_variance"}.get(leaf, leaf)
        named[f"{path}.{leaf}"] = array.T if name == "fc.weight" else array
    return named


def paddle_parameter_names(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """In static graphs fc2 has none, either."""
    named = {}
    for name, array in paddle_names(without(state, "fc2.bias")).items():
        for pattern, replacement in PARAMETERS:
            name = re.sub(pattern, replacement, name)
        named[name] = array
    return named


@pytest.fixture(scope="module")
def state() -> dict[str, np.ndarray]:
    """The demo network's entries, all different."""
    random = np.random.default_rng(0)
    made = create_model("resnest_demo").state_dict()
    return {
        name: random.standard_normal(tuple(value.shape)).astype(np.float32)
        for name, value in made.items()
        if not name.endswith("num_batches_tracked")
    }


@pytest.fixture(scope="module")
def trained(demo_checkpoint: Path) -> dict[str, np.ndarray]:
    """The demo network as it was trained."""
    found = read_state(demo_checkpoint)
    return {name: value.numpy() for name, value in found.items() if not name.endswith("num_batches_tracked")}


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, np.ndarray]) -> None:
    """With nothing missing of the demo network, and zeros where `expected` has no entry."""
    made = create_model("resnest_demo").state_dict()
    assert found.keys() == made.keys()
    for name, value in found.items():
        assert np.array_equal(value.numpy(), expected.get(name, np.zeros(tuple(value.shape)))), name


def test_mindcv_s_names_become_the_official_ones(state: dict[str, np.ndarray], tmp_path: Path) -> None:
    write_ckpt(mindcv_names(state).items(), tmp_path / "c.ckpt")
    assert_same(read_state(tmp_path / "c.ckpt"), state)


def test_what_the_trainer_adds_to_a_ckpt_is_left_out(state: dict[str, np.ndarray], tmp_path: Path) -> None:
    own = list(mindcv_names(state).items())
    trainer = [("learning_rate", np.ones((1,), np.float32)), ("step_num", np.zeros((0,), np.int32))]
    moments = [(f"moments.{name}", array) for name, array in own]
    write_ckpt([*own, *trainer, *moments], tmp_path / "c.ckpt")
    assert_same(read_state(tmp_path / "c.ckpt"), state)


@pytest.mark.parametrize(
    "word", ["moments", "stat", "accum", "adam_m", "adam_v", "moment1", "moment2", "ema", "exp_avg_sq"]
)
def test_what_a_trainer_s_optimizer_keeps_is_left_out(word: str, state: dict[str, np.ndarray], tmp_path: Path) -> None:
    own = list(mindcv_names(under("network.", state)).items())
    kept = [(f"{word}.{name}", array) for name, array in own if not name.endswith(("moving_mean", "moving_variance"))]
    write_ckpt([*own, *kept, ("learning_rate", np.ones(90, np.float32))], tmp_path / "c.ckpt")
    assert_same(read_state(tmp_path / "c.ckpt"), state)


@pytest.mark.parametrize("tag", ["student.fc.weight", "head.weight", "linear.weight", "rate"])
def test_an_entry_of_a_ckpt_that_nothing_is_known_of_is_refused_by_name(
    tag: str, state: dict[str, np.ndarray], tmp_path: Path
) -> None:
    write_ckpt([*mindcv_names(state).items(), (tag, np.ones((2, 3), np.float32))], tmp_path / "c.ckpt")
    with pytest.raises(PipelineError, match=re.escape(tag)):
        load(create_model("resnest_demo"), tmp_path / "c.ckpt")


def test_bfloat16_is_read_as_its_values(state: dict[str, np.ndarray], tmp_path: Path) -> None:
    rounded = {name: torch.from_numpy(array).bfloat16() for name, array in state.items()}
    stored = {name: value.view(torch.uint16).numpy() for name, value in rounded.items()}
    write_ckpt(mindcv_names(stored).items(), tmp_path / "c.ckpt", "BFloat16")
    assert_same(read_state(tmp_path / "c.ckpt"), {name: value.float().numpy() for name, value in rounded.items()})


def test_numbers_of_a_type_that_no_network_has_are_named_and_no_copy_is_asked_for(
    state: dict[str, np.ndarray], tmp_path: Path
) -> None:
    entries = {**mindcv_names(state), "fc.weight": np.ones((2, 3), np.int8)}
    write_ckpt(entries.items(), tmp_path / "c.ckpt")
    with pytest.raises(PipelineError, match=r"fc\.weight is of Int8, expected one of") as error:
        read_state(tmp_path / "c.ckpt")
    assert "copy it again" not in str(error.value)


@pytest.mark.parametrize("suffix", [".ckpt", ".pth", ".bin"])
def test_the_content_tells_the_framework_and_with_it_the_pooling(
    suffix: str, state: dict[str, np.ndarray], tmp_path: Path
) -> None:
    write_ckpt(mindcv_names(state).items(), tmp_path / f"m{suffix}")
    (tmp_path / f"p{suffix}").write_bytes(pickle.dumps(paddle_names(state)))
    assert [read(tmp_path / f"{name}{suffix}").pooling for name in "mp"] == ["same", "trimmed"]


def test_training_starts_from_a_ckpt_of_the_zoo_and_not_from_one_that_pools_in_another_way(
    state: dict[str, np.ndarray], tmp_path: Path
) -> None:
    write_ckpt(zoo_entries(state), tmp_path / "zoo.ckpt")
    model, origin = build(card("resnest_demo"), tmp_path / "zoo.ckpt", seed=0)
    assert origin == f"weights of {tmp_path / 'zoo.ckpt'}"
    assert np.array_equal(model.fc.weight.detach().numpy(), state["fc.weight"])
    write_ckpt(mindcv_names(state).items(), tmp_path / "mindcv.ckpt")
    with pytest.raises(PipelineError, match=r"mindcv\.ckpt: its network pools in another way \(same\)"):
        build(card("resnest_demo"), tmp_path / "mindcv.ckpt", seed=0)


def test_the_zoo_s_split_convolutions_are_joined(state: dict[str, np.ndarray], tmp_path: Path) -> None:
    write_ckpt(zoo_entries(state), tmp_path / "c.ckpt")
    assert_same(read_state(tmp_path / "c.ckpt"), without(state, "fc1.bias", "fc2.bias"))
    assert checkpoints.read(tmp_path / "c.ckpt", "mindspore").pooling == "zeros"


@pytest.mark.parametrize("protocol", [2, 4])
def test_paddle_s_names_of_layers_become_the_official_ones(
    protocol: int, state: dict[str, np.ndarray], tmp_path: Path
) -> None:
    named = {**paddle_names(state), "StructuredToParameterName@@": {"out.weight": "fc_weights"}}
    (tmp_path / "p.pdparams").write_bytes(pickle.dumps(named, protocol))
    assert_same(read_state(tmp_path / "p.pdparams"), without(state, "fc1.bias"))


def test_paddle_s_names_of_parameters_become_the_official_ones(state: dict[str, np.ndarray], tmp_path: Path) -> None:
    named = paddle_parameter_names(state)
    assert "layer1_bottleneck_0_splat_1_weights_scale" in named
    assert "layer1_bottleneck_0_shortcut_mean" in named
    (tmp_path / "p.pdparams").write_bytes(pickle.dumps(named, 2))
    assert_same(read_state(tmp_path / "p.pdparams"), without(state, "fc1.bias", "fc2.bias"))


def test_biases_that_paddle_numbered_go_to_their_blocks(state: dict[str, np.ndarray], tmp_path: Path) -> None:
    """PaddleClas gives no name to them; a network's 7th convolution, counted from 0, is the first with a bias."""
    named = paddle_parameter_names(state)
    numbered = {f"conv2d_{6 + 5 * (stage - 1)}.b_0": state[f"layer{stage}.0.conv2.fc2.bias"] for stage in (3, 2, 4, 1)}
    (tmp_path / "p.pdparams").write_bytes(pickle.dumps({**numbered, **named}, 2))
    assert_same(read_state(tmp_path / "p.pdparams"), without(state, "fc1.bias"))
    numbered.popitem()
    (tmp_path / "p.pdparams").write_bytes(pickle.dumps({**numbered, **named}, 2))
    with pytest.raises(PipelineError, match=r"3 entries not of this model \(conv2d_16\.b_0, "):
        load(create_model("resnest_demo"), tmp_path / "p.pdparams")


def test_arrays_that_paddle_wrapped_with_their_name_are_read(state: dict[str, np.ndarray], tmp_path: Path) -> None:
    wrapped = {name: (name, array) for name, array in paddle_names(state).items()}
    (tmp_path / "p.pdparams").write_bytes(pickle.dumps(wrapped, 2))
    assert_same(read_state(tmp_path / "p.pdparams"), without(state, "fc1.bias"))


# The function that goes with the weights.


def windows(size: int, pooling: str) -> list[tuple[int, int]]:
    """First and last pixel of each window along an axis, inside or outside; from the frameworks' documentation."""
    count = -(-size // 2)
    before = max((count - 1) * 2 + 3 - size, 0) // 2 if pooling == "same" else 1
    return [(2 * i - before, 2 * i - before + 2) for i in range(count)]


def averages(image: np.ndarray, pooling: str) -> np.ndarray:
    """3x3 average with stride 2 of (size, size), by the definition."""
    size = len(image)
    spans = windows(size, pooling)
    made = np.empty((len(spans), len(spans)))
    for i, (top, bottom) in enumerate(spans):
        for j, (left, right) in enumerate(spans):
            inside = image[max(top, 0) : bottom + 1, max(left, 0) : right + 1]
            made[i, j] = inside.sum() / (9 if pooling == "zeros" else inside.size)
    return made


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("pooling", ["zeros", "trimmed", "same"])
def test_each_pooling_averages_as_its_definition_says(pooling: str, size: int) -> None:
    model = create_model("resnest_demo")
    set_pooling(model, pooling)
    image = np.random.default_rng(0).standard_normal((size, size)).astype(np.float32)
    block: Any = model.layer2[0]
    found = block.avd_layer(torch.from_numpy(image)[None, None])[0, 0].numpy()
    np.testing.assert_allclose(found, averages(image, pooling), atol=1e-6)


@pytest.mark.parametrize("size", [8, 9])
def test_same_pooling_takes_the_largest_of_the_right_windows(size: int) -> None:
    model = create_model("resnest_demo")
    set_pooling(model, "same")
    image = np.random.default_rng(0).standard_normal((size, size)).astype(np.float32)
    found = model.maxpool(torch.from_numpy(image)[None, None])[0, 0].numpy()
    spans = windows(size, "same")
    expected = [[image[max(t, 0) : b + 1, max(le, 0) : r + 1].max() for le, r in spans] for t, b in spans]
    np.testing.assert_array_equal(found, np.array(expected))


# Through the stages.


def test_a_mindspore_checkpoint_goes_through_stage_2_and_both_runtimes(
    trained: dict[str, np.ndarray], tmp_path: Path
) -> None:
    write_ckpt(mindcv_names(trained).items(), tmp_path / "resnest_demo-x.ckpt")
    onnx = tmp_path / "d.onnx"
    result = call("resnest_pth2onnx.py", f"--source={tmp_path / 'resnest_demo-x.ckpt'}", f"--target={onnx}")
    assert result.returncode == 0, result.stderr
    images = np.random.default_rng(0).standard_normal((2, 3, 96, 96)).astype(np.float32)
    expected = run_images(open_engine(tmp_path / "resnest_demo-x.ckpt"), images)
    for runtime in ("onnxruntime", "openvino"):
        found = run_images(open_engine(onnx, runtime), images)
        assert np.abs(found - expected).max() < TOLERANCE * np.abs(expected).max()


def test_a_paddle_checkpoint_opens_by_its_card_s_name(trained: dict[str, np.ndarray], tmp_path: Path) -> None:
    path = tmp_path / "weights.pdparams"
    path.write_bytes(pickle.dumps(paddle_names(trained), 4))
    engine = open_engine(path, arch="resnest_demo")
    assert engine.run(np.zeros((1, 3, 96, 96), np.float32)).shape == (1, 10)


# What is no checkpoint.


class Hostile:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch hacked",)


def test_a_pdparams_that_carries_code_is_refused_by_name_and_does_not_run_it(
    state: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.pdparams").write_bytes(pickle.dumps({**paddle_names(state), "x": Hostile()}))
    with pytest.raises(PipelineError, match=r"p\.pdparams: .*posix\.system, which no array needs"):
        read_state("p.pdparams")
    assert not Path("hacked").exists()


@pytest.mark.parametrize(
    "content", [{"w": np.array([print], object)}, {"w": np.array(["text"])}, {"w": 3}, [1, 2], {"w": ("a", "b")}]
)
def test_a_pickle_of_other_things_is_refused(content: object, tmp_path: Path) -> None:
    (tmp_path / "p.pdparams").write_bytes(pickle.dumps(content))
    with pytest.raises(
        PipelineError, match=r"p\.pdparams: a pickle that holds .*, expected PaddleClas's mapping from names to arrays"
    ):
        read_state(tmp_path / "p.pdparams")


@pytest.mark.parametrize("kept", [0, 1, 1000, -1])
@pytest.mark.parametrize("suffix", [".ckpt", ".pdparams"])
def test_a_checkpoint_cut_short_is_refused(
    suffix: str, kept: int, state: dict[str, np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / f"c{suffix}"
    if suffix == ".ckpt":
        write_ckpt(mindcv_names(state).items(), path)
    else:
        path.write_bytes(pickle.dumps(paddle_names(state), 4))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(PipelineError, match=rf"c\{suffix}: (not a whole|is empty)"):
        read_state(path)


def test_another_program_s_file_is_one_line_of_error(tmp_path: Path) -> None:
    (tmp_path / "c.ckpt").write_bytes(b"PK\x03\x04 a zip file, as Lightning's .ckpt are")
    result = call("resnest_pth2onnx.py", f"--source={tmp_path / 'c.ckpt'}", f"--target={tmp_path / 'd.onnx'}")
    assert_refused(result, "c.ckpt: is a zip archive, as PyTorch writes them, cut short or damaged")
    assert not (tmp_path / "d.onnx").exists()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="no such file"):
        read_state(tmp_path / "c.ckpt")


def test_a_checkpoint_of_another_network_names_what_does_not_fit(state: dict[str, np.ndarray], tmp_path: Path) -> None:
    write_ckpt([("conv2d_0.weight", np.zeros((4, 3), np.float32))], tmp_path / "c.ckpt")
    with pytest.raises(PipelineError, match=r"none of its 1 names is a ResNeSt's.* it has conv2d_0\.weight"):
        load(create_model("resnest_demo"), tmp_path / "c.ckpt")


@pytest.mark.parametrize(
    "value", [np.zeros((8, 8, 1, 1), np.longdouble), np.zeros((), np.float32)], ids=["long", "0-d"]
)
def test_an_array_of_paddle_s_that_cannot_be_a_weight_is_one_line(
    value: np.ndarray, state: dict[str, np.ndarray], tmp_path: Path
) -> None:
    named = paddle_parameter_names(state)
    spoilt = {name: value if "splat" in name and array.ndim == 4 else array for name, array in named.items()}
    (tmp_path / "p.pdparams").write_bytes(pickle.dumps(spoilt, 2))
    with pytest.raises(PipelineError, match=r"p\.pdparams: "):
        load(create_model("resnest_demo"), tmp_path / "p.pdparams")
