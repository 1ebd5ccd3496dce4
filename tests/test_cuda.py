"""Chip cuda: what is compiled for a GPU is the network, and it runs there or not at all."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from ResNeSt.bench.benchmark import Benchmark, checked
from ResNeSt.common.errors import ArgumentError, MissingRuntimeError, PipelineError
from ResNeSt.convert.conversion import Conversion, convert, plan
from ResNeSt.engines import onnxruntime_gpu, torch_gpu
from ResNeSt.engines.engine import Engine, in_pieces, run_images
from ResNeSt.engines.image_batches import ModelChoice
from ResNeSt.engines.opening import open_engine
from ResNeSt.evaluate import evaluate
from tests.conftest import PROJECT, assert_refused, call

CUDA_PROVIDER = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here, or no CUDA build of PyTorch")
by_onnxruntime = pytest.mark.skipif(
    not (CUDA_PROVIDER and torch.cuda.is_available()), reason="no NVIDIA GPU here, or no onnxruntime-gpu"
)
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
only_cpu = pytest.mark.skipif(CUDA_PROVIDER, reason="onnxruntime-gpu is here")


@pytest.fixture(scope="module")
def made(demo_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The demo for a GPU: in fp32 and fp16 for 4 images, and in fp16 for 1 to 4 (dyn)."""
    folder = tmp_path_factory.mktemp("cuda")
    files = {}
    for precision in ("fp32", "fp16"):
        (found,) = convert(Conversion(demo_onnx, [4], "cuda", folder / precision, precision=precision))
        files[precision] = found.path
    (found,) = convert(Conversion(demo_onnx, [1, 4], "cuda", folder / "dyn", precision="fp16", dynamic_batch=True))
    return {**files, "dyn": found.path}


def tensors(count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, 3, 96, 96)).astype(np.float32)


def off_by(engine: Engine, checkpoint: Path, images: np.ndarray) -> float:
    """The largest difference from PyTorch in float32 on the CPU, of the largest logit."""
    expected = run_images(open_engine(checkpoint, "torch", 4), images)
    return float(np.abs(engine.run(images) - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize(("model", "most"), [("fp32", 1e-5), ("fp16", 1e-2), ("dyn", 1e-2)])
def test_what_is_made_for_a_gpu_is_the_network(
    made: dict[str, Path], demo_checkpoint: Path, model: str, most: float
) -> None:
    engine = open_engine(made[model], "onnxruntime", 4)
    assert off_by(engine, demo_checkpoint, tensors(4)) < most
    assert engine.info["precision"] == ("fp32" if model == "fp32" else "fp16")
    assert tuple(engine.sizes)[:4] == ((4,) if model != "dyn" else (1, 2, 3, 4))


def test_in_fp16_the_weights_are_and_the_ends_are_not(made: dict[str, Path]) -> None:
    graph = onnx.load(made["fp16"]).graph
    assert {port.type.tensor_type.elem_type for port in (*graph.input, *graph.output)} == {onnx.TensorProto.FLOAT}
    kernels = {node.input[1] for node in graph.node if node.op_type == "Conv"}
    weights = [value.data_type for value in graph.initializer if value.name in kernels]
    assert weights
    assert set(weights) == {onnx.TensorProto.FLOAT16}


def test_made_again_it_is_up_to_date_and_after_another_precision_refused(
    made: dict[str, Path], demo_onnx: Path
) -> None:
    asked = Conversion(demo_onnx, [4], "CUDA", made["fp16"].parent, precision="fp16")
    (again,) = convert(asked)
    assert again.kept
    assert again.path.name == "resnest_demo_bs4.onnx"
    with pytest.raises(PipelineError, match="was compiled for precision fp16, not precision fp32; --force"):
        convert(Conversion(demo_onnx, [4], "cuda", made["fp16"].parent))
    assert any("resnest_demo_bs4.onnx" in line for line in plan(asked))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"dtype": "uint8"}, "--dtype uint8 is not for cuda"),
        ({"precision": "bf16"}, "--precision bf16 is not for cuda; it takes fp32, fp16"),
        ({"precision": "int8"}, "--precision int8 is not for cuda"),
        ({"tune": "operators"}, "--tune is for Ascend chips"),
    ],
)
def test_what_a_gpu_does_not_take_is_refused(
    demo_onnx: Path, tmp_path: Path, asked: dict[str, Any], words: str
) -> None:
    with pytest.raises(ArgumentError, match=words):
        convert(Conversion(demo_onnx, [1], "cuda", tmp_path, **asked))
    assert not list(tmp_path.iterdir())


@only_cpu
@pytest.mark.parametrize("engine", [None, "cuda", "tensorrt"])
def test_without_onnxruntime_gpu_it_does_not_run_on_the_cpu_instead(made: dict[str, Path], engine: str | None) -> None:
    provider = "TensorRT" if engine == "tensorrt" else "CUDA"
    with pytest.raises(MissingRuntimeError, match=rf"here has no {provider} provider .*requirements/gpu\.txt"):
        open_engine(made["fp16"], engine)


@only_cpu
def test_every_command_says_so_in_one_line(made: dict[str, Path], tmp_path: Path) -> None:
    model = f"--model={made['fp32']}"
    for command in (
        ("-m", "ResNeSt.infer", model),
        ("-m", "ResNeSt.evaluate", model, "--images=demo/val", "--labels=demo/val_label.txt"),
        ("-m", "ResNeSt.predict", model, "demo/val"),
    ):
        assert_refused(call(*command, cwd=PROJECT), "has no CUDA provider", code=3)
    prefix = str(made["fp32"]).replace("_bs4.onnx", "")
    benched = call("bench.sh", "4", "cuda", f"--prefix={prefix}", f"--output={tmp_path / 'bench'}")
    assert "has no CUDA provider" in benched.stderr
    assert benched.returncode in (1, 3)


@only_cpu
def test_a_provider_whose_library_does_not_load_is_told_by_the_loader_s_words(
    made: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(MissingRuntimeError, match=r"CUDA provider .* cannot be loaded \(.*\.so.*requirements/gpu"):
        open_engine(made["fp16"])


@only_cpu
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_onnx_runtime_s_own_way_back_to_the_cpu_is_closed(
    made: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session itself refuses: ONNX Runtime drops a provider that it does not have, with a warning."""
    monkeypatch.setattr(onnxruntime_gpu, "_load", lambda *_: None)
    with pytest.raises(PipelineError, match="does not run on the CPU instead"):
        open_engine(made["fp16"])


@only_cpu
def test_a_session_that_took_another_provider_is_refused(
    made: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if it had not refused."""
    session = onnxruntime.InferenceSession(made["fp32"], providers=["CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime_gpu, "_load", lambda *_: None)
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: session)
    with pytest.raises(PipelineError, match="took CPUExecutionProvider, not CUDA"):
        open_engine(made["fp32"])


SOURCE = "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider_info.cc"
OPTIONS = (
    f"{SOURCE}:63 static onnxruntime::CUDAExecutionProviderInfo onnxruntime::CUDAExecutionProviderInfo::"
    "FromProviderOptions(const onnxruntime::ProviderOptions&) [ONNXRuntimeError] : 1 : FAIL : "
    'provider_options_utils.h:184 Parse Failed to parse provider option "device_id": '
)
CALL = (
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:123 std::conditional_t<THRW, void, "
    "onnxruntime::common::Status> onnxruntime::CudaCall(ERRTYPE, const char*, int) [with ERRTYPE = cudaError; bool "
    "THRW = true; std::conditional_t<THRW, void, onnxruntime::common::Status> = void] "
)


@only_cpu
@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (
            f"{OPTIONS}cuda_execution_provider_info.cc:76 operator() Invalid device ID: 9, must be between 0 "
            "(inclusive) and 1 (exclusive).",
            "Invalid device ID: 9, must be between 0 (inclusive) and 1 (exclusive)",
        ),
        (
            f"{OPTIONS}CUDA failure 100: no CUDA-capable device is detected ; GPU=-1 ; hostname=vm ; file={SOURCE} ; "
            "line=70 ; expr=cudaGetDeviceCount(&num_devices);",
            "CUDA failure 100: no CUDA-capable device is detected",
        ),
        (
            f"{CALL}{CALL}CUDA failure 2: out of memory ; GPU=0 ; hostname=vm ; file={SOURCE} ; line=1 ; expr=f(x);",
            "CUDA failure 2: out of memory",
        ),
        (
            "[ONNXRuntimeError] : 1 : FAIL : This session contains graph nodes that are assigned to the default CPU EP",
            "This session contains graph nodes that are assigned to the default CPU EP",
        ),
    ],
)
def test_of_what_onnx_runtime_says_the_reason_is_shown_and_not_its_source(
    made: dict[str, Path], monkeypatch: pytest.MonkeyPatch, said: str, shown: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError(said)

    monkeypatch.setattr(onnxruntime_gpu, "_load", lambda *_: None)
    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(PipelineError, match=re.escape(f"by CUDA on GPU 9 ({shown}); it does not run on the CPU")):
        open_engine(made["fp32"], device=9)


@without_gpu
@pytest.mark.parametrize("engine", ["torch-cuda", "torch-cuda-bf16", "torch-cuda-fp16"])
def test_pytorch_without_a_gpu_does_not_run_on_the_cpu_instead(demo_checkpoint: Path, engine: str) -> None:
    with pytest.raises(PipelineError, match="finds 0 GPUs here, asked for is number 0; it does not run on the CPU"):
        open_engine(demo_checkpoint, engine)


class Small(torch.nn.Module):
    """Stands for any network: what counts is that several share one `forward`."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images * 2


@pytest.fixture
def compiled_on_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """PyTorch's compiler as far as it goes without a GPU: to the graph, which then runs operator by operator."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    limits = torch._dynamo.config
    with torch._dynamo.config.patch(
        recompile_limit=limits.recompile_limit, accumulated_recompile_limit=limits.accumulated_recompile_limit
    ):
        torch._dynamo.reset()
        yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("compiled_on_cpu")
def test_many_engines_are_compiled_in_a_process_and_one_too_many_does_not_run_uncompiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch_gpu, "MOST_ENGINES", 12)  # PyTorch's own limit is 8
    for batch in range(2, 14):  # each anew, as for every batch size
        assert (torch_gpu._compiled(Small())(torch.ones(batch, 3)) == 2).all()
    with pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit):
        torch_gpu._compiled(Small())(torch.ones(14, 3))


def test_a_card_s_number_is_for_what_runs_on_cards(made: dict[str, Path]) -> None:
    with pytest.raises(ArgumentError, match=r"--device 1: .* runs by onnxruntime; on cpu there is device 0 only"):
        open_engine(made["fp32"], "onnxruntime", device=1)
    with pytest.raises(ArgumentError, match="takes one GPU"):
        checked(Benchmark([4], "cuda", devices=[0, 1]))
    assert checked(Benchmark([4], "cuda", devices=[1], processes=[1, 2])).devices == [1]
    with pytest.raises(ArgumentError, match="on a GPU it is a process of its own"):
        checked(Benchmark([4], "cuda", instances=[2]))
    with pytest.raises(ArgumentError, match="nsys profile"):
        checked(Benchmark([4], "cuda", profile=True))


@pytest.mark.parametrize("count", [1, 4, 5, 8])
def test_any_number_of_images_runs_in_batches_of_one_size(count: int) -> None:
    seen = []

    def run(images: np.ndarray) -> np.ndarray:
        seen.append(len(images))
        return images * 2

    images = np.arange(count, dtype=np.float32)[:, None]
    assert (in_pieces(run, images, 4) == images * 2).all()
    assert set(seen) == {4}


@by_onnxruntime
@pytest.mark.parametrize(("model", "most"), [("fp32", 1e-5), ("fp16", 2e-2), ("dyn", 2e-2)])
@pytest.mark.parametrize("count", [4, 3])
def test_on_a_gpu_the_answers_are_pytorch_s(
    made: dict[str, Path], demo_checkpoint: Path, model: str, most: float, count: int
) -> None:
    engine = open_engine(made[model], batch=4)
    images = tensors(4)[:count]
    for _ in range(3):  # the second run records the launches, the third takes them from the record
        logits = run_images(engine, images)
        expected = run_images(open_engine(demo_checkpoint, "torch", 4), images)
        assert np.abs(logits - expected).max() < most * np.abs(expected).max()


@by_onnxruntime
def test_an_operator_that_the_gpu_does_not_have_does_not_run_on_the_cpu_instead(
    made: dict[str, Path], tmp_path: Path
) -> None:
    model = onnx.load(made["fp32"])
    (answers,) = model.graph.output
    model.graph.node.append(onnx.helper.make_node("Sinh", [answers.name], ["beyond"], "beyond"))
    answers.name = "beyond"
    onnx.save(model, tmp_path / "m.onnx")
    assert np.isfinite(open_engine(tmp_path / "m.onnx", "onnxruntime").run(tensors(4))).all()
    with pytest.raises(PipelineError, match="does not run on the CPU instead"):
        open_engine(tmp_path / "m.onnx", "cuda")


@by_onnxruntime
def test_a_gpu_that_is_not_there_is_told_in_one_line(made: dict[str, Path]) -> None:
    result = call("-m", "ResNeSt.infer", f"--model={made['fp32']}", "--device=99", fresh=True)
    assert_refused(result, "GPU 99")
    assert len(result.stderr.strip().splitlines()) == 1


@by_onnxruntime
def test_a_gpu_scores_the_demo_as_the_cpu_does(made: dict[str, Path], demo_checkpoint: Path) -> None:
    demo = (PROJECT / "demo/val", PROJECT / "demo/val_label.txt")
    on_card, on_cpu = (
        evaluate(ModelChoice(model, batch=batch), *demo).score
        for model, batch in ((made["fp32"], None), (demo_checkpoint, 16))
    )
    assert on_card == on_cpu


@on_gpu
@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore")  # the compiler's parts warn of each other
@pytest.mark.parametrize(
    ("engine", "most"), [("torch-cuda", 1e-5), ("torch-cuda-bf16", 1e-1), ("torch-cuda-fp16", 2e-2)]
)
def test_pytorch_compiled_for_a_gpu_gives_its_answers(demo_checkpoint: Path, engine: str, most: float) -> None:
    opened = open_engine(demo_checkpoint, engine, 4)
    assert off_by(opened, demo_checkpoint, tensors(4)) < most
    assert off_by(opened, demo_checkpoint, tensors(5)) < most
