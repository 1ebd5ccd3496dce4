"""int8 on cpu: quantized by calibration, judged on tensors it has not seen."""

from __future__ import annotations

import collections
import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.convert import amct, calibration, conversion, nncf
from ResNeSt.convert.conversion import Conversion
from ResNeSt.convert.gate import Gate
from ResNeSt.convert.layer_cost import layer_costs
from ResNeSt.export.to_onnx import export
from ResNeSt.images.preprocess import preprocess
from ResNeSt.labels.file import read_labels
from ResNeSt.models import onnx_file, sidecar
from ResNeSt.models.cards import IMAGENET_MEAN, IMAGENET_STD, Architecture, card
from ResNeSt.models.model_info import format_of
from ResNeSt.models.onnx_file import Network
from ResNeSt.tensors.folder import TensorFile, find_tensors
from tests.conftest import PROJECT, Completed, assert_refused, call

FORMAT = format_of(card("resnest_demo"), "float32")
INT8 = ("--precision=int8", "--calibration=prep")


@pytest.fixture(scope="module")
def work(demo_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo, exported, preprocessed and compiled in int8 for batches 1 and 8."""
    folder = tmp_path_factory.mktemp("int8")
    shutil.copy(demo_onnx, folder / "m.onnx")
    assert call("resnest_preprocess.py", PROJECT / "demo/val", folder / "prep", "--arch=resnest_demo").returncode == 0
    result = convert(folder, "1,8", *INT8)
    assert result.returncode == 0, result.stderr
    (folder / "printed").write_text(result.stdout)
    return folder


def convert(folder: Path, batches: str, *flags: str) -> Completed:
    return call("convert.sh", batches, "cpu", "--onnx=m.onnx", *flags, cwd=folder)


def accuracy(folder: Path, *flags: str) -> list[dict[str, Any]]:
    labels = f"--labels={PROJECT / 'demo/val_label.txt'}"
    result = call("bench.sh", "1,8", "cpu", "--prefix=m", "--tensors=prep", labels, "--loop=3", *flags, cwd=folder)
    assert result.returncode == 0, result.stderr
    rows: list[dict[str, Any]] = json.loads((folder / "bench/bench.json").read_text())["rows"]
    return rows


def test_the_int8_model_keeps_the_accuracy_within_half_a_point(work: Path) -> None:
    expected = json.loads((PROJECT / "demo/expected.json").read_text())["top1"]
    for row in accuracy(work):
        assert abs(row["top1"] - 100 * expected) <= 0.5


def test_the_quantized_onnx_runs_in_onnx_runtime_at_any_batch_and_agrees_with_fp32(work: Path) -> None:
    paths = sorted((work / "prep").glob("*.bin"))[:40]
    images = np.stack([np.fromfile(path, np.float32).reshape(3, 96, 96) for path in paths])
    found, expected = (
        onnxruntime.InferenceSession(work / name).run(None, {"actual_input_1": images})[0]
        for name in ("m_int8.onnx", "m.onnx")
    )
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.95
    assert not np.array_equal(found, expected)


def test_weights_are_int8_per_channel_and_the_attention_stays_in_floating_point(work: Path) -> None:
    model = onnx.load(work / "m_int8.onnx")
    constants = {value.name: onnx.numpy_helper.to_array(value) for value in model.graph.initializer}
    quantized = {
        node.output[0]: constants[node.input[0]]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants
    }
    scales = {node.input[0]: constants[node.input[1]] for node in model.graph.node if node.input[0] in constants}
    kinds: collections.Counter[tuple[str, bool]] = collections.Counter()
    for node in model.graph.node:
        if node.op_type == "Conv":
            kinds["attention" if "/weigh/" in node.name else "other", node.input[1] in quantized] += 1
    assert set(kinds) == {("attention", False), ("other", True)}
    assert {value.dtype for value in quantized.values()} == {np.dtype(np.int8)}
    assert any(scale.size > 1 for scale in scales.values())


def test_the_file_says_how_it_was_made(work: Path) -> None:
    found = {entry.key: entry.value for entry in onnx.load(work / "m_int8.onnx").metadata_props}
    assert found["resnest.quantized"].startswith("m_sim.onnx sha256:")
    assert re.fullmatch("128 tensors of prep sha256:[0-9a-f]{64}", found["resnest.calibration"])
    assert found["resnest.model"] == "resnest_demo"


def test_each_compile_says_how_near_it_is_to_fp32_on_tensors_not_calibrated_with(work: Path) -> None:
    lines = [line for line in (work / "printed").read_text().splitlines() if "held-out" in line]
    assert [line.split(":")[0] for line in lines] == ["m_bs1.xml", "m_bs8.xml"]
    assert all("64 held-out tensors" in line and "cosine 0.99" in line for line in lines)


def test_each_layer_has_its_cost_and_that_of_what_was_kept_in_float_is_what_int8_would_cost(work: Path) -> None:
    """The first layer's, the classifier's and an attention's are worked out here."""
    told = json.loads((work / "m_bs8.xml.json").read_text())["layer_costs"]
    costs = {layer["name"]: layer for layer in told["layers"]}
    assert told == json.loads((work / "m_bs1.xml.json").read_text())["layer_costs"]
    fp32, int8 = onnx.load(work / "m_sim.onnx"), onnx.load(work / "m_int8.onnx")
    layers = {node.name: node for node in fp32.graph.node if node.op_type in ("Conv", "Gemm")}
    assert list(costs) == list(layers)
    assert {name for name, layer in costs.items() if not layer["quantized"]} == {
        name for name in layers if "/weigh/" in name
    }
    first = costs["/conv1/conv1.0/Conv"]  # before it is nothing
    assert first["alone"] == pytest.approx(first["together"], rel=1e-4)

    kept = next(name for name in layers if "/weigh/fc1" in name)
    values = {name: layers[name].input[0] for name in ("/fc/Gemm", kept)}
    fp32.graph.output.extend(onnx.helper.make_empty_tensor_value_info(value) for value in values.values())
    session = onnxruntime.InferenceSession(fp32.SerializeToString())
    files = calibration.choose(work / "prep", onnx_file.read(work / "m_sim.onnx")).held_out[: told["images"]]
    images = [np.fromfile(file.path, np.float32).reshape(1, 3, 96, 96) for file in files]
    inputs = {
        name: [session.run([value], {"actual_input_1": image})[0] for image in images] for name, value in values.items()
    }

    def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
        return {value.name: onnx.numpy_helper.to_array(value) for value in model.graph.initializer}

    def off(exact: list[np.ndarray], rounded: list[np.ndarray]) -> float:
        return float(
            np.linalg.norm(np.concatenate(rounded) - np.concatenate(exact)) / np.linalg.norm(np.concatenate(exact))
        )

    has, made = constants(int8), {output: node for node in int8.graph.node for output in node.output}
    gemm = next(node for node in int8.graph.node if node.op_type == "Gemm")
    scale, zero = (has[name] for name in made[gemm.input[0]].input[1:])
    weights, steps = (has[name] for name in made[gemm.input[1]].input[:2])
    rounded = [(np.clip(np.rint(x / scale) + zero, *limits(zero)) - zero) * scale for x in inputs["/fc/Gemm"]]
    exact = [x @ constants(fp32)["fc.weight"].T + constants(fp32)["fc.bias"] for x in inputs["/fc/Gemm"]]
    found = [x @ (weights * steps.reshape(-1, 1)).T + has[gemm.input[2]] for x in rounded]
    assert costs["/fc/Gemm"]["alone"] == pytest.approx(off(exact, found), rel=1e-3)

    pixels = [x.reshape(1, -1) for x in inputs[kept]]
    weights, bias = (constants(fp32)[name] for name in layers[kept].input[1:])
    weights = weights.reshape(len(weights), -1)
    steps = np.abs(weights).max(axis=1, keepdims=True) / 127
    found = [by_range(x) @ (np.rint(weights / steps) * steps).T + bias for x in pixels]
    assert costs[kept]["alone"] == pytest.approx(off([x @ weights.T + bias for x in pixels], found), rel=1e-3)


def limits(zero: np.ndarray) -> tuple[int, int]:
    kind = np.iinfo(zero.dtype)
    return kind.min, kind.max


def by_range(values: np.ndarray) -> np.ndarray:
    """To eight bits over the range of the values, and back."""
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    scale = (high - low) / 255
    zero = np.clip(np.rint(-low / scale), 0, 255)
    return np.asarray((np.clip(np.rint(values / scale) + zero, 0, 255) - zero) * scale)


def test_what_a_layer_costs_grows_with_its_rounding_and_is_not_recorded_of_other_precisions(
    work: Path, tmp_path: Path
) -> None:
    network, tensors = chosen(work)
    images = np.stack([np.fromfile(file.path, np.float32).reshape(3, 96, 96) for file in tensors.held_out])
    damaged = changed(work / "m_int8.onnx", tmp_path / "int8.onnx", ["scale_layer3.0.narrow.0.weight"], 3)
    before, after = (layer_costs(network, path, images) for path in (work / "m_int8.onnx", damaged))
    worse = [one.name for one, other in zip(before, after) if other.alone > one.alone * 1.01]
    (layer,) = [
        node.name for node in onnx.load(work / "m_sim.onnx").graph.node if "layer3.0.narrow.0.weight" in node.input
    ]
    assert worse == [layer]
    assert "layer_costs" not in Gate(network, tensors.held_out, 0).check(work / "m_bs1.xml", network.path, "m.xml")


def test_calibration_and_gate_share_no_tensor(work: Path) -> None:
    chosen = calibration.choose(work / "prep", onnx_file.read(work / "m_sim.onnx"))
    assert (len(chosen.calibration), len(chosen.held_out)) == (128, 64)
    assert not set(chosen.calibration) & set(chosen.held_out)


def test_a_model_too_far_from_fp32_is_refused_and_the_worst_layers_are_named(work: Path, tmp_path: Path) -> None:
    """All scales of one layer are three times too large."""
    network, tensors = chosen(work)
    damaged = changed(work / "m_int8.onnx", tmp_path / "int8.onnx", ["layer3"], 3)
    with pytest.raises(PipelineError, match=r"m\.xml: not written: agrees with fp32 on .*; furthest off: /layer3"):
        Gate(network, tensors.held_out, 1).check(damaged, damaged, "m.xml")


def test_logits_far_from_fp32_are_refused_though_every_top1_is_the_same(work: Path, tmp_path: Path) -> None:
    """A classifier that is three times as sure: the distance of the logits is twice what they vary by."""
    network, tensors = chosen(work)
    sure = changed(work / "m_sim.onnx", tmp_path / "sure.onnx", ["fc."], 3)
    said: list[str] = []
    with pytest.raises(PipelineError, match=r"agrees with fp32 on 1\.000 .* off by 2\.\d\d of the spread"):
        Gate(network, tensors.held_out, 0.95, said.append).check(sure, network.path, "m.xml")
    judged = Gate(network, tensors.held_out, 0, said.append).check(sure, network.path, "m.xml")
    assert judged["agreement"] == 1


def chosen(work: Path) -> tuple[Network, calibration.CalibrationTensors]:
    """The network, and the first 24 of its tensors, two to calibrate and one held out in turn."""
    network, files = onnx_file.read(work / "m_sim.onnx"), find_tensors(work / "prep")[:24]
    held_out = files[2::3]
    return network, calibration.CalibrationTensors([file for file in files if file not in held_out], held_out)


def changed(source: Path, target: Path, parts: list[str], by: float) -> Path:
    """A copy of an ONNX file in which the floating-point constants named like `parts` are so many times larger."""
    model = onnx.load(source)
    found = 0
    for value in model.graph.initializer:
        if value.data_type == onnx.TensorProto.FLOAT and any(part in value.name for part in parts):
            value.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(value) * by, value.name))
            found += 1
    assert found
    onnx.save(model, target)
    return target


MEAN, STD = (np.array(values, np.float32)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))


def write(folder: Path, tensors: list[np.ndarray]) -> Path:
    """A folder of tensors of 96 pixels, as another program may leave it."""
    folder.mkdir()
    for number, tensor in enumerate(tensors):
        np.broadcast_to(tensor, (3, 96, 96)).astype(np.float32).tofile(folder / f"t_{number:03}.bin")
    return folder


def worthless(kind: str, files: list[TensorFile]) -> list[np.ndarray]:
    """Twenty tensors that judge nothing."""
    random = np.random.default_rng(0)
    pictures = [np.fromfile(file.path, np.float32).reshape(3, 96, 96) for file in files[:20]]
    one = pictures[0]
    makers: dict[str, Any] = {
        "identical": lambda picture: one,
        "nearly identical": lambda picture: one + 0.01 * random.standard_normal(one.shape),
        "white": lambda picture: (1 - MEAN) / STD,
        "black": lambda picture: -MEAN / STD,
        "one colour each": lambda picture: (random.random((3, 1, 1)) - MEAN) / STD,
        "noise of 8 bits": lambda picture: (random.integers(0, 256, one.shape) / 255 - MEAN) / STD,
        "next to no contrast": lambda picture: picture * 0.01,
        "noise": lambda picture: random.standard_normal(one.shape),
        "not normalised": lambda picture: picture * STD + MEAN,
        "of 0 to 255": lambda picture: (picture * STD + MEAN) * 255,
        "of -1 to 1": lambda picture: (picture * STD + MEAN) * 2 - 1,
        "not a number": lambda picture: np.where(picture == picture.max(), np.nan, picture),
    }
    return [makers[kind](picture) for picture in pictures]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("identical", "19 of 20 tensors repeat another one, or show one colour or noise alone"),
        ("nearly identical", "19 of 20 tensors repeat"),
        ("white", "20 of 20 tensors repeat"),
        ("black", "20 of 20 tensors repeat"),
        ("one colour each", "20 of 20 tensors repeat"),
        ("noise of 8 bits", "20 of 20 tensors repeat"),
        ("next to no contrast", "20 of 20 tensors repeat"),
        ("noise", r"t_000\.bin: holds values from -4\.\d+ to .*, which no picture has"),
        (
            "not normalised",
            r"t_000\.bin: is normalised with mean \[0\.0, 0\.0, 0\.0\] and std \[1\.0, .* wants mean",
        ),
        ("of 0 to 255", r"t_000\.bin: holds values from \d+ to \d+, which no picture has"),
        ("of -1 to 1", r"t_000\.bin: is normalised with mean \[0\.5, 0\.5, 0\.5\]"),
        ("not a number", r"t_000\.bin: holds values from nan to nan"),
    ],
)
def test_tensors_that_judge_nothing_are_refused_before_anything_is_calibrated(
    kind: str, words: str, work: Path, tmp_path: Path
) -> None:
    folder = write(tmp_path / "bad", worthless(kind, find_tensors(work / "prep")))
    with pytest.raises(PipelineError, match=words):
        calibration.choose(folder, onnx_file.read(work / "m_sim.onnx"))


def test_tensors_that_repeat_are_left_out_and_counted(work: Path, tmp_path: Path) -> None:
    """So none that calibrates is held out under another name."""
    files = find_tensors(work / "prep")[:20]
    pictures = [np.fromfile(file.path, np.float32).reshape(3, 96, 96) for file in files]
    said: list[str] = []
    folder = write(tmp_path / "twice", [*pictures, *pictures])
    tensors = calibration.choose(folder, onnx_file.read(work / "m_sim.onnx"), said.append)
    assert [Path(file.path).name for file in tensors.held_out] == [f"t_{number:03}.bin" for number in range(2, 20, 3)]
    assert len(tensors.calibration) == 14
    assert said == [
        f"note: {folder}: 20 of 40 tensors repeat another one, or show one colour or noise alone; they are left out"
    ]


def of_classes(work: Path, folder: Path, classes: set[int]) -> Path:
    labels = read_labels(PROJECT / "demo/val_label.txt")
    folder.mkdir()
    for file in find_tensors(work / "prep"):
        if labels[Path(file.path).stem] in classes:
            shutil.copy(file.path, folder)
    return folder


def test_tensors_to_which_fp32_gives_one_answer_are_refused_but_for_a_bar_of_0(work: Path, tmp_path: Path) -> None:
    network, said = onnx_file.read(work / "m_sim.onnx"), list[str]()
    tensors = calibration.choose(of_classes(work, tmp_path / "threes", {3}), network)
    with pytest.raises(PipelineError, match="threes: fp32 gives 13 of 13 held-out tensors one answer, class 3, which"):
        Gate(network, tensors.held_out, 0.01).check_tensors()
    Gate(network, tensors.held_out, 0, said.append).check_tensors()
    assert said == ["note: fp32 gives 13 of 13 held-out tensors one answer, class 3, which judges nothing"]


def test_few_pictures_and_two_classes_judge_without_a_remark(work: Path, tmp_path: Path) -> None:
    network, said = onnx_file.read(work / "m_sim.onnx"), list[str]()
    pictures = [np.fromfile(file.path, np.float32).reshape(3, 96, 96) for file in find_tensors(work / "prep")[:32]]
    few = write(tmp_path / "few", pictures)
    for folder, count in ((few, 32), (of_classes(work, tmp_path / "two", {3, 7}), 80), (work / "prep", 192)):
        tensors = calibration.choose(folder, network, said.append)
        assert len(tensors.calibration) + len(tensors.held_out) == count
        Gate(network, tensors.held_out, 0.95, said.append).check_tensors()
    assert said == []


def test_photographs_are_told_apart(shared: Path, work: Path, tmp_path: Path) -> None:
    """Far from digits on paper: of 200 photographs none counts as another's repetition, or as noise."""
    preprocess(shared / "images", tmp_path / "prep", dataclasses.replace(FORMAT, recipe="squash-bilinear"))
    said: list[str] = []
    tensors = calibration.choose(tmp_path / "prep", onnx_file.read(work / "m_sim.onnx"), said.append)
    assert len(tensors.calibration) + len(tensors.held_out) == 192
    assert said == [
        f"note: {tmp_path / 'prep'}: tensors are squash-bilinear, the model's recipe is ecentercrop-bicubic"
    ]


def test_what_is_up_to_date_is_neither_quantized_nor_compiled_again(work: Path) -> None:
    before = (work / "m_int8.onnx").stat().st_mtime_ns
    assert convert(work, "1,8", *INT8).stdout.splitlines() == ["m_bs1.xml: up to date", "m_bs8.xml: up to date"]
    assert (work / "m_int8.onnx").stat().st_mtime_ns == before


def test_uint8_tensors_give_the_answers_of_float32_tensors_in_int8(work: Path, tmp_path: Path) -> None:
    for name in ("m.onnx", "m_sim.onnx", "m_int8.onnx"):
        shutil.copy(work / name, tmp_path / name)
    (tmp_path / "prep").symlink_to(work / "prep")
    result = convert(tmp_path, "8", *INT8, "--dtype=uint8")
    assert result.returncode == 0, result.stderr
    assert "top-1 as fp32 for 100.0 %" in result.stdout


def compiled(work: Path, folder: Path, **changes: Any) -> list[str]:
    """What is said of compiling the demo for batch 8 into `folder`."""
    said: list[str] = []
    asked: dict[str, Any] = {"onnx": work / "m_sim.onnx", "batches": [8], "chip": "cpu", "calibration": work / "prep"}
    conversion.convert(Conversion(**{**asked, "output": folder, **changes}), said.append)
    return said


def test_bf16_passes_the_same_gate_when_it_is_given_tensors(work: Path, tmp_path: Path) -> None:
    assert "held-out tensors" in compiled(work, tmp_path, precision="bf16")[-2]


def test_a_model_that_was_never_judged_or_passed_a_lower_bar_is_judged_before_it_counts_as_up_to_date(
    work: Path, tmp_path: Path
) -> None:
    assert "held-out" not in "".join(compiled(work, tmp_path, calibration=None))
    assert "64 held-out tensors" in "".join(compiled(work, tmp_path))
    (model,) = tmp_path.glob("*_bs8.xml")
    assert compiled(work, tmp_path) == [f"{model.name}: up to date"]
    sidecar.write(model, {**sidecar.read(model), "agreement": 0.94})
    assert compiled(work, tmp_path, min_agreement=0.9) == [f"{model.name}: up to date"]
    assert "64 held-out tensors" in "".join(compiled(work, tmp_path))


def test_a_model_that_just_reaches_the_bar_passes_now_and_later(work: Path, tmp_path: Path) -> None:
    """fp32 agrees with itself on every tensor: 1 is reached, and not passed."""
    assert "top-1 as fp32 for 100.0 %" in "".join(compiled(work, tmp_path, min_agreement=1))
    assert "up to date" in compiled(work, tmp_path, min_agreement=1)[-1]


@pytest.mark.parametrize("share", [-0.1, 1.01, 95, float("nan"), float("inf"), float("-inf")])
def test_a_bar_that_is_no_share_is_refused(share: float) -> None:
    with pytest.raises(ArgumentError, match=r"expected a share from 0 to 1, like 0\.95"):
        conversion.resolved(Conversion(Path("m.onnx"), [1], "cpu", min_agreement=share))


def test_a_bar_of_0_takes_what_any_other_refuses_and_is_not_a_bar_left_out(work: Path, tmp_path: Path) -> None:
    network, tensors = chosen(work)
    poor = {"agreement": 0.1, "distance": 7.0}
    assert [Gate(network, tensors.held_out, minimum).passes(poor) for minimum in (0, 0.01)] == [True, False]
    assert not Gate(network, tensors.held_out, 0).passes({})  # it was never judged


@pytest.mark.parametrize("bar", [0, 0.9])
def test_a_bar_without_anything_to_judge_by_is_refused(bar: float, work: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="--min-agreement takes --calibration"):
        compiled(work, tmp_path, calibration=None, min_agreement=bar)


def test_other_tensors_under_the_same_name_quantize_anew(work: Path, tmp_path: Path) -> None:
    for name in ("m.onnx", "m_sim.onnx", "m_int8.onnx"):
        shutil.copy(work / name, tmp_path / name)
    shutil.copytree(work / "prep", tmp_path / "prep")
    chosen = calibration.choose(tmp_path / "prep", onnx_file.read(work / "m_sim.onnx"))
    shutil.copy(chosen.held_out[0].path, chosen.calibration[0].path)
    assert "m_int8.onnx: quantized from m_sim.onnx" in convert(tmp_path, "8", *INT8).stdout


@pytest.mark.parametrize(("radix", "cardinality"), [(1, 1), (4, 1)])
def test_the_attention_of_radix_1_and_4_stays_in_floating_point(radix: int, cardinality: int, tmp_path: Path) -> None:
    architecture = Architecture((1, 1, 1, 1), radix, cardinality, 32, 8, False, (8, 8, 8, 8))
    export(dataclasses.replace(card("resnest_demo"), architecture=architecture), None, tmp_path / "m.onnx", 32)
    network = onnx_file.read(tmp_path / "m.onnx")
    (tmp_path / "noise").mkdir()
    for number in range(2):
        values = np.random.default_rng(number).standard_normal((3, 32, 32))
        values.astype(np.float32).tofile(tmp_path / f"noise/{number}.bin")
    files = find_tensors(tmp_path / "noise")
    nncf.quantize(network, tmp_path / "int8.onnx", calibration.CalibrationTensors(files, []))
    graph = onnx.load(tmp_path / "int8.onnx").graph
    dequantized = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    convolutions = {node.name: node.input[1] in dequantized for node in graph.node if node.op_type == "Conv"}
    attention = {name for name in convolutions if name.split("/")[-2] in ("fc1", "fc2")}
    assert len(attention) == 8  # two in each of the four blocks
    assert {name for name, is_int8 in convolutions.items() if not is_int8} == attention
    assert set(re.findall('skip_layers : "(.*)"', amct.configuration(network.path, 2))) == attention


def test_int8_without_tensors_is_refused(work: Path) -> None:
    assert_refused(convert(work, "1", "--precision=int8"), "--calibration DIR", code=2)


def test_tensors_of_another_size_or_too_few_are_refused(work: Path, images: Path, tmp_path: Path) -> None:
    call("resnest_preprocess.py", images, tmp_path / "large", "--arch=resnest50")
    found = onnx_file.read(work / "m_sim.onnx")
    with pytest.raises(PipelineError, match=r"tensors of shape \[3, 224, 224\], the model takes float32 \[3, 96, 96\]"):
        calibration.choose(tmp_path / "large", found)
    (tmp_path / "few").mkdir()
    with pytest.raises(PipelineError, match="0 tensors, calibration takes 12"):
        calibration.choose(tmp_path / "few", found)


def test_layers_names_the_ten_worst_of_the_int8_graph_which_does_not_part_from_fp32(work: Path) -> None:
    result = call("-m", "ResNeSt.compare", "--layers", "m_sim.onnx", "m_int8.onnx", "--tensors=prep", cwd=work)
    assert result.returncode == 0, result.stderr
    assert sum(line.startswith("/") for line in result.stdout.splitlines()) == 10
    assert "the graphs do not part" in result.stdout
