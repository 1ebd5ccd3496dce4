"""Stage 4 on cpu: the runner reads, pads, names, writes and prints as ais_bench does."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from ResNeSt.engines.engine import TensorSpec
from ResNeSt.infer import inference
from tests.conftest import Completed, assert_refused, call

SHAPE = (3, 4, 4)
CLASSES = 48
NUMBER = re.compile(r"\d+(\.\d+)?(e-?\d+)?")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph whose logits are its input, so that every output can be traced to the tensor it came from."""
    nodes = [helper.make_node("Flatten", ["actual_input_1"], ["output1"], axis=1)]
    source = helper.make_tensor_value_info("actual_input_1", TensorProto.FLOAT, ["N", *SHAPE])
    sink = helper.make_tensor_value_info("output1", TensorProto.FLOAT, ["N", CLASSES])
    graph = helper.make_graph(nodes, "flatten", [source], [sink])
    path = tmp_path_factory.mktemp("model") / "flatten.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6), path)
    return path


@pytest.fixture
def tensors(tmp_path: Path) -> Path:
    """Ten tensors, the third one .npy, in a folder with files of other kinds."""
    folder = tmp_path / "prep"
    folder.mkdir()
    for number in range(1, 11):
        values = tensor(number)
        if number == 3:
            np.save(folder / "img_3.npy", values)
        else:
            values.tofile(folder / f"img_{number}.bin")
    (folder / "notes.txt").write_text("ignored")
    return folder


def tensor(number: int) -> np.ndarray:
    return np.random.default_rng(number).standard_normal(SHAPE).astype(np.float32)


def infer(tmp_path: Path, model: str | Path, *flags: str, code: int = 0) -> Completed:
    result = call("-m", "ResNeSt.infer", f"--model={model}", *flags, cwd=tmp_path)
    assert result.returncode == code, result.stderr
    return result


def summary(tmp_path: Path, name: str = "result") -> dict[str, Any]:
    told: dict[str, Any] = json.loads((tmp_path / f"out/{name}_summary.json").read_text())
    return told


OUTPUT = ("--output=./out", "--output_dirname=result")


@pytest.mark.parametrize("batch", [1, 4, 10, 16])
def test_every_tensor_gets_its_own_result_whatever_the_batch_size(
    batch: int, model: Path, tensors: Path, tmp_path: Path
) -> None:
    infer(tmp_path, model, "--input=./prep", *OUTPUT, f"--dymBatch={batch}")
    assert len(list((tmp_path / "out/result").iterdir())) == 10
    for number in range(1, 11):
        found = np.fromfile(tmp_path / f"out/result/img_{number}_0.bin", np.float32)
        assert np.array_equal(found, tensor(number).ravel())


def test_the_summary_lists_inputs_in_natural_order_with_the_paths_as_given(
    model: Path, tensors: Path, tmp_path: Path
) -> None:
    infer(tmp_path, model, "--input=./prep", *OUTPUT, "--dymBatch=4")
    entries = summary(tmp_path)["filesinfo"]
    assert list(entries) == [str(index) for index in range(10)]
    assert entries["2"] == {"infiles": ["./prep/img_3.npy"], "outfiles": ["./out/result/img_3_0.bin"]}
    assert entries["9"] == {"infiles": ["./prep/img_10.bin"], "outfiles": ["./out/result/img_10_0.bin"]}


@pytest.mark.parametrize("suffix", ["bin", "npy", "txt"])
def test_each_output_format_holds_the_logits(suffix: str, model: Path, tensors: Path, tmp_path: Path) -> None:
    infer(tmp_path, model, "--input=./prep", *OUTPUT, "--outfmt", suffix.upper())
    readers: dict[str, Callable[[Path], np.ndarray]] = {
        "bin": lambda path: np.fromfile(path, np.float32),
        "npy": np.load,
        "txt": np.loadtxt,
    }
    found = readers[suffix](tmp_path / f"out/result/img_5_0.{suffix}")
    assert np.allclose(found, tensor(5).ravel(), atol=5e-7)


def test_txt_is_one_line_of_six_decimals_each_followed_by_a_blank(model: Path, tensors: Path, tmp_path: Path) -> None:
    infer(tmp_path, model, "--input=./prep", *OUTPUT, "--outfmt", "TXT")
    expected = "".join("%f " % value for value in tensor(5).ravel()) + "\n"  # noqa: UP031 (the contract's format)
    assert (tmp_path / "out/result/img_5_0.txt").read_text() == expected


def test_the_summary_has_the_real_client_s_keys(model: Path, tensors: Path, tmp_path: Path, shared: Path) -> None:
    infer(tmp_path, model, "--input=./prep", *OUTPUT)
    expected = json.loads((shared / "golden/ais_bench/result_bs1_summary.json").read_text())
    found = summary(tmp_path)
    assert found.keys() == expected.keys()
    assert found["NPU_compute_time"].keys() == expected["NPU_compute_time"].keys()
    assert found["filesinfo"]["0"].keys() == expected["filesinfo"]["0"].keys()


GOLDEN = {
    "result_bs1": ("stdout_bs1.txt", "resnest50_bs1.om", ["--input=./prep"]),
    "result_bs4": ("stdout_bs4.txt", "resnest50_bs4.om", ["--input=./prep", "--dymBatch=4"]),
    "pure": ("stdout_loop.txt", "resnest50_bs4.om", ["--loop=20", "--dymBatch=4"]),
}


@pytest.mark.parametrize("dirname", GOLDEN)
def test_the_printed_lines_are_the_real_client_s_but_for_the_runtime_s_name(
    dirname: str, model: Path, tensors: Path, tmp_path: Path, shared: Path
) -> None:
    recorded, its_model, flags = GOLDEN[dirname]
    expected = (shared / "golden/ais_bench" / recorded).read_text().replace(its_model, str(model))
    expected = expected.replace("acl", f"ONNX Runtime {onnxruntime.__version__}")
    printed = infer(tmp_path, model, "--output=./out", f"--output_dirname={dirname}", *flags).stdout
    assert info_lines(printed) == info_lines(expected)


def info_lines(text: str) -> list[str]:
    """The [INFO] lines, figures left out."""
    return [NUMBER.sub("#", line) for line in text.splitlines() if line.startswith("[INFO]")]


def test_a_pure_run_writes_one_result_and_one_time_per_loop(model: Path, tmp_path: Path) -> None:
    infer(tmp_path, model, "--output=./out", "--output_dirname=pure", "--loop=20", "--dymBatch=4")
    found = summary(tmp_path, "pure")
    assert found["filesinfo"]["0"]["infiles"] == ["pure_infer_data"]
    assert found["filesinfo"]["0"]["outfiles"] == ["./out/pure/pure_infer_data_0.bin"]
    assert len(found["npu_compute_time_list"]) == found["NPU_compute_time"]["count"] == 20
    assert (tmp_path / "out/pure/pure_infer_data_0.bin").stat().st_size == 4 * CLASSES * 4


@pytest.mark.parametrize(("asked", "uncounted"), [({}, 1), ({"warmup": 3}, 3), ({"warmup": 0}, 0)])
def test_warm_up_runs_come_first_and_do_not_count(
    asked: dict[str, Any], uncounted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[float] = []
    monkeypatch.setattr(time, "perf_counter", lambda: float(len(ran) ** 2))  # each run takes longer

    def run(batch: np.ndarray) -> np.ndarray:
        ran.append(float(batch.sum()))
        return np.zeros((2, CLASSES), np.float32)

    engine: Any = SimpleNamespace(input=TensorSpec("x", (2, *SHAPE), "float32"), run=run, info={}, instances=1)
    done = inference._run(engine, inference.Inference("m.xml", loop=4, **asked), None, lambda line: None)
    assert len(ran) == uncounted + 4
    assert done.times_ms == tuple(1000.0 * ((n + 1) ** 2 - n**2) for n in range(uncounted, uncounted + 4))
    assert done.throughput == pytest.approx(2000 / np.mean(done.times_ms))


def test_pure_data_is_zero_or_random_as_asked(model: Path, tmp_path: Path) -> None:
    for kind in ("zero", "random"):
        infer(tmp_path, model, "--output=./out", f"--output_dirname={kind}", f"--pure_data_type={kind}")
    values = {
        kind: np.fromfile(tmp_path / f"out/{kind}/pure_infer_data_0.bin", np.float32) for kind in ("zero", "random")
    }
    assert not values["zero"].any()
    assert len(set(values["random"])) > CLASSES // 2


@pytest.mark.parametrize("instances", [1, 2])
def test_a_pure_loop_leaves_one_result_however_often_it_runs(instances: int, model: Path, tmp_path: Path) -> None:
    infer(tmp_path, model, *OUTPUT, "--loop=6", f"--instances={instances}")
    found = summary(tmp_path)
    assert [entry["infiles"] for entry in found["filesinfo"].values()] == [["pure_infer_data"]]
    assert (len(found["npu_compute_time_list"]), found["H2D_latency"]["count"]) == (6, 1)


def test_batchsize_changes_the_throughput_and_nothing_else(model: Path, tensors: Path, tmp_path: Path) -> None:
    infer(tmp_path, model, "--input=./prep", *OUTPUT, "--dymBatch=2", "--batchsize=100")
    found = summary(tmp_path)
    assert found["throughput"] == pytest.approx(1000 * 100 / found["NPU_compute_time"]["mean"])
    assert found["NPU_compute_time"]["count"] == 5


def test_without_batchsize_the_throughput_counts_the_model_s_own(model: Path, tensors: Path, tmp_path: Path) -> None:
    infer(tmp_path, model, "--input=./prep", *OUTPUT, "--dymBatch=2")
    found = summary(tmp_path)
    assert found["throughput"] == pytest.approx(1000 * 2 / found["NPU_compute_time"]["mean"])


def test_without_a_dirname_the_results_go_to_a_folder_named_by_date_and_time(
    model: Path, tensors: Path, tmp_path: Path
) -> None:
    infer(tmp_path, model, "--input=./prep", "--output=./out")
    (folder,) = (path for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert re.fullmatch(r"\d{4}_\d\d_\d\d-\d\d_\d\d_\d\d", folder.name)
    assert (tmp_path / "out" / f"{folder.name}_summary.json").is_file()


def test_display_all_summary_adds_the_copy_times(model: Path, tmp_path: Path) -> None:
    assert "H2D_latency" not in infer(tmp_path, model).stdout
    assert "H2D_latency" in infer(tmp_path, model, "--display_all_summary=True").stdout


def test_a_tensor_whose_bytes_do_not_divide_the_input_is_refused_in_the_client_s_words(
    model: Path, tensors: Path, tmp_path: Path
) -> None:
    (tensors / "img_1.bin").write_bytes(b"\0" * 100)
    assert_refused(infer(tmp_path, model, "--input=./prep", code=1), "tensorsize: 192 filesize: 100 not match")


def test_a_tensor_cut_short_is_named_and_no_summary_is_left(model: Path, tensors: Path, tmp_path: Path) -> None:
    infer(tmp_path, model, "--input=./prep", *OUTPUT)
    (tensors / "img_7.bin").write_bytes(b"\0" * 100)
    assert_refused(infer(tmp_path, model, "--input=./prep", *OUTPUT, code=1), "img_7.bin: 100 bytes")
    assert not (tmp_path / "out/result_summary.json").exists()


def test_a_folder_of_results_is_of_one_run(model: Path, tensors: Path, tmp_path: Path) -> None:
    def results() -> set[str]:
        return {path.name for path in (tmp_path / "out/r").iterdir()}

    inference.infer(inference.Inference(model, tensors, tmp_path / "out", "r"))
    before = results()
    (tmp_path / "out/r/mine.txt").touch()
    first = min(tensors.glob("*.bin"))
    inference.infer(inference.Inference(model, first, tmp_path / "out", "r", outfmt="TXT"))
    assert results() == {f"{first.stem}_0.txt", "mine.txt"}
    assert len(before) > 1


def test_two_inputs_with_one_name_up_to_the_first_dot_are_refused(model: Path, tensors: Path, tmp_path: Path) -> None:
    (tensors / "img_1.again.bin").write_bytes((tensors / "img_1.bin").read_bytes())
    assert_refused(infer(tmp_path, model, "--input=./prep", code=1), "share a name up to the first dot")


INDEX = {
    "recipe": "squash-bilinear", "size": 4, "dtype": "float32", "layout": "NCHW", "mean": [0, 0, 0], "std": [1, 1, 1],
    "images": 10, "count": 10, "complete": True, "broken": [],
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 5}, "tensors of shape [3, 5, 5], the model takes float32 [3, 4, 4]"),
        ({"dtype": "uint8", "layout": "NHWC"}, "holds squash-bilinear 4, uint8 NHWC"),
        ({"complete": False, "images": 12}, "10 tensors of 12 are there"),
        ({"count": 11}, "10 tensors of 11 are there"),
        ({"size": "four"}, "not an index of tensors"),
    ],
)
def test_tensors_that_do_not_fit_the_model_are_refused_before_it_runs(
    change: dict[str, object], words: str, model: Path, tensors: Path, tmp_path: Path
) -> None:
    (tensors / "tensors.json").write_text(json.dumps({**INDEX, **change}))
    assert_refused(infer(tmp_path, model, "--input=./prep", code=1), words)


@pytest.mark.parametrize("source", ["nowhere", "empty"])
def test_an_input_without_tensors_is_refused(source: str, model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert_refused(infer(tmp_path, model, f"--input={source}", code=1), source, "resnest_preprocess.py")


def test_an_absolute_output_dirname_is_refused_as_the_client_does(model: Path, tmp_path: Path) -> None:
    result = infer(tmp_path, model, "--output=./out", f"--output_dirname={tmp_path}/r", code=2)
    assert_refused(result, "--output_dirname", code=2)


@pytest.mark.parametrize("flag", ["--pipeline=True", "--loop=0", "--device=1", "--outfmt=CSV", "--engine=tpu"])
def test_a_flag_that_cannot_be_carried_out_is_refused_with_exit_code_2(flag: str, model: Path, tmp_path: Path) -> None:
    infer(tmp_path, model, flag, code=2)


def test_an_om_without_ais_bench_says_where_to_run_it_and_ends_with_3(tmp_path: Path) -> None:
    (tmp_path / "m.om").write_bytes(b"")
    assert_refused(infer(tmp_path, "m.om", code=3), "m.om", "Ascend host", "bash convert.sh", code=3)


def test_every_engine_gives_the_same_logits(demo_onnx: Path, demo_checkpoint: Path, tmp_path: Path) -> None:
    runs = {"torch": demo_checkpoint, "onnxruntime": demo_onnx, "openvino": demo_onnx}
    logits = {}
    for engine, path in runs.items():
        flags = [f"--engine={engine}", "--dymBatch=3", "--pure_data_type=random"]
        infer(tmp_path, path, "--output=./out", f"--output_dirname={engine}", *flags)
        logits[engine] = np.fromfile(tmp_path / f"out/{engine}/pure_infer_data_0.bin", np.float32)
    largest = np.abs(logits["torch"]).max()
    assert np.abs(logits["onnxruntime"] - logits["torch"]).max() <= 1e-5 * largest
    assert np.abs(logits["openvino"] - logits["torch"]).max() <= 1e-5 * largest


def test_the_null_engine_has_the_model_s_input_and_computes_nothing(model: Path, tensors: Path, tmp_path: Path) -> None:
    infer(tmp_path, model, "--input=./prep", *OUTPUT, "--engine=null", "--dymBatch=4")
    assert not np.fromfile(tmp_path / "out/result/img_1_0.bin", np.float32).any()


def test_a_checkpoint_whose_name_tells_nothing_is_the_network_of_its_shapes(
    demo_checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.pth").write_bytes(demo_checkpoint.read_bytes())
    result = infer(tmp_path, "mine.pth")
    assert "note: mine.pth: by its shapes it is resnest_demo; --arch says otherwise" in result.stderr


@pytest.mark.parametrize(("name", "content"), [("m.onnx", b"damaged"), ("m.xml", b"<net/>"), ("m.pth", b"damaged")])
def test_a_damaged_model_is_named(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    arch = ["--arch=resnest_demo"] if name.endswith("pth") else []
    assert_refused(infer(tmp_path, name, *arch, code=1), name)


def test_a_model_whose_input_is_of_another_type_is_named(tmp_path: Path) -> None:
    source = helper.make_tensor_value_info("x", TensorProto.INT64, ["N", 3])
    sink = helper.make_tensor_value_info("y", TensorProto.INT64, ["N", 3])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", [source], [sink])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6), tmp_path / "m.onnx")
    assert_refused(infer(tmp_path, "m.onnx", code=1), "m.onnx: inputs are [x int64", "expected one of float32 [N, 3,")


def test_onnx_runtime_itself_agrees_with_the_runner(demo_onnx: Path, tmp_path: Path) -> None:
    flags = ["--dymBatch=2", "--pure_data_type=random", "--output=./out", "--output_dirname=pure"]
    infer(tmp_path, demo_onnx, *flags)
    session = onnxruntime.InferenceSession(demo_onnx)
    size = session.get_inputs()[0].shape[-1]
    data = np.random.default_rng(0).random((2, 3, size, size)).astype(np.float32)
    expected = session.run(None, {"actual_input_1": data})[0]
    assert np.array_equal(np.fromfile(tmp_path / "out/pure/pure_infer_data_0.bin", np.float32), expected.ravel())


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (np.concatenate([tensor(1), tensor(2), tensor(3), tensor(4)]), "768 bytes, an image takes 192"),
        (np.concatenate([tensor(1), tensor(2)]), "384 bytes, an image takes 192"),
        (np.zeros(SHAPE, np.uint8), "48 bytes, an image takes 192"),
        (np.zeros(SHAPE, np.float16), "96 bytes, an image takes 192"),
    ],
)
@pytest.mark.parametrize("suffix", ["bin", "npy"])
def test_a_tensor_file_that_is_not_one_image_of_the_model_is_refused(
    suffix: str, content: np.ndarray, found: str, model: Path, tmp_path: Path
) -> None:
    """Four images in a file, or values of another size, fill a batch as well as four files do."""
    (tmp_path / "prep").mkdir()
    for name in "abcdefgh":
        if suffix == "npy":
            np.save(tmp_path / f"prep/{name}.npy", content)
        else:
            content.tofile(tmp_path / f"prep/{name}.bin")
    result = infer(tmp_path, model, "--input=./prep", *OUTPUT, "--dymBatch=4", code=1)
    assert_refused(
        result, "a.npy: holds" if suffix == "npy" and content.dtype != np.float32 else f"a.{suffix}: {found}"
    )
    assert not list((tmp_path / "out/result").iterdir())


@pytest.mark.parametrize("dtype", ["int32", "float64", ">f4", "uint8", "bool"])
def test_a_npy_of_another_dtype_is_refused_and_not_read_as_float32(dtype: str, model: Path, tmp_path: Path) -> None:
    (tmp_path / "prep").mkdir()
    np.save(tmp_path / "prep/a.npy", tensor(1).astype(dtype))
    result = infer(tmp_path, model, "--input=./prep", code=1)
    assert_refused(result, f"a.npy: holds {np.dtype(dtype).str}, the model takes float32")


@pytest.mark.parametrize(
    "content", [b"", b"text", b"\x93NUMPY", b"PK\x03\x04", b"\x93NUMPY\x01\x00\x10\x00{'descr': oops  \n"]
)
def test_a_npy_that_is_none_is_one_line(content: bytes, model: Path, tmp_path: Path) -> None:
    (tmp_path / "prep").mkdir()
    (tmp_path / "prep/a.npy").write_bytes(content)
    assert_refused(infer(tmp_path, model, "--input=./prep", code=1), "a.npy: not a whole .npy file")


def test_a_npy_in_fortran_order_is_the_same_tensor(model: Path, tmp_path: Path) -> None:
    (tmp_path / "prep").mkdir()
    np.save(tmp_path / "prep/a.npy", np.asfortranarray(tensor(1)))
    infer(tmp_path, model, "--input=./prep", *OUTPUT)
    assert np.array_equal(np.fromfile(tmp_path / "out/result/a_0.bin", np.float32), tensor(1).ravel())


def test_from_python_the_throughput_is_the_model_s_own_whatever_batch_size_is_shown(model: Path, tensors: Path) -> None:
    said: list[str] = []
    inferred = inference.infer(inference.Inference(model, tensors, batch=4, shown_batch=1), said.append)
    assert (inferred.batch, len(inferred.times_ms), inferred.folder, inferred.summary) == (4, 3, None, None)
    assert inferred.throughput == pytest.approx(4000 / np.mean(inferred.times_ms))
    assert f"throughput 1000*batchsize.mean(1)/NPU_compute_time.mean({np.mean(inferred.times_ms)})" in said[-3]


def test_from_python_nothing_is_printed_unless_asked_for(
    model: Path, tensors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inferred = inference.infer(inference.Inference(model, tensors, tmp_path / "out", dirname="result"))
    assert inferred.summary is not None
    assert inferred.summary.is_file()
    assert capsys.readouterr().out == ""


def test_tensors_whose_values_no_image_has_by_the_model_s_mean_and_std_are_told(model: Path, tmp_path: Path) -> None:
    """A network gives finite answers of them all the same."""
    graph = onnx.load(model)
    helper.set_model_props(graph, {"resnest.mean": "[0.5, 0.4, 0.5]", "resnest.std": "[0.25, 0.2, 0.25]"})
    onnx.save(graph, tmp_path / "m.onnx")
    (tmp_path / "prep").mkdir()
    image = (np.random.default_rng(0).random(SHAPE) - [[[0.5]], [[0.4]], [[0.5]]]) / [[[0.25]], [[0.2]], [[0.25]]]
    image[:, 0, 0], image[:, 0, 1] = (-2, -2, -2), (2, 3, 2)  # black and white
    odd = {"blue_first": image[[1, 0, 2]], "levels": image * 60, "nothing": image * np.nan, "wide": image.astype(">f4")}
    for name, values in {"black_and_white": image, "zero": image * 0, **odd}.items():
        raw = values.tobytes() if name == "wide" else values.astype("<f4").tobytes()
        (tmp_path / f"prep/{name}.bin").write_bytes(raw)
    said: list[str] = []
    inference.infer(inference.Inference(tmp_path / "m.onnx", tmp_path / "prep", batch=4), said.append)
    (note,) = [line for line in said if line.startswith("note")]
    assert f"4 tensors hold values that no image has by the model's mean and std, such as {tmp_path}" in note
    assert "prep/blue_first.bin" in note
    said.clear()
    for name in odd:
        (tmp_path / f"prep/{name}.bin").unlink()
    inference.infer(inference.Inference(tmp_path / "m.onnx", tmp_path / "prep", batch=4), said.append)
    assert not [line for line in said if line.startswith("note")]
