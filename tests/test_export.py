"""Stage 2: checkpoint -> ONNX -> simplified ONNX, right at every batch size."""

from __future__ import annotations

import collections
import copy
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from ResNeSt.common.files import sha256
from ResNeSt.models.cards import card
from ResNeSt.models.checkpoint import load
from ResNeSt.models.resnest import create_model
from tests.conftest import assert_refused, call
from tests.test_models import relative

SCRIPT = "resnest_pth2onnx.py"
SIMPLIFY = {
    "as the original sample spells it": "--input-shape=1,3,{size},{size}",
    "as it is spelled today": "--overwrite-input-shape=1,3,{size},{size}",
}


def run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    logits: np.ndarray = session.run(None, {"actual_input_1": images})[0]
    return logits


def with_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """The graph with its batch dimension set, as a compiler does it."""
    fixed = copy.deepcopy(model)
    del fixed.graph.value_info[:]
    for port in (fixed.graph.input[0], fixed.graph.output[0]):
        port.type.tensor_type.shape.dim[0].dim_value = batch
    return fixed


def operators(model: onnx.ModelProto) -> collections.Counter[str]:
    return collections.Counter(node.op_type for node in model.graph.node)


def random_images(batch: int, size: int) -> np.ndarray:
    return np.random.default_rng(batch).standard_normal((batch, 3, size, size)).astype(np.float32)


def test_input_and_output_have_the_sample_s_names_and_a_free_batch(demo_onnx: Path) -> None:
    model = onnx.load(demo_onnx)
    (source,), (sink,) = model.graph.input, model.graph.output
    dimensions = source.type.tensor_type.shape.dim
    assert (source.name, sink.name) == ("actual_input_1", "output1")
    assert dimensions[0].dim_param
    assert [dimension.dim_value for dimension in dimensions[1:]] == [
        3,
        card("resnest_demo").size,
        card("resnest_demo").size,
    ]
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 11)]


def test_the_exported_graph_gives_pytorch_s_logits(demo_onnx: Path, demo_checkpoint: Path) -> None:
    model = create_model("resnest_demo").eval()
    load(model, demo_checkpoint)
    images = random_images(5, card("resnest_demo").size)
    with torch.inference_mode():
        expected = model(torch.from_numpy(images))
    assert relative(torch.from_numpy(run(onnx.load(demo_onnx), images)), expected) <= 1e-5


def test_the_file_says_what_it_was_made_of(demo_onnx: Path, demo_checkpoint: Path) -> None:
    found = {entry.key: entry.value for entry in onnx.load(demo_onnx).metadata_props}
    assert found["resnest.model"] == "resnest_demo"
    assert found["resnest.recipe"] == "ecentercrop-bicubic"
    assert json.loads(found["resnest.mean"]) == [0.485, 0.456, 0.406]
    assert found["resnest.weights"] == f"{demo_checkpoint.name} sha256:{sha256(demo_checkpoint)}"


@pytest.mark.parametrize("spelling", SIMPLIFY)
def test_the_sample_s_onnxsim_step_leaves_a_graph_that_is_right_at_every_batch_size(
    spelling: str, demo_onnx: Path, tmp_path: Path
) -> None:
    size = card("resnest_demo").size
    flag = SIMPLIFY[spelling].format(size=size)
    result = call("-m", "onnxsim", flag, demo_onnx, tmp_path / "sim.onnx")
    assert result.returncode == 0, result.stderr
    simplified, original = onnx.load(tmp_path / "sim.onnx"), onnx.load(demo_onnx)
    for batch in (1, 3, 4, 8):
        images = random_images(batch, size)
        expected = run(original, images)
        found = run(with_batch(simplified, batch), images)
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max(), batch
    assert not {"Shape", "Gather", "Reshape", "Softmax", "Transpose"} & set(operators(simplified))


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["resnest50_fast_1s1x64d", "resnest50_fast_4s2x40d"])
def test_a_model_of_another_radix_or_cardinality_survives_the_original_commands(name: str, tmp_path: Path) -> None:
    """At few pixels; resnest50 and resnest101 go all the way at their own size in test_main_way.py."""
    flags = ["--untrained", "--model", name, "--size=64", "--target=m.onnx"]
    assert call(SCRIPT, *flags, cwd=tmp_path).returncode == 0
    step = call("-m", "onnxsim", "--input-shape=1,3,64,64", "m.onnx", "m_sim.onnx", cwd=tmp_path)
    assert step.returncode == 0, step.stderr
    original, simplified = (onnx.load(tmp_path / file) for file in ("m.onnx", "m_sim.onnx"))
    images = random_images(4, 64)
    expected = run(original, images)
    found = run(with_batch(simplified, 4), images)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    assert not {"Shape", "Gather"} & set(operators(simplified))


def test_an_untrained_export_is_the_same_every_time_and_says_so(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        result = call(SCRIPT, "--untrained", "--model", "resnest_demo", f"--target={tmp_path / name}")
        assert "UNTRAINED" in result.stdout
    first, second = (onnx.load(tmp_path / name) for name in ("a.onnx", "b.onnx"))
    assert first == second
    assert "untrained, seed 0" in [entry.value for entry in first.metadata_props]


def test_the_reference_form_is_the_textbook_graph_and_gives_the_same_logits(
    demo_checkpoint: Path, demo_onnx: Path, tmp_path: Path
) -> None:
    target = tmp_path / "reference.onnx"
    assert call(SCRIPT, f"--source={demo_checkpoint}", f"--target={target}", "--form=reference").returncode == 0
    reference, images = onnx.load(target), random_images(3, card("resnest_demo").size)
    assert operators(reference)["Softmax"] == 4
    assert operators(onnx.load(demo_onnx))["Softmax"] == 0
    expected = run(reference, images)
    assert np.abs(run(onnx.load(demo_onnx), images) - expected).max() <= 1e-5 * np.abs(expected).max()


def test_size_and_opset_are_options(tmp_path: Path) -> None:
    target = tmp_path / "m.onnx"
    call(SCRIPT, "--untrained", "--model", "resnest_demo", "--size", "64", "--opset", "13", f"--target={target}")
    model = onnx.load(target)
    assert model.graph.input[0].type.tensor_type.shape.dim[3].dim_value == 64
    assert model.opset_import[0].version == 13


def test_an_opset_that_no_compiler_takes_is_refused(tmp_path: Path) -> None:
    result = call(SCRIPT, "--untrained", "--opset", "20", f"--target={tmp_path / 'm.onnx'}")
    assert_refused(result, "--opset 20", "9 to 18", code=2)


def test_weights_that_are_not_finite_are_not_exported(demo_checkpoint: Path, tmp_path: Path) -> None:
    state = torch.load(demo_checkpoint, weights_only=True)
    state["fc.weight"][0, 0] = float("nan")
    torch.save(state, tmp_path / "resnest_demo-nan.pth")
    target = tmp_path / "m.onnx"
    result = call(SCRIPT, f"--source={tmp_path / 'resnest_demo-nan.pth'}", f"--target={target}")
    assert_refused(result, "resnest_demo-nan.pth", "fc.weight with NaN or infinity")
    assert [path.name for path in tmp_path.iterdir()] == ["resnest_demo-nan.pth"]


def test_a_file_named_after_one_model_is_not_exported_as_another_of_the_same_shapes(tmp_path: Path) -> None:
    torch.save(create_model("resnest50").state_dict(), tmp_path / "resnest50-1.pth")
    source = f"--source={tmp_path / 'resnest50-1.pth'}"
    result = call(SCRIPT, source, "--target=m.onnx", "--model", "resnest50_fast_2s1x64d", cwd=tmp_path)
    assert_refused(result, "the file name says resnest50, --arch says resnest50_fast_2s1x64d", code=2)


def test_a_checkpoint_of_another_model_is_refused_with_what_differs(demo_checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "mine.pth"
    other.write_bytes(demo_checkpoint.read_bytes())
    result = call(SCRIPT, f"--source={other}", "--target=m.onnx", "--model=resnest50", cwd=tmp_path)
    assert_refused(result, "mine.pth", "entries missing")


def test_either_a_source_or_untrained_is_needed(tmp_path: Path) -> None:
    assert_refused(call(SCRIPT, "--target=m.onnx", cwd=tmp_path), "either --source or --untrained", code=2)


@pytest.mark.parametrize("spelling", SIMPLIFY.values())
def test_convert_takes_the_graph_that_the_sample_s_onnxsim_step_left(
    spelling: str, demo_onnx: Path, tmp_path: Path
) -> None:
    (tmp_path / "m.onnx").write_bytes(demo_onnx.read_bytes())
    flag = spelling.format(size=card("resnest_demo").size)
    assert call("-m", "onnxsim", flag, "m.onnx", "m_sim.onnx", cwd=tmp_path).returncode == 0
    before = (tmp_path / "m_sim.onnx").stat().st_mtime_ns
    result = call("convert.sh", "1,4", "cpu", "--onnx=m.onnx", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "m_sim.onnx").stat().st_mtime_ns == before
    for batch in (1, 4):
        flags = ["--output=out", f"--output_dirname=bs{batch}", "--pure_data_type=random"]
        assert call("-m", "ResNeSt.infer", f"--model=m_bs{batch}.xml", *flags, cwd=tmp_path).returncode == 0
        found = np.fromfile(tmp_path / f"out/bs{batch}/pure_infer_data_0.bin", np.float32)
        size = card("resnest_demo").size
        images = np.random.default_rng(0).random((batch, 3, size, size)).astype(np.float32)
        assert np.allclose(found.reshape(batch, -1), run(onnx.load(demo_onnx), images), atol=1e-4)


def test_what_was_exported_comes_as_json_for_machines(demo_checkpoint: Path, tmp_path: Path) -> None:
    flags = [f"--source={demo_checkpoint}", f"--target={tmp_path}/m.onnx", f"--json={tmp_path}/told.json"]
    assert call("resnest_pth2onnx.py", *flags).returncode == 0
    told = json.loads((tmp_path / "told.json").read_text())
    assert (told["model"], told["size"], told["opset"], told["form"]) == ("resnest_demo", 96, 11, "deploy")
    assert 0 <= told["difference"] <= 1e-4
