"""The stand-ins for atc, npu-smi and ais_bench keep the real programs' contracts."""

from __future__ import annotations

import json
import os
import re
import runpy
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper

from tests.conftest import CLIENTS, PROJECT, Command, Completed, assert_refused

STANDINS = Path(__file__).parent / "standins"
SIDE = 4
IMAGE_BYTES = 3 * SIDE * SIDE * 4
AIPP = """# ImageNet
aipp_op {
  aipp_mode: static
  input_format : RGB888_U8
  csc_switch: false
  src_image_size_w: 4  src_image_size_h: 4
  min_chn_0: 123.675  min_chn_1: 116.28  min_chn_2: 103.53
  var_reci_chn_0: 0.0171247538316637
  var_reci_chn_1: 0.0175070028011204
  var_reci_chn_2: 0.0174291938997821
}
"""


YUV = AIPP.replace("RGB888_U8", "YUV420SP_U8").replace(
    "csc_switch: false",
    """csc_switch: true  rbuv_swap_switch: false
  matrix_r0c0: 256  matrix_r0c1: 0  matrix_r0c2: 359
  matrix_r1c0: 256  matrix_r1c1: -88  matrix_r1c2: -183
  matrix_r2c0: 256  matrix_r2c1: 454  matrix_r2c2: 0
  input_bias_0: 0  input_bias_1: 128  input_bias_2: 128""",
)


@pytest.fixture(autouse=True)
def ordinary_umask() -> Iterator[None]:
    """The client refuses files that a group may write, whatever umask the tests were started under."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def call(tmp_path: Path, standins: dict[str, str]) -> Command:
    """Runs a command line in the test's folder with the stand-ins switched on."""

    def run(*command: str, **extra: str) -> Completed:
        env = {**os.environ, **standins, **extra}
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)

    return run


@pytest.fixture
def atc(call: Command) -> Command:
    """Compiles `net.onnx`; keywords change or, with None, remove an option."""

    def run(env: dict[str, str] | None = None, **changes: object) -> Completed:
        options: dict[str, object] = {
            "framework": 5,
            "model": "net.onnx",
            "output": "net_bs2",
            "soc_version": "Ascend310P3",
        }
        options.update(input_format="NCHW", input_shape=f"actual_input_1:2,3,{SIDE},{SIDE}")
        options.update(changes)
        return call("atc", *[f"--{key}={value}" for key, value in options.items() if value is not None], **(env or {}))

    return run


@pytest.fixture
def ais_bench(call: Command) -> Command:
    def run(*options: str) -> Completed:
        return call(sys.executable, "-m", "ais_bench", *options)

    return run


def save_model(
    path: Path, nodes: Sequence[NodeProto] = (), opsets: Sequence[tuple[str, int]] = (("", 11),), batch: str | int = "N"
) -> None:
    """Channel means: [N,3,4,4] -> [N,3]; `nodes` come before the mean and make "x" from "actual_input_1"."""
    pool = helper.make_node("GlobalAveragePool", ["x" if nodes else "actual_input_1"], ["pooled"])
    flatten = helper.make_node("Flatten", ["pooled"], ["output1"])
    inputs = [helper.make_tensor_value_info("actual_input_1", TensorProto.FLOAT, [batch, 3, SIDE, SIDE])]
    outputs = [helper.make_tensor_value_info("output1", TensorProto.FLOAT, [batch, 3])]
    graph = helper.make_graph([*nodes, pool, flatten], "means", inputs, outputs)
    opset_imports = [helper.make_opsetid(domain, version) for domain, version in opsets]
    onnx.save(helper.make_model(graph, opset_imports=opset_imports, ir_version=8), path)


@pytest.fixture
def model(tmp_path: Path) -> None:
    save_model(tmp_path / "net.onnx")


@pytest.fixture
def compiled(model: None, atc: Command) -> None:
    assert atc().returncode == 0


def save_images(folder: Path, count: int) -> np.ndarray:
    """float32 images img0.bin, img1.bin, ...; returns their channel means."""
    folder.mkdir()
    images = np.random.default_rng(0).normal(size=(count, 3, SIDE, SIDE)).astype(np.float32)
    for index, image in enumerate(images):
        image.tofile(folder / f"img{index}.bin")
    means: np.ndarray = images.mean(axis=(2, 3))
    return means


# atc


@pytest.mark.usefixtures("model")
def test_atc_says_what_it_does_and_leaves_its_droppings(atc: Command, tmp_path: Path) -> None:
    result = atc()
    assert result.stdout.splitlines() == [
        "ATC start working now, please wait for a moment.",
        "ATC run success, welcome to the next use.",
    ]
    assert result.returncode == 0
    assert (tmp_path / "kernel_meta").is_dir()
    assert (tmp_path / "fusion_result.json").is_file()


@pytest.mark.usefixtures("compiled")
def test_the_om_has_the_documented_header_and_partitions(tmp_path: Path) -> None:
    content = (tmp_path / "net_bs2.om").read_bytes()
    assert content[:4] == b"IMOD"
    assert struct.unpack_from("<II", content, 4) == (256, 0x20000000)
    assert content[82] == 0
    assert content[84:116].rstrip(b"\0") == b"net_bs2"
    assert struct.unpack_from("<Q", content, 184)[0] + 256 == len(content)
    count = struct.unpack_from("<I", content, 256)[0]
    entries = [struct.unpack_from("<I4xQQ", content, 264 + 24 * index) for index in range(count)]
    assert 264 + 24 * count + sum(size for _, _, size in entries) == len(content)
    assert entries[0][:2] == (0, 0)


@pytest.mark.usefixtures("model")
def test_atc_can_name_its_file_after_the_platform(atc: Command, tmp_path: Path) -> None:
    atc(env={"STANDIN_ATC_SUFFIX": "1"})
    assert [path.name for path in tmp_path.glob("*.om")] == ["net_bs2_linux_x86_64.om"]


FREE = "actual_input_1:-1,3,4,4"
MANY = ",".join(map(str, range(1, 102)))
REFUSED_OPTIONS = {
    "unknown option": ({"colour": "red"}, "E10001"),
    "removed option": ({"auto_tune_mode": "RL,GA"}, "E10001"),
    "other framework": ({"framework": 0}, "E10001"),
    "chip without its prefix": ({"soc_version": "310P3"}, "E10001"),
    "unknown chip": ({"soc_version": "Ascend999"}, "E10001"),
    "missing chip": ({"soc_version": None}, "E10054"),
    "empty model": ({"model": ""}, "E10054"),
    "absent model": ({"model": "absent.onnx"}, "E10041"),
    "NHWC": ({"input_format": "NHWC"}, "E10001"),
    "unknown input": ({"input_shape": "data:2,3,4,4"}, "E10016"),
    "unknown half-precision input": ({"input_fp16_nodes": "data"}, "E10016"),
    "wrong rank": ({"input_shape": "actual_input_1:2,3,4"}, "E10001"),
    "wrong side": ({"input_shape": "actual_input_1:2,3,8,8"}, "E10001"),
    "batch of zero": ({"input_shape": "actual_input_1:0,3,4,4"}, "E10001"),
    "no batch size": ({"input_shape": None}, "E10001"),
    "shape that is none": ({"input_shape": "actual_input_1"}, "E10001"),
    "two precision modes": ({"precision_mode": "force_fp16", "precision_mode_v2": "fp16"}, "E10001"),
    "dynamic batch of static N": ({"dynamic_batch_size": "1,8"}, "E10001"),
    "free N without its sizes": ({"input_shape": FREE}, "E10001"),
    "dynamic batch of no numbers": ({"dynamic_batch_size": "1,x", "input_shape": FREE}, "E10001"),
    "dynamic batch of zero": ({"dynamic_batch_size": "0,8", "input_shape": FREE}, "E10001"),
    "one dynamic batch": ({"dynamic_batch_size": "8", "input_shape": FREE}, "E10035"),
    "too many dynamic batches": ({"dynamic_batch_size": MANY, "input_shape": FREE}, "E10036"),
    "small channel without AIPP": ({"enable_small_channel": 1}, "E10001"),
    "half-precision input under AIPP": (
        {"input_fp16_nodes": "actual_input_1", "insert_op_conf": "aipp.cfg"},
        "E10001",
    ),
    "absent AIPP file": ({"insert_op_conf": "absent.cfg"}, "E10041"),
    "output in no folder": ({"output": "absent/net"}, "E10001"),
}


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(("changes", "code"), REFUSED_OPTIONS.values(), ids=REFUSED_OPTIONS)
def test_atc_refuses_what_the_real_one_refuses(
    atc: Command, tmp_path: Path, changes: dict[str, object], code: str
) -> None:
    (tmp_path / "aipp.cfg").write_text(AIPP)
    result = atc(**changes)
    lines = result.stdout.splitlines()
    assert result.returncode != 0
    assert lines[1] == "ATC run failed, Please check the detail log, Try 'atc --help' for more information"
    assert lines[2].startswith(f"{code}: ")
    assert lines[3].strip().startswith("Solution: ")
    assert lines[4].strip() == "TraceBack (most recent call last):"
    assert not list(tmp_path.glob("*.om"))


QUANTIZE = [
    helper.make_node("Constant", [], ["scale"], value=helper.make_tensor("", TensorProto.FLOAT, [], [0.1])),
    helper.make_node("QuantizeLinear", ["actual_input_1", "scale"], ["x"]),
]
BAKED = [
    helper.make_node("Constant", [], ["shape"], value=helper.make_tensor("", TensorProto.INT64, [4], [1, 3, 4, 4])),
    helper.make_node("Reshape", ["actual_input_1", "shape"], ["x"]),
]
REFUSED_MODELS = {
    "int8 operator": ({"nodes": QUANTIZE}, "E19010"),
    "operator set too new": ({"opsets": [("", 19)]}, "E19010"),
    "operator set too old": ({"opsets": [("", 8)]}, "E19010"),
    "two operator set domains": ({"opsets": [("", 11), ("com.example", 1)]}, "E16005"),
    "batch size baked into the graph": ({"nodes": BAKED}, "EZ9999"),
}


@pytest.mark.parametrize(("changes", "code"), REFUSED_MODELS.values(), ids=REFUSED_MODELS)
def test_atc_refuses_models_that_the_real_one_refuses(
    atc: Command, tmp_path: Path, changes: dict[str, Any], code: str
) -> None:
    save_model(tmp_path / "net.onnx", **changes)
    result = atc()
    assert result.returncode != 0
    assert result.stdout.splitlines()[2].startswith(f"{code}: ")


def test_atc_sets_the_batch_size_of_a_file_that_says_one(atc: Command, tmp_path: Path, ais_bench: Command) -> None:
    save_model(tmp_path / "net.onnx", batch=1)
    means = save_images(tmp_path / "prep", 2)
    assert atc().returncode == 0
    ais_bench("--model=net_bs2.om", "--input=prep", "--output=out", "--output_dirname=r")
    written = np.fromfile(tmp_path / "out/r/img1_0.bin", np.float32)
    np.testing.assert_allclose(written, means[1], rtol=1e-5)


REFUSED_AIPP = {
    "colour conversion": ("csc_switch: false", "csc_switch: true"),
    "NV12 without its conversion": ("RGB888_U8", "YUV420SP_U8"),
    "another format": ("RGB888_U8", "XRGB8888_U8"),
    "another size": ("src_image_size_w: 4", "src_image_size_w: 8"),
    "dynamic mode": ("aipp_mode: static", "aipp_mode: dynamic"),
    "a field twice": ("min_chn_0: 123.675", "min_chn_0: 1 min_chn_0: 2"),
    "an unknown field": ("min_chn_0:", "min_channel_0:"),
    "a fractional mean": ("min_chn_0: 123.675", "mean_chn_0: 123.675"),
    "no prototxt": ("aipp_op {", "aipp_op ["),
}


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize(("old", "new"), REFUSED_AIPP.values(), ids=REFUSED_AIPP)
def test_atc_refuses_an_aipp_file_that_does_not_fit(atc: Command, tmp_path: Path, old: str, new: str) -> None:
    assert old in AIPP
    (tmp_path / "aipp.cfg").write_text(AIPP.replace(old, new))
    result = atc(insert_op_conf="aipp.cfg")
    assert result.returncode != 0
    assert result.stdout.splitlines()[2].startswith("E10001: ")


@pytest.mark.usefixtures("model")
def test_with_aipp_the_model_takes_uint8_pixels_channels_last(atc: Command, ais_bench: Command, tmp_path: Path) -> None:
    (tmp_path / "aipp.cfg").write_text(AIPP)
    assert atc(insert_op_conf="aipp.cfg", enable_small_channel=1).returncode == 0
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    (tmp_path / "prep").mkdir()
    for index, image in enumerate(pixels):
        image.tofile(tmp_path / f"prep/img{index}.bin")
    result = ais_bench("--model=net_bs2.om", "--input=prep", "--output=out", "--output_dirname=r")
    assert "files0 size:48 tensor0size:96 filesperbatch:2 runcount:1" in result.stdout
    expected = (pixels[1] / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    written = np.fromfile(tmp_path / "out/r/img1_0.bin", np.float32)
    # The chip holds the constants in float16.
    np.testing.assert_allclose(written, expected.mean(axis=(0, 1)), atol=2e-3)


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("field", ["matrix_r1c2: -183", "matrix_r0c1: 0", "input_bias_1: 128"])
def test_atc_refuses_nv12_without_its_whole_matrix(atc: Command, tmp_path: Path, field: str) -> None:
    (tmp_path / "aipp.cfg").write_text(YUV.replace(field, ""))
    result = atc(insert_op_conf="aipp.cfg")
    assert (result.returncode, field.split(":")[0] in result.stdout) == (255, True)


def test_atc_refuses_nv12_of_odd_sides(tmp_path: Path) -> None:
    (tmp_path / "aipp.cfg").write_text(YUV.replace("_w: 4", "_w: 5").replace("_h: 4", "_h: 5"))
    aipp = runpy.run_path(str(STANDINS / "aipp.py"))
    with pytest.raises(aipp["AippError"], match="it must be even"):
        aipp["read"](str(tmp_path / "aipp.cfg"), 5, 5)


@pytest.mark.usefixtures("model")
def test_with_nv12_the_model_takes_one_and_a_half_bytes_a_pixel(
    atc: Command, ais_bench: Command, tmp_path: Path
) -> None:
    (tmp_path / "aipp.cfg").write_text(YUV)
    assert atc(insert_op_conf="aipp.cfg", enable_small_channel=1).returncode == 0
    (tmp_path / "prep").mkdir()
    # Red: Y 76, U 85, V 255; 76 + 1.402 * 127 is 254.
    red = bytes([76] * SIDE * SIDE + [85, 255] * (SIDE * SIDE // 4))
    for name in ("img0", "img1"):
        (tmp_path / f"prep/{name}.bin").write_bytes(red)
    result = ais_bench("--model=net_bs2.om", "--input=prep", "--output=out", "--output_dirname=r")
    assert "files0 size:24 tensor0size:48 filesperbatch:2 runcount:1" in result.stdout
    expected = (np.array([254, 0, 0]) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(np.fromfile(tmp_path / "out/r/img1_0.bin", np.float32), expected, atol=2e-3)


# npu-smi


@pytest.mark.parametrize(
    ("machine", "row"),
    [
        ("310P3", ["0", "310P3", "OK", "15.8"]),
        ("alarm", ["0", "310P3", "Alarm", "15.8"]),
        ("dash", ["0", "310P3", "OK", "-"]),
        ("910B3", ["0", "910B3", "OK", "95.2"]),
        ("a3", ["0", "Ascend910", "OK", "182.0"]),
    ],
)
def test_npu_smi_shows_the_name_in_the_first_row_of_a_card(call: Command, machine: str, row: list[str]) -> None:
    result = call("npu-smi", "info", STANDIN_NPU=machine)
    lines = [re.split(r"[|\s]+", line)[1:5] for line in result.stdout.splitlines()]
    assert result.returncode == 0
    assert row in lines
    assert ("Device" in result.stdout) == (machine in ("310P3", "alarm", "dash"))


def test_npu_smi_tells_the_exact_chip_of_an_a3_by_its_board(call: Command) -> None:
    result = call("npu-smi", "info", "-t", "board", "-i", "0", "-c", "0", STANDIN_NPU="a3")
    fields = dict(re.split(r"\s*:\s*", line.strip()) for line in result.stdout.splitlines())
    assert (fields["Chip Name"], fields["NPU Name"]) == ("Ascend910", "9392")


def test_npu_smi_fails_where_there_is_no_card(call: Command) -> None:
    assert call("npu-smi", "info", STANDIN_NPU="none").returncode != 0


def test_sourcing_the_toolkit_puts_the_programs_on_the_path(call: Command) -> None:
    script = 'source "$1" && command -v atc && echo "$ASCEND_TOOLKIT_HOME"'
    result = call("bash", "-c", script, "bash", str(STANDINS / "ascend-toolkit" / "set_env.sh"), PATH="/usr/bin:/bin")
    assert result.stdout.splitlines() == [str(STANDINS / "bin" / "atc"), str(STANDINS / "ascend-toolkit")]


# ais_bench: results


@pytest.mark.usefixtures("compiled")
def test_the_last_batch_is_filled_and_only_real_samples_are_written(ais_bench: Command, tmp_path: Path) -> None:
    means = save_images(tmp_path / "prep", 3)
    result = ais_bench("--model=net_bs2.om", "--input=./prep", "--output=./out", "--output_dirname=r", "--outfmt=NPY")
    assert result.returncode == 0, result.stderr
    summary = json.loads((tmp_path / "out/r_summary.json").read_text())
    assert [entry["infiles"] for entry in summary["filesinfo"].values()] == [[f"./prep/img{i}.bin"] for i in range(3)]
    assert [entry["outfiles"] for entry in summary["filesinfo"].values()] == [
        [f"./out/r/img{i}_0.npy"] for i in range(3)
    ]
    assert sorted(path.name for path in (tmp_path / "out/r").iterdir()) == [f"img{i}_0.npy" for i in range(3)]
    for index in range(3):
        np.testing.assert_allclose(np.load(tmp_path / f"out/r/img{index}_0.npy"), means[index : index + 1], rtol=1e-5)
    assert summary["NPU_compute_time"]["count"] == 2


@pytest.mark.usefixtures("compiled")
def test_inputs_are_bin_and_npy_files_in_natural_order(ais_bench: Command, tmp_path: Path) -> None:
    folder = tmp_path / "prep"
    folder.mkdir()
    for name in ("img10.bin", "img2.BIN", ".hidden1.bin", "tensors.json", "half.bin.part"):
        (folder / name).write_bytes(bytes(IMAGE_BYTES))
    np.save(folder / "img1.npy", np.zeros((3, SIDE, SIDE), np.float32))
    ais_bench("--model=net_bs2.om", "--input=prep", "--output=out", "--output_dirname=r")
    filesinfo = json.loads((tmp_path / "out/r_summary.json").read_text())["filesinfo"]
    names = [os.path.basename(entry["infiles"][0]) for entry in filesinfo.values()]
    assert names == [".hidden1.bin", "img1.npy", "img2.BIN", "img10.bin"]


@pytest.mark.usefixtures("compiled")
def test_output_names_are_cut_at_the_first_dot(ais_bench: Command, tmp_path: Path) -> None:
    save_images(tmp_path / "prep", 1)
    (tmp_path / "prep/img0.bin").rename(tmp_path / "prep/a.b.c.bin")
    ais_bench("--model=net_bs2.om", "--input=prep", "--output=out", "--output_dirname=r")
    assert [path.name for path in (tmp_path / "out/r").iterdir()] == ["a_0.bin"]


@pytest.mark.usefixtures("compiled")
def test_batchsize_changes_the_throughput_and_nothing_else(ais_bench: Command, tmp_path: Path) -> None:
    save_images(tmp_path / "prep", 3)
    (tmp_path / "out").mkdir(mode=0o750)
    for size in ("2", "8"):
        ais_bench(
            "--model=net_bs2.om", "--input=prep", "--output=out", f"--output_dirname=r{size}", "--batchsize", size
        )
        summary = json.loads((tmp_path / f"out/r{size}_summary.json").read_text())
        assert summary["throughput"] == pytest.approx(1000 * int(size) / summary["NPU_compute_time"]["mean"])
        assert summary["NPU_compute_time"]["count"] == 2


@pytest.mark.usefixtures("compiled")
def test_loop_repeats_the_computation_and_copies_once(ais_bench: Command, tmp_path: Path) -> None:
    save_images(tmp_path / "prep", 3)
    ais_bench("--model=net_bs2.om", "--input=prep", "--output=out", "--output_dirname=r", "--loop=5")
    summary = json.loads((tmp_path / "out/r_summary.json").read_text())
    assert summary["NPU_compute_time"]["count"] == len(summary["npu_compute_time_list"]) == 10
    assert summary["H2D_latency"]["count"] == 2


@pytest.mark.usefixtures("compiled")
def test_without_output_nothing_is_written(ais_bench: Command, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    assert ais_bench("--model=net_bs2.om", "--loop=3", "--pure_data_type=random").returncode == 0
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.usefixtures("compiled")
def test_every_device_gets_a_folder_and_a_summary(ais_bench: Command, tmp_path: Path) -> None:
    save_images(tmp_path / "prep", 3)
    ais_bench("--model=net_bs2.om", "--input=prep", "--output=out", "--output_dirname=r", "--device=0,1")
    names = sorted(path.name for path in (tmp_path / "out/r").iterdir())
    assert names == ["device0_0", "device0_0_summary.json", "device1_1", "device1_1_summary.json"]
    assert len(list((tmp_path / "out/r/device1_1").iterdir())) == 3


@pytest.mark.usefixtures("compiled")
def test_a_pipeline_run_lists_no_files(ais_bench: Command, tmp_path: Path) -> None:
    folder = tmp_path / "prep"
    folder.mkdir()
    (folder / "pair.bin").write_bytes(bytes(2 * IMAGE_BYTES))
    ais_bench("--model=net_bs2.om", "--input=prep", "--output=out", "--output_dirname=r", "--pipeline=1")
    assert json.loads((tmp_path / "out/r_summary.json").read_text())["filesinfo"] == {}


@pytest.mark.usefixtures("compiled")
def test_the_python_api_runs_arrays_and_tells_times(tmp_path: Path, call: Command) -> None:
    program = """
import numpy as np
from ais_bench.infer.interface import InferSession
session = InferSession(0, "net_bs2.om")
for tensor in (*session.get_inputs(), *session.get_outputs()):
    print(tensor.name, list(tensor.shape), tensor.datatype, tensor.size)
ones = np.ones((2, 3, 4, 4), np.float32)
print(session.infer([ones])[0].tolist(), len(session.summary().exec_time_list))
session.reset_summaryinfo()
print(len(session.summary().exec_time_list))
session.free_resource()
"""
    assert call(sys.executable, "-c", program).stdout.splitlines()[-4:] == [
        "actual_input_1 [2, 3, 4, 4] dtype.float32 384",
        "output1 [2, 3] dtype.float32 24",
        "[[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]] 1",
        "0",
    ]


# ais_bench: refusals


REFUSED = [
    (["--colour=red"], 2),
    (["--outf=TXT"], 2),
    (["--outfmt=CSV"], 2),
    (["--loop=0"], 2),
    (["--loop=100001"], 2),
    (["--threads=2"], 2),
    (["--display_all_summary"], 2),
    (["--output_dirname=r"], 2),
    (["--output=out", "--output_dirname=/r"], 1),
    (["--output=out", "--output_dirname=two words"], 2),
    (["--output=./"], 2),
    (["--input=empty"], 1),
    (["--input=absent"], 2),
    (["--model=net.onnx"], 2),
    (["--model=absent.om"], 2),
    (["--model=link.om"], 2),
    (["--model=shared.om"], 2),
]
REFUSED_BY_THE_NEW_ONE = [
    (["--output=out", "--output_dirname=r"], 2),
    (["--divide-input=1"], 2),
    (["--divide-input", "1"], 2),
    (["--model=link.om"], 1),
    (["--output=./"], 1),
    (["--loop=100001"], 1),
]


@pytest.fixture
def refusable(compiled: None, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "empty").mkdir()
    (tmp_path / "link.om").symlink_to("net_bs2.om")
    (tmp_path / "shared.om").write_bytes((tmp_path / "net_bs2.om").read_bytes())
    (tmp_path / "shared.om").chmod(0o664)


@pytest.mark.usefixtures("refusable")
@pytest.mark.parametrize(("options", "code"), REFUSED, ids=str)
def test_the_client_refuses_options_and_paths(
    ais_bench: Command, tmp_path: Path, options: list[str], code: int
) -> None:
    assert ais_bench("--model=net_bs2.om", *options).returncode == code
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("refusable")
@pytest.mark.parametrize("standins", ["0.1.0"], indirect=True)
@pytest.mark.parametrize(("options", "code"), REFUSED_BY_THE_NEW_ONE, ids=str)
def test_the_new_client_refuses_options_in_a_box_and_paths_with_a_traceback(
    ais_bench: Command, tmp_path: Path, options: list[str], code: int
) -> None:
    result = ais_bench("--model=net_bs2.om", *options)
    assert result.returncode == code
    assert ("╭─ Error" in result.stderr, "Traceback" in result.stderr) == (code == 2, code == 1)
    assert (result.stderr.splitlines()[-1][0] == "╰") == (code == 2)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("standins", ["0.1.0"], indirect=True)
def test_the_new_client_writes_the_same_files_and_a_summary_with_other_names(
    ais_bench: Command, tmp_path: Path
) -> None:
    means = save_images(tmp_path / "prep", 3)
    options = ["--output-dirname=r", "--outfmt=NPY", "--display-all-summary", "--device=0,1", "--divide-input"]
    result = ais_bench("--model=net_bs2.om", "--input=prep", "--output=out", *options)
    assert result.returncode == 0, result.stderr
    np.testing.assert_allclose(np.load(tmp_path / "out/r/device1_1/img2_0.npy"), means[2:], rtol=1e-5)
    times = json.loads((tmp_path / "out/r/device0_0_summary.json").read_text())["NPU_compute_time"]
    assert list(times) == ["min", "max", "mean", "median", "P99", "count"]
    assert "│ Metric" in result.stdout
    assert "[INFO] Throughput 1000*batchsize.mean(2)/NPU_compute_time.mean(" in result.stdout


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("name", ["img (1).bin", "notes (1).txt", "link.bin", "open.bin"])
def test_all_that_lies_in_a_folder_is_held_to_the_rules(ais_bench: Command, tmp_path: Path, name: str) -> None:
    save_images(tmp_path / "prep", 2)
    (tmp_path / "prep/x.bin").mkdir()
    assert ais_bench("--model=net_bs2.om", "--input=prep").returncode == 0
    path = tmp_path / "prep" / name
    path.symlink_to("img0.bin") if name == "link.bin" else path.touch()
    if name == "open.bin":
        path.chmod(0o666)
    result = ais_bench("--model=net_bs2.om", "--input=prep")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("RuntimeError: ")


@pytest.mark.usefixtures("compiled")
def test_the_absolute_path_counts_and_links_on_the_way_do_not(call: Command, tmp_path: Path) -> None:
    save_images(tmp_path / "prep", 2)
    (tmp_path / "linked").symlink_to(tmp_path)
    client = [sys.executable, "-m", "ais_bench"]
    result = call(*client, "--model=linked/net_bs2.om", "--input=linked/prep")
    assert result.returncode == 0, result.stdout
    (tmp_path / "a b").mkdir()
    (tmp_path / "net_bs2.om").rename(tmp_path / "a b/net_bs2.om")
    command = f"cd 'a b' && exec {' '.join(client)} --model=net_bs2.om"
    assert call("bash", "-c", command).returncode == 2


@pytest.mark.usefixtures("compiled")
def test_a_device_that_fails_leaves_a_line_and_the_other_its_results(call: Command, tmp_path: Path) -> None:
    options = ["--model=net_bs2.om", "--output=out", "--output_dirname=r", "--device=0,1"]
    result = call(sys.executable, "-m", "ais_bench", *options, STANDIN_BROKEN_DEVICE="1")
    assert result.returncode == 1
    assert "[ERROR] open device 1 failed, errorCode is 507033" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("[INFO] summary throughput:")
    assert [path.name for path in (tmp_path / "out/r").glob("*.json")] == ["device0_0_summary.json"]


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize(("mode", "code"), [(0o755, 2), (0o770, 2), (0o750, 0), (0o700, 0)])
def test_an_output_folder_must_be_0750_or_stricter(ais_bench: Command, tmp_path: Path, mode: int, code: int) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out").chmod(mode)
    assert ais_bench("--model=net_bs2.om", "--output=out", "--output_dirname=r").returncode == code


@pytest.mark.usefixtures("compiled")
def test_files_that_do_not_fill_the_tensor_are_refused(ais_bench: Command, tmp_path: Path) -> None:
    folder = tmp_path / "prep"
    folder.mkdir()
    (folder / "a.bin").write_bytes(bytes(100))
    result = ais_bench("--model=net_bs2.om", "--input=prep")
    assert "[ERROR] arg0 tensorsize: 384 filesize: 100 not match" in result.stdout
    assert result.returncode == 1


@pytest.mark.usefixtures("compiled")
def test_a_cut_model_is_refused(ais_bench: Command, tmp_path: Path) -> None:
    path = tmp_path / "net_bs2.om"
    path.write_bytes(path.read_bytes()[:-1])
    result = ais_bench("--model=net_bs2.om")
    assert "[ERROR] load model from file failed" in result.stdout
    assert result.returncode == 1


# ResNeSt.infer, which becomes the client


@pytest.fixture
def infer(call: Command) -> Command:
    """Runs it as a user types it for 0.0.2, whichever client there is."""

    def run(*options: str, **extra: str) -> Completed:
        extra = {"PYTHONPATH": f"{PROJECT}{os.pathsep}{extra.pop('path')}", **extra}
        flags = ["--model=net_bs2.om", "--output=out", "--output_dirname=r", "--display_all_summary", "1", *options]
        return call(sys.executable, "-m", "ResNeSt.infer", *flags, **extra)

    return run


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("standins", CLIENTS, indirect=True)
def test_infer_says_it_as_the_client_has_it(infer: Command, standins: dict[str, str], tmp_path: Path) -> None:
    save_images(tmp_path / "prep", 2)
    result = infer("--input=prep", "--outfmt", "TXT", path=standins["PYTHONPATH"])
    assert result.returncode == 0, result.stderr
    assert "H2D_latency" in result.stdout
    assert (tmp_path / "out/r/img1_0.txt").is_file()


@pytest.mark.usefixtures("compiled")
def test_infer_names_what_the_client_would_refuse_and_what_it_cannot_load(
    infer: Command, standins: dict[str, str], tmp_path: Path
) -> None:
    save_images(tmp_path / "prep", 2)
    (tmp_path / "prep/img (1).bin").touch()
    result = infer("--input=prep", path=standins["PYTHONPATH"])
    assert_refused(result, "prep/img (1).bin: ais_bench takes only letters, digits")
    bare = {"STANDIN_LIBRARY": "needed", "LD_LIBRARY_PATH": "", "path": standins["PYTHONPATH"]}
    assert_refused(infer(**bare), "net_bs2.om: libascendcl.so is not found", "set_env.sh", code=3)
    toolkit = {"ASCEND_TOOLKIT_HOME": str(STANDINS / "ascend-toolkit")}
    assert infer(**bare, **toolkit).returncode == 0


# ais_bench: the real client's files


@pytest.fixture
def golden(shared: Path) -> Path:
    return shared / "golden" / "ais_bench"


@pytest.fixture
def like_golden(ais_bench: Command, compiled: None, tmp_path: Path) -> str:
    """The command of the golden run: tensors from a folder in batches, text outputs."""
    save_images(tmp_path / "prep", 3)
    (tmp_path / "out").mkdir(mode=0o750)
    options = ["--output=./out", "--output_dirname=result_bs4", "--batchsize=4", "--outfmt", "TXT"]
    result = ais_bench("--model=net_bs2.om", "--input=./prep", *options)
    return result.stdout


def without_numbers(text: str) -> list[str]:
    """The log lines, with every name and number that belongs to one run replaced."""
    lines = [line for line in text.splitlines() if line.startswith("[INFO]")]
    return [re.sub(r"-?\d+(\.\d+)?(e-?\d+)?", "#", re.sub(r"\S+\.om", "MODEL", line)) for line in lines]


def test_log_lines_are_the_real_clients(like_golden: str, golden: Path) -> None:
    assert without_numbers(like_golden) == without_numbers((golden / "stdout_bs4.txt").read_text())


@pytest.mark.usefixtures("compiled")
def test_log_lines_of_a_pure_loop_are_the_real_clients(ais_bench: Command, golden: Path) -> None:
    result = ais_bench("--model=net_bs2.om", "--loop=20", "--batchsize=4", "--output=./out", "--output_dirname=pure")
    assert without_numbers(result.stdout) == without_numbers((golden / "stdout_loop.txt").read_text())


def shape_of(value: object) -> object:
    """Keys and types of a JSON value."""
    if isinstance(value, dict):
        return {key: shape_of(entry) for key, entry in value.items()}
    return type(value).__name__


@pytest.mark.usefixtures("like_golden")
def test_the_summary_has_the_real_ones_keys_in_order(tmp_path: Path, golden: Path) -> None:
    real = json.loads((golden / "result_bs4_summary.json").read_text())
    ours = json.loads((tmp_path / "out/result_bs4_summary.json").read_text())
    real["filesinfo"] = {key: real["filesinfo"][key] for key in ours["filesinfo"]}
    assert list(ours) == list(real)
    assert shape_of(ours) == shape_of(real)


@pytest.mark.usefixtures("compiled")
def test_the_summary_of_a_pure_loop_counts_as_the_real_one(ais_bench: Command, tmp_path: Path, golden: Path) -> None:
    ais_bench("--model=net_bs2.om", "--loop=20", "--batchsize=4", "--output=./out", "--output_dirname=pure")
    real = json.loads((golden / "pure_summary.json").read_text())
    ours = json.loads((tmp_path / "out/pure_summary.json").read_text())
    assert ours["filesinfo"] == real["filesinfo"]
    assert ours["args"][1:] == ["--model=net_bs2.om", *real["args"][2:]]
    assert [ours[key]["count"] for key in ("NPU_compute_time", "H2D_latency")] == [20, 1]


@pytest.mark.usefixtures("like_golden")
def test_text_outputs_are_formatted_as_the_real_ones(tmp_path: Path, golden: Path) -> None:
    one_row = re.compile(r"(-?\d+\.\d{6} )+\n")
    assert one_row.fullmatch((golden / "result_bs4/ILSVRC2012_val_00000001_0.txt").read_text())
    assert one_row.fullmatch((tmp_path / "out/result_bs4/img0_0.txt").read_text())
