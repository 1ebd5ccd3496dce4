"""Models for phones and boards: what pnnx makes for ncnn answers as PyTorch does, in any program, and calls nobody."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ResNeSt.bench.benchmark import Benchmark, bench
from ResNeSt.common.cores import cores
from ResNeSt.common.errors import ArgumentError, MissingRuntimeError, PipelineError
from ResNeSt.convert import pnnx
from ResNeSt.convert.conversion import Conversion, convert, plan, resolved
from ResNeSt.convert.targets import compiled_name
from ResNeSt.engines.engine import run_images
from ResNeSt.engines.image_batches import ModelChoice
from ResNeSt.engines.opening import open_engine
from ResNeSt.evaluate import evaluate
from ResNeSt.images.preprocess import preprocess
from ResNeSt.models import sidecar
from ResNeSt.models.cards import card
from ResNeSt.models.files import model_files
from ResNeSt.models.model_info import format_of
from ResNeSt.pipeline import _plan, make_parser
from ResNeSt.predict import predict
from ResNeSt.tensors.folder import find_tensors, read_tensor
from tests.conftest import PROJECT
from tests.walls import HEAVY_PACKAGES

pytest.importorskip("onnxsim")
LIMITS = {"fp32": 1e-5, "fp16": 2e-2}  # of the largest logit
HERE = all(map(importlib.util.find_spec, ("ncnn", "pnnx")))
needs_ncnn = pytest.mark.skipif(not HERE, reason="requirements/edge.txt is not installed")


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pictures of the demo, with their labels beside the folder, and their tensors."""
    folder = tmp_path_factory.mktemp("few")
    (folder / "pictures").mkdir()
    lines = (PROJECT / "demo/val_label.txt").read_text().splitlines()[::20]
    for line in lines:
        shutil.copy(PROJECT / "demo/val" / line.split()[0], folder / "pictures")
    (folder / "val_label.txt").write_text("\n".join(lines) + "\n")
    preprocess(folder / "pictures", folder / "tensors", format_of(card("resnest_demo"), "float32"))
    return folder


@pytest.fixture(scope="module")
def models(demo_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The demo by its precision."""
    folder = tmp_path_factory.mktemp("ncnn")
    made = {}
    for precision in LIMITS:
        (made[precision],) = convert(Conversion(demo_onnx, [1], "ncnn", folder / precision, precision=precision))
    return {precision: model.path for precision, model in made.items()}


def images(few: Path) -> np.ndarray:
    return np.stack([read_tensor(path, (3, 96, 96), "float32") for path in find_tensors(few / "tensors")])


def difference(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


@needs_ncnn
@pytest.mark.parametrize("precision", LIMITS)
def test_the_answers_are_those_of_pytorch(
    precision: str, models: dict[str, Path], demo_checkpoint: Path, few: Path
) -> None:
    batch = images(few)
    before = batch.copy()
    expected = run_images(open_engine(demo_checkpoint, batch=len(batch)), batch)
    actual = run_images(open_engine(models[precision]), batch)
    assert difference(actual, expected) <= LIMITS[precision]
    np.testing.assert_array_equal(actual.argmax(1), expected.argmax(1))
    np.testing.assert_array_equal(batch, before)  # some layers work in place


@needs_ncnn
def test_fp32_is_fp32_in_every_program(models: dict[str, Path], few: Path) -> None:
    """ncnn stores and computes in fp16 of itself, here as on arm64; a phone's own program may ask for bf16, too."""
    import ncnn

    batch = images(few)[:4]
    net = ncnn.Net()
    net.opt.use_bf16_storage = net.opt.use_bf16_packed = True
    net.load_param(str(models["fp32"]))
    net.load_model(str(models["fp32"].with_suffix(".bin")))
    for image in batch:
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(image).clone())
        _, output = extractor.extract("out0")
        assert difference(np.array(output)[None], open_engine(models["fp32"]).run(image[None])) <= 1e-5


@needs_ncnn
def test_weights_are_as_wide_as_the_precision_says(models: dict[str, Path], demo_onnx: Path) -> None:
    sizes = {precision: path.with_suffix(".bin").stat().st_size for precision, path in models.items()}
    assert sizes["fp32"] > 0.9 * demo_onnx.stat().st_size
    assert 0.49 < sizes["fp16"] / sizes["fp32"] < 0.53


@needs_ncnn
def test_instances_share_the_cores_and_answer_alike(models: dict[str, Path], few: Path) -> None:
    batch = images(few)[:8]
    engine = open_engine(models["fp32"], instances=None)
    assert engine.instances == cores()
    assert open_engine(models["fp32"], instances=None, images=1).instances == 1
    assert 1 <= engine._net.opt.num_threads <= open_engine(models["fp32"])._net.opt.num_threads <= cores()  # type: ignore[attr-defined]
    found: list[np.ndarray] = []

    def run() -> None:
        found.append(run_images(engine.another(), batch))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in found:
        np.testing.assert_array_equal(each, run_images(engine, batch))


@needs_ncnn
def test_what_is_up_to_date_is_kept_and_what_is_damaged_made_anew(
    models: dict[str, Path], demo_onnx: Path, tmp_path: Path
) -> None:
    asked = Conversion(demo_onnx, [1], "ncnn", tmp_path)
    shutil.copytree(models["fp32"].parent, tmp_path, dirs_exist_ok=True)
    said: list[str] = []
    (kept,) = convert(asked, said.append)
    assert (kept.kept, said) == (True, [f"{kept.path.name}: up to date"])
    assert model_files(kept.path) == [kept.path, tmp_path / "resnest_demo_bs1.ncnn.bin"]
    weights = kept.path.with_suffix(".bin")
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PipelineError, match=r"is not as convert\.sh left it; copy both again"):
        open_engine(kept.path)
    for suffix in ("param", "bin", "param.json"):
        shutil.copy(models["fp32"].with_name(f"resnest_demo_bs1.ncnn.{suffix}"), tmp_path / f"ä ö.ncnn.{suffix}")
    assert open_engine(tmp_path / "ä ö.ncnn.param").info["model"] == "resnest_demo"  # all three under another name
    (made,) = convert(asked)
    assert (made.kept, weights.read_bytes()) == (False, whole)
    with pytest.raises(PipelineError, match="was compiled for precision fp32, not precision fp16; --force"):
        convert(Conversion(demo_onnx, [1], "ncnn", tmp_path, precision="fp16"))
    weights.unlink()
    with pytest.raises(PipelineError, match=r"ncnn\.bin: no such file; it belongs to resnest_demo_bs1\.ncnn\.param"):
        open_engine(made.path)


@needs_ncnn
def test_a_file_of_another_program_is_not_written_over(demo_onnx: Path, tmp_path: Path) -> None:
    (tmp_path / "resnest_demo_bs1.ncnn.bin").write_bytes(b"mine")
    with pytest.raises(PipelineError, match=r"no resnest_demo_bs1\.ncnn\.param\.json says that convert.sh made it"):
        convert(Conversion(demo_onnx, [1], "ncnn", tmp_path))
    assert (tmp_path / "resnest_demo_bs1.ncnn.bin").read_bytes() == b"mine"


@needs_ncnn
def test_a_network_that_ncnn_has_no_layer_for_is_refused_by_its_name(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    weights = np.random.default_rng(0).standard_normal((10, 192)).astype(np.float32)
    nodes = [
        onnx.helper.make_node("CumSum", ["x", "axis"], ["y"]),
        onnx.helper.make_node("Flatten", ["y"], ["z"]),
        onnx.helper.make_node("Gemm", ["z", "w"], ["logits"], transB=1),
    ]
    ends = [
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)]
        for name, shape in (("x", ["N", 3, 8, 8]), ("logits", ["N", 10]))
    ]
    constants = [onnx.numpy_helper.from_array(weights, "w"), onnx.numpy_helper.from_array(np.array(2), "axis")]
    graph = onnx.helper.make_graph(nodes, "graph", *ends, constants)
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "m.onnx")
    with pytest.raises(PipelineError, match=r"m_bs1.ncnn.param: not written: .*m_sim\.onnx"):
        convert(Conversion(tmp_path / "m.onnx", [1], "ncnn", tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["m_sim.onnx"]


@needs_ncnn
def test_other_answers_than_those_of_the_network_get_no_name(
    monkeypatch: pytest.MonkeyPatch, demo_onnx: Path, tmp_path: Path
) -> None:
    monkeypatch.setitem(pnnx.FURTHEST, "fp32", 1e-9)
    with pytest.raises(PipelineError, match=r"not written: ncnn's logits differ from those of .* 1e-09 is allowed"):
        convert(Conversion(demo_onnx, [1], "ncnn", tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["resnest_demo_sim.onnx"]


@needs_ncnn
def test_fp16_is_judged_by_tensors_that_are_named(demo_onnx: Path, few: Path, tmp_path: Path) -> None:
    asked = Conversion(demo_onnx, [1], "ncnn", tmp_path, precision="fp16", calibration=few / "tensors")
    (model,) = convert(asked)
    assert model.agreement == 1.0


@needs_ncnn
def test_evaluate_predict_and_bench_take_it(models: dict[str, Path], few: Path, tmp_path: Path) -> None:
    model, labels = models["fp32"], few / "val_label.txt"
    result = evaluate(ModelChoice(model), few / "pictures", labels)
    assert result.score.top1 >= 19
    first = sorted((few / "pictures").iterdir())[0]
    assert [answer.reason for answer in predict(ModelChoice(model), [first])] == [""]
    benched = bench(
        Benchmark([1], "ncnn", str(model).removesuffix("_bs1.ncnn.param"), few / "tensors", labels, 2, output=tmp_path)
    )
    (row,) = benched.rows
    assert (row.compiled_for, row.precision, row.top1) == ("ncnn", "fp32", 100 * result.score.top1 / 20)


@needs_ncnn
def test_a_board_needs_ncnn_numpy_pillow_and_tqdm_alone(models: dict[str, Path], few: Path) -> None:
    """And none of what makes the model."""
    missing = [*HEAVY_PACKAGES.split(), "pnnx", "scipy", "requests", "cv2", "portalocker"]
    code = f"""
import sys
sys.modules.update(dict.fromkeys({missing!r}))
from ResNeSt.evaluate import main
sys.argv[1:] = ["--model={models["fp32"]}", "--images={few / "pictures"}", "--labels={few / "val_label.txt"}"]
main()
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert "tot=20" in result.stdout, result.stderr


@needs_ncnn
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not here to see what a program asks for")
def test_no_step_opens_a_socket_or_starts_pip(demo_onnx: Path, few: Path, tmp_path: Path) -> None:
    """Of the steps that take ncnn and pnnx, with all the processes that they start."""
    convert_ = ["-m", "ResNeSt.convert", "1", "ncnn", f"--onnx={demo_onnx}", f"--output={tmp_path}"]
    model = tmp_path / "resnest_demo_bs1.ncnn.param"
    evaluate_ = ["-m", "ResNeSt.evaluate", f"--model={model}", f"--images={few / 'pictures'}"]
    for step in (convert_, [*evaluate_, f"--labels={few / 'val_label.txt'}"]):
        log = tmp_path / "calls"
        command = ["strace", "-f", "--seccomp-bpf", "-e", "trace=socket,connect,execve", "-o", str(log)]
        environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
        subprocess.run([*command, sys.executable, *step], env=environment, capture_output=True, check=True)
        calls = log.read_text()
        assert "execve(" in calls
        assert not re.search(r"AF_INET|connect\(|\bpip\b", calls), calls
    assert "/pnnx" not in calls  # the last one runs what is made


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"batches": [4]}, "batch 4 is not for ncnn, which runs one image at a time: name batch 1"),
        ({"batches": [1, 4, 8]}, "batch 4, 8 is not for ncnn"),
        ({"batches": [1, 4], "dynamic_batch": True}, "--dynamic-batch is not for ncnn"),
        ({"dtype": "uint8"}, "--dtype uint8 is not for ncnn; it takes float32"),
        ({"dtype": "yuv420sp"}, "--dtype yuv420sp is not for ncnn"),
        ({"precision": "int8"}, "--precision int8 is not for ncnn; it takes fp32, fp16"),
        ({"precision": "bf16"}, "--precision bf16 is not for ncnn"),
        ({"tune": "operators"}, "--tune is for Ascend chips, whose AOE it runs; leave it out for ncnn"),
    ],
)
def test_what_ncnn_does_not_take_is_refused(changes: dict[str, Any], reason: str) -> None:
    asked: dict[str, Any] = {"onnx": Path("m.onnx"), "batches": [1], "chip": "NCNN", **changes}
    with pytest.raises(ArgumentError, match=reason):
        resolved(Conversion(**asked))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"batches": [4]}, "batch 4 is not for ncnn"),
        ({"batches": "auto", "dynamic_batch": True}, "--dynamic-batch is not for ncnn"),
        ({"profile": True}, "--profile is for NPUs and cpu: ncnn"),
        ({"devices": [1]}, "--device is for NPUs"),
    ],
)
def test_what_bench_cannot_do_with_ncnn_is_refused(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=reason):
        bench(Benchmark(**{"batches": [1], "chip": "ncnn", "output": tmp_path, **changes}))


def test_run_sh_takes_one_image_at_a_time_where_no_batch_is_named(tmp_path: Path) -> None:
    asked = _plan(make_parser().parse_args(["--chip=ncnn", f"--output={tmp_path}"]))
    assert (asked.batches, asked.precision) == ([1], "fp32")
    with pytest.raises(ArgumentError, match="batch 4 is not for ncnn"):
        _plan(make_parser().parse_args(["--chip=ncnn", "--batch=1,4", f"--output={tmp_path}"]))


def test_the_plan_names_pnnx_and_its_file(demo_onnx: Path, tmp_path: Path) -> None:
    assert compiled_name("m", 1, "ncnn") == "m_bs1.ncnn.param"
    lines = plan(Conversion(demo_onnx, [1], "ncnn", tmp_path, precision="fp16"))
    assert lines[-1].startswith("# pnnx: ")
    assert lines[-1].endswith("resnest_demo_bs1.ncnn.param, batch 1, float32, fp16")


def test_without_the_packages_it_says_where_they_stand(
    monkeypatch: pytest.MonkeyPatch, demo_onnx: Path, tmp_path: Path
) -> None:
    def missing(package: str) -> str:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(MissingRuntimeError, match=r"pnnx is not installed here; requirements/edge\.txt says how"):
        convert(Conversion(demo_onnx, [1], "ncnn", tmp_path))
    assert sidecar.recorded(tmp_path / "resnest_demo_bs1.ncnn.param", ["files"]) == {}
    model = tmp_path / "m.ncnn.param"
    model.write_text("7767517\n")
    monkeypatch.setitem(sys.modules, "ncnn", None)
    monkeypatch.delitem(sys.modules, "ResNeSt.engines.ncnn", raising=False)
    with pytest.raises(MissingRuntimeError, match=r"ncnn is not installed here .* requirements/edge\.txt says how"):
        open_engine(model)


def test_the_page_names_the_release_that_makes_the_models() -> None:
    (pin,) = re.findall(r"^(ncnn==\S+)", (PROJECT / "requirements/edge.txt").read_text(), re.MULTILINE)
    assert f"pip install --no-deps numpy pillow tqdm {pin}\n" in (PROJECT / "docs/edge.md").read_text()
