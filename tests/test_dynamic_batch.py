"""One compiled model for several batch sizes: how it is asked for, compiled, recorded and run, on both chips."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.common.parallel import Stopwatch
from ResNeSt.compare.pairs import compare
from ResNeSt.convert import simplify, targets
from ResNeSt.convert.conversion import Conversion, check, convert, plan, resolved
from ResNeSt.engines.engine import ANY_SIZE, TensorSpec, fitting, run_images
from ResNeSt.engines.image_batches import ModelChoice, image_format, logits_of, open_for_images
from ResNeSt.engines.opening import open_engine
from ResNeSt.evaluate import evaluate
from ResNeSt.images.preprocess import preprocess
from ResNeSt.infer.inference import Inference, infer
from ResNeSt.models import sidecar
from ResNeSt.models.cards import card
from ResNeSt.models.model_info import format_of
from ResNeSt.predict import predict
from ResNeSt.tensors.folder import read_tensor, tensor_files
from tests.conftest import PROJECT, STANDINS, assert_refused, call

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
pytest.importorskip("onnxsim")

SIZES = (1, 4, 8)
DEMO = card("resnest_demo")
PICTURES = 19  # 8, 8 and 3, of which the smallest size that holds them is 4


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of the demo, with their labels beside the folder."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "images").mkdir()
    lines = (PROJECT / "demo/val_label.txt").read_text().splitlines()[::20][:PICTURES]
    for line in lines:
        shutil.copy(PROJECT / "demo/val" / line.split()[0], folder / "images")
    (folder / "labels.txt").write_text("\n".join(lines) + "\n")
    return folder / "images"


@pytest.fixture(scope="module")
def prep(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tensors") / "prep"
    preprocess(images, folder, format_of(DEMO, "float32"))
    return folder


@pytest.fixture(scope="module")
def tensors(prep: Path) -> np.ndarray:
    """float32 (PICTURES, 3, 96, 96)."""
    return np.stack([read_tensor(file, (3, 96, 96), "float32") for file in tensor_files(prep)])


@pytest.fixture(scope="module")
def logits(demo_onnx: Path, tensors: np.ndarray) -> np.ndarray:
    """What ONNX Runtime answers to each picture alone."""
    session = onnxruntime.InferenceSession(demo_onnx, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"actual_input_1": tensor[None]})[0] for tensor in tensors])


@pytest.fixture(scope="module")
def simplified(demo_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("simplified") / "m_sim.onnx"
    simplify.simplify(demo_onnx, path)
    return path


@pytest.fixture(scope="module")
def on_cpu(simplified: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo for the cpu: m_dyn.xml for SIZES."""
    folder = tmp_path_factory.mktemp("cpu")
    shutil.copy(simplified, folder)
    convert(asked(folder, chip="cpu"))
    return folder


@pytest.fixture(scope="module")
def compiled(simplified: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo for an Ascend chip, by the stand-in of ATC: m_dyn.om for SIZES, and m_bs8.om."""
    folder = tmp_path_factory.mktemp("ascend")
    shutil.copy(simplified, folder)
    with pytest.MonkeyPatch.context() as patch:
        on_ascend(patch)
        convert(asked(folder))
        convert(asked(folder, [8], dynamic_batch=False))
    return folder


@pytest.fixture
def ascend(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine with CANN, the client and a chip, as far as the stand-ins are that."""
    on_ascend(monkeypatch)
    monkeypatch.syspath_prepend(str(STANDINS))
    forget_the_client()
    yield
    forget_the_client()


def forget_the_client() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "ais_bench" or name == "ResNeSt.engines.ascend"]:
        del sys.modules[name]


def on_ascend(patch: pytest.MonkeyPatch) -> None:
    patch.setenv("PATH", f"{STANDINS / 'bin'}{os.pathsep}{os.environ['PATH']}")
    patch.setenv("PYTHONPATH", str(STANDINS))
    patch.setenv("STANDIN_PYTHON", sys.executable)


def asked(folder: Path, batches: Any = SIZES, chip: str = "310P3", dynamic_batch: bool = True, **of: Any) -> Conversion:
    return Conversion(folder / "m_sim.onnx", batches, chip, folder, dynamic_batch=dynamic_batch, **of)


# --- How it is asked for


def test_the_atc_command_is_that_of_the_contract(simplified: Path, tmp_path: Path) -> None:
    conversion = Conversion(simplified, [32, 1, 4, 8, 16, 4], "310P3", tmp_path, dynamic_batch=True)
    assert plan(conversion)[-1] == (
        f"atc --framework=5 --model={simplified} --output=m_dyn --input_format=NCHW "
        "--input_shape=actual_input_1:-1,3,96,96 --dynamic_batch_size=1,4,8,16,32 --soc_version=Ascend310P3"
    )
    assert not list(tmp_path.iterdir())


def test_two_to_a_hundred_batch_sizes_are_taken_each_once_in_their_order() -> None:
    for batches, sizes in (([8, 1, 8], [1, 8]), (range(100, 0, -1), [*range(1, 101)])):
        assert resolved(Conversion(Path("m.onnx"), batches, "310P3", dynamic_batch=True)).batches == sizes
    for batches in ([1], [4, 4], range(1, 102)):
        with pytest.raises(ArgumentError, match=r"^--dynamic-batch takes 2 to 100 batch sizes, found \d+: 1|4"):
            resolved(Conversion(Path("m.onnx"), batches, "310P3", dynamic_batch=True))


def test_int8_is_refused_on_ascend_where_amct_s_models_take_no_dynamic_batch(tmp_path: Path) -> None:
    result = call("convert.sh", "1,8", "310P3", "--dynamic-batch", "--precision=int8", "--calibration=t", cwd=tmp_path)
    assert_refused(result, "--dynamic-batch is not for int8 on 310P3", code=2)


def test_a_network_whose_batch_size_is_set_is_refused_with_the_way_out(demo_onnx: Path, tmp_path: Path) -> None:
    model = onnx.load(demo_onnx)
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, tmp_path / "m_sim.onnx")
    for chip in ("cpu", "310P3"):
        conversion = Conversion(tmp_path / "m_sim.onnx", SIZES, chip, tmp_path, dynamic_batch=True)
        for way in (plan, convert):
            with pytest.raises(PipelineError, match=r"m_sim\.onnx: its batch size is set to 1, --dynamic-batch takes"):
                way(conversion)
    with pytest.raises(PipelineError, match="its batch size is set to 1"):
        check(conversion)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m_sim.onnx"]


def test_a_batch_size_that_simplifying_frees_is_no_hindrance(demo_onnx: Path, tmp_path: Path) -> None:
    model = onnx.load(demo_onnx)
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, tmp_path / "m.onnx")
    conversion = Conversion(tmp_path / "m.onnx", SIZES, "cpu", tmp_path, dynamic_batch=True)
    assert "--dynamic_batch_size=1,4,8" in plan(dataclasses.replace(conversion, chip="310P3"))[-1]
    (made,) = convert(conversion)
    assert open_engine(made.path, batch=4).input.shape[0] == 4


# --- What is made


def test_the_record_says_the_sizes_and_holds_until_others_are_asked_for(on_cpu: Path) -> None:
    said: list[str] = []
    (made,) = convert(asked(on_cpu, [8, 4, 1], chip="cpu"), said.append)
    assert (made.path.name, made.batch, made.sizes, made.kept) == ("m_dyn.xml", 8, SIZES, True)
    assert said == ["m_dyn.xml: up to date"]
    assert sidecar.sizes_of(made.path) == SIZES
    expected = r"m_dyn\.xml: was compiled for batch \[1, 4, 8\], not batch \[1, 4\]; --force replaces it"
    for way in (convert, plan):
        with pytest.raises(PipelineError, match=expected):
            way(asked(on_cpu, [1, 4], chip="cpu"))


def test_a_model_of_one_size_says_that_size_and_a_record_of_none_says_nothing(tmp_path: Path) -> None:
    for batch, sizes in ((4, (4,)), ([8, 1], (1, 8)), ([], ()), ([1, "8"], ()), (True, ()), ([0, 1], ()), ({}, ())):
        sidecar.write(tmp_path / "m.om", {"batch": batch})
        assert sidecar.sizes_of(tmp_path / "m.om") == sizes
    assert sidecar.sizes_of(tmp_path / "none.om") == ()


def test_what_force_replaces_takes_the_new_sizes(on_cpu: Path, tmp_path: Path) -> None:
    shutil.copytree(on_cpu, tmp_path, dirs_exist_ok=True)
    (made,) = convert(asked(tmp_path, [2, 3], chip="cpu", force=True))
    assert (made.sizes, sidecar.sizes_of(made.path)) == ((2, 3), (2, 3))


def test_the_names_of_compiled_models_tell_their_batch() -> None:
    assert targets.compiled_name("m", (1, 8), "310P3") == "m_dyn.om"
    assert targets.compiled_name("m", (1, 8), "cpu") == "m_dyn.xml"
    assert targets.models([8, 1], dynamic=False) == [8, 1]
    assert targets.models([1, 8], dynamic=True) == [(1, 8)]


# --- How it runs


def test_the_smallest_size_that_holds_the_images_is_taken() -> None:
    taken = [fitting(SIZES, count) for count in range(1, 11)]
    assert taken == [1, 4, 4, 4, 8, 8, 8, 8, 8, 8]
    assert (fitting(ANY_SIZE, 7), fitting((4,), 1)) == (7, 4)


@pytest.mark.parametrize(("batch", "runs"), [(1, [1] * 11), (4, [4, 4, 4]), (8, [8, 4]), (16, [8, 4])])
def test_a_short_last_batch_runs_in_the_smallest_size_that_holds_it(batch: int, runs: list[int]) -> None:
    class Rows:
        """Answers each image with its first value, and notes how many came at once."""

        title, info, probabilities, sizes, instances = "rows", dict[str, str](), False, SIZES, 1

        def __init__(self) -> None:
            self.input, self.ran = TensorSpec("x", (fitting(SIZES, batch), 2), "float32"), list[int]()

        def run(self, images: np.ndarray) -> np.ndarray:
            self.ran.append(len(images))
            return images[:, :1].copy()

        def another(self) -> Rows:
            return self

    engine, images = Rows(), np.arange(22, dtype=np.float32).reshape(11, 2)
    assert run_images(engine, images).tolist() == images[:, :1].tolist()
    assert engine.ran == runs


@pytest.mark.parametrize(("dtype", "precision"), [("float32", "fp32"), ("uint8", "fp32"), ("float32", "bf16")])
def test_on_cpu_one_model_answers_as_those_of_one_size_do(
    simplified: Path, tensors: np.ndarray, tmp_path: Path, dtype: str, precision: str
) -> None:
    sizes = [1, 3, 8]
    asked_for = Conversion(simplified, sizes, "cpu", tmp_path, dtype, precision, dynamic_batch=True)
    (dynamic,) = convert(asked_for)
    levels = np.random.default_rng(0).integers(0, 256, (8, 96, 96, 3), np.uint8)
    images = tensors[:8] if dtype == "float32" else levels
    for static in convert(dataclasses.replace(asked_for, dynamic_batch=False)):
        one, of_several = (open_engine(path, batch=static.batch) for path in (static.path, dynamic.path))
        assert one.input == of_several.input
        expected, found = (run_images(engine, images) for engine in (one, of_several))
        assert np.abs(found - expected).max() <= (1e-5 if precision == "fp32" else 0.02 * np.abs(expected).max())


def test_on_cpu_it_takes_sizes_that_nobody_asked_for(on_cpu: Path, tensors: np.ndarray, logits: np.ndarray) -> None:
    engine = open_for_images(ModelChoice(on_cpu / "m_dyn.xml", batch=5))
    assert (engine.input.shape[0], engine.sizes) == (5, ANY_SIZE)
    assert np.abs(run_images(engine, tensors) - logits).max() <= 1e-4


def test_on_cpu_the_size_it_is_opened_for_runs_as_the_model_of_that_size_and_others_share_one_more(
    simplified: Path, tensors: np.ndarray, logits: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    import openvino

    compiled: list[str] = []
    compile_model = openvino.Core.compile_model

    def noting(core: Any, model: Any, *rest: Any) -> Any:
        compiled.append(str(model.input(0).partial_shape[0]))
        return compile_model(core, model, *rest)

    monkeypatch.setattr(openvino.Core, "compile_model", noting)
    engine = open_engine(simplified, "openvino", batch=4)
    another = engine.another()
    assert compiled == ["4"]
    for size in (4, 3, 8, 1):
        for instance in (engine, another):
            assert np.abs(instance.run(tensors[:size]) - logits[:size]).max() <= 1e-4
    assert compiled == ["4", "?"]
    one_more = engine.another()
    one_more.run(tensors[:3])
    # Two threads that shared a request would take each other's answers.
    assert len({id(vars(instance)["_free_request"]) for instance in (engine, another, one_more)}) == 3


@pytest.mark.heavy
def test_int8_on_cpu_takes_several_sizes_and_passes_the_gate(simplified: Path, prep: Path, tmp_path: Path) -> None:
    asked_for = Conversion(simplified, SIZES, "cpu", tmp_path, precision="int8", calibration=prep, min_agreement=0.8)
    (made,) = convert(dataclasses.replace(asked_for, dynamic_batch=True))
    assert made.agreement is not None
    assert made.agreement >= 0.8
    assert compare(simplified, made.path, prep).top1 >= 0.8


@pytest.mark.usefixtures("ascend")
def test_an_om_takes_the_sizes_of_its_record(compiled: Path, tensors: np.ndarray, logits: np.ndarray) -> None:
    for batch, chosen in ((1, 1), (2, 4), (8, 8), (16, 8)):
        engine = open_engine(compiled / "m_dyn.om", batch=batch)
        assert (engine.input.shape[0], tuple(engine.sizes)) == (chosen, SIZES)
        assert np.abs(run_images(engine, tensors) - logits).max() <= 1e-4
    (static,) = (open_engine(compiled / "m_bs8.om", batch=1),)
    assert (static.input.shape[0], tuple(static.sizes)) == (8, (8,))


@pytest.mark.usefixtures("ascend")
def test_evaluate_and_predict_answer_as_by_the_model_of_one_size(compiled: Path, images: Path, tmp_path: Path) -> None:
    answers = {}
    for name in ("m_dyn", "m_bs8"):
        model = ModelChoice(compiled / f"{name}.om", workers=1)
        evaluated = evaluate(model, images, images.parent / "labels.txt", tmp_path / f"{name}.jsonl")
        assert (evaluated.batch, evaluated.score.total) == (8, PICTURES)
        lines = (tmp_path / f"{name}.jsonl").read_text().splitlines()[1:]
        alone = [answer for path in sorted(images.iterdir())[:3] for answer in predict(model, [path])]
        answers[name] = (evaluated.score, lines, [[guess.label for guess in answer.guesses] for answer in alone])
    assert answers["m_dyn"] == answers["m_bs8"]


@pytest.mark.usefixtures("ascend")
def test_pictures_run_in_the_smallest_sizes_that_hold_them(compiled: Path, images: Path) -> None:
    model, paths = ModelChoice(compiled / "m_dyn.om"), [str(path) for path in sorted(images.iterdir())]
    engine = open_for_images(model)
    made = image_format(engine, model)
    inferred = logits_of(engine, made, paths, 1, Stopwatch(), Stopwatch())
    assert [(len(batch.images), len(rows)) for batch, rows in inferred] == [(8, 8), (8, 8), (3, 4)]


@pytest.mark.usefixtures("ascend")
def test_one_picture_takes_the_smallest_size_and_a_size_that_is_none_is_refused(compiled: Path) -> None:
    assert open_for_images(ModelChoice(compiled / "m_dyn.om"), 1).input.shape[0] == 1
    assert open_for_images(ModelChoice(compiled / "m_dyn.om", batch=4)).input.shape[0] == 4
    with pytest.raises(ArgumentError, match=r"m_dyn\.om: its batch sizes are 1, 4, 8; leave --batch 3 out$"):
        open_for_images(ModelChoice(compiled / "m_dyn.om", batch=3))


@pytest.mark.usefixtures("ascend")
def test_an_om_without_its_record_runs_at_its_largest_size_and_at_one_that_is_named(
    compiled: Path, tensors: np.ndarray, logits: np.ndarray, tmp_path: Path
) -> None:
    shutil.copy(compiled / "m_dyn.om", tmp_path)
    for batch, sizes in ((1, (1, 8)), (4, (4, 8)), (8, (8,)), (3, (8,))):
        engine = open_engine(tmp_path / "m_dyn.om", batch=batch)
        assert tuple(engine.sizes) == sizes
        assert np.abs(run_images(engine, tensors) - logits).max() <= 1e-4


@pytest.mark.usefixtures("ascend")
def test_a_client_that_does_not_tell_the_sizes_and_a_record_of_others_are_one_line(
    compiled: Path, tensors: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(compiled / "m_dyn.om", tmp_path)
    sidecar.write(tmp_path / "m_dyn.om", {"batch": [2, 8]})
    with pytest.raises(PipelineError, match=r"cannot run 2 images at once \(.*\); compile it again"):
        run_images(open_engine(tmp_path / "m_dyn.om", batch=2), tensors)
    sidecar.write(tmp_path / "m_dyn.om", {"batch": [1, 4]})
    with pytest.raises(PipelineError, match=r"m_dyn\.om: inputs are .* \[-1, 3, 96, 96\] of \d+ bytes"):
        open_engine(tmp_path / "m_dyn.om")
    sidecar.remove(tmp_path / "m_dyn.om")
    from ais_bench.infer.interface import InferSession

    monkeypatch.delattr(InferSession, "get_max_dym_batchsize")
    with pytest.raises(PipelineError, match=r"does not tell which \(.*\); copy m_dyn\.om\.json from where it was"):
        open_engine(tmp_path / "m_dyn.om")


@pytest.mark.usefixtures("ascend")
def test_both_chips_agree_whatever_size_either_runs(compiled: Path, on_cpu: Path, prep: Path) -> None:
    for judged in (on_cpu / "m_dyn.xml", compiled / "m_bs8.om", on_cpu / "m_sim.onnx"):
        assert compare(compiled / "m_dyn.om", judged, prep).same_top1 == PICTURES


# --- The client's flag


def results(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_our_own_client_asks_for_the_size_and_refuses_it_for_models_of_one(
    on_cpu: Path, prep: Path, tmp_path: Path
) -> None:
    dynamic, static = on_cpu / "m_dyn.xml", convert(asked(on_cpu, [3], chip="cpu", dynamic_batch=False))[0].path
    with pytest.raises(ArgumentError, match=r"m_dyn\.xml: takes several batch sizes \(any\); choose one"):
        infer(Inference(dynamic, prep))
    with pytest.raises(ArgumentError, match=r"m_bs3\.xml: is for a batch of 3 alone; leave --dymBatch 3 out$"):
        infer(Inference(static, prep, batch=3))
    of_one, of_several = (Inference(static, prep, tmp_path, "s"), Inference(dynamic, prep, tmp_path, "d", batch=3))
    said: list[str] = []
    assert infer(of_one).batch == infer(of_several, said.append).batch == 3
    assert any("filesperbatch:3 runcount:7" in line for line in said)
    ours, theirs = results(tmp_path / "d"), results(tmp_path / "s")
    assert ours.keys() == theirs.keys()
    assert len(ours) == PICTURES
    for name, content in ours.items():
        assert np.abs(np.frombuffer(content, np.float32) - np.frombuffer(theirs[name], np.float32)).max() <= 1e-5
    assert infer(Inference(on_cpu / "m_sim.onnx", prep)).batch == 1


def test_ais_bench_writes_the_same_for_a_size_of_the_model_as_for_the_model_of_that_size(
    compiled: Path, prep: Path, standins: dict[str, str], tmp_path: Path
) -> None:
    shutil.copytree(compiled, tmp_path / "models")
    shutil.copytree(prep, tmp_path / "prep")
    (tmp_path / "out").mkdir(mode=0o750)
    for name, flags in (("m_dyn", ["--dymBatch=8"]), ("m_bs8", [])):
        command = ["-m", "ais_bench", f"--model=models/{name}.om", "--input=prep", "--output=out"]
        done = call(*command, f"--output_dirname={name}", *flags, cwd=tmp_path, env=standins)
        assert done.returncode == 0, done.stderr
    assert results(tmp_path / "out/m_dyn") == results(tmp_path / "out/m_bs8")
    pure = call("-m", "ais_bench", "--model=models/m_dyn.om", "--loop=3", "--dymBatch=4", cwd=tmp_path, env=standins)
    assert "throughput 1000*batchsize.mean(4)/NPU_compute_time.mean(" in pure.stdout


@pytest.mark.parametrize(
    ("model", "flags", "reason"),
    [
        ("m_dyn.om", [], "m_dyn.om: takes several batch sizes (1, 4, 8); choose one with --dymBatch N"),
        ("m_dyn.om", ["--batchsize=8"], "choose one with --dymBatch N"),
        ("m_dyn.om", ["--dymBatch=3"], "choose one with --dymBatch N"),
        ("m_bs8.om", ["--dymBatch=8"], "m_bs8.om: is for a batch of 8 alone; leave --dymBatch 8 out"),
    ],
)
def test_a_size_that_an_om_does_not_take_is_refused_before_ais_bench_runs(
    compiled: Path, standins: dict[str, str], model: str, flags: list[str], reason: str
) -> None:
    assert_refused(call("-m", "ResNeSt.infer", f"--model={model}", *flags, cwd=compiled, env=standins), reason, code=2)
