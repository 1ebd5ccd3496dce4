"""Stage 3: simplify and compile, for an Ascend chip (by the stand-in compiler) and for the CPU."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from ResNeSt.common import cann
from ResNeSt.common.errors import ArgumentError, MissingRuntimeError, PipelineError
from ResNeSt.common.files import alone, sha256
from ResNeSt.convert import __main__ as convert
from ResNeSt.convert import atc, calibration, openvino_ir, simplify, targets
from ResNeSt.convert.conversion import _is_own_int8
from ResNeSt.models import onnx_file, sidecar
from ResNeSt.models.cards import card
from tests.conftest import PROJECT, STANDINS, assert_refused, call

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("torch")
onnxsim = pytest.importorskip("onnxsim")

SIZE = 96
# The untrained network's logits reach 0.06; float32 rounding moves them by some 1e-8, a scale off by 0.4 % by 1.5e-5.
ROUNDING = 1e-6
PIXELS = np.random.default_rng(0).integers(0, 256, (8, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from ResNeSt.export.to_onnx import export

    path = tmp_path_factory.mktemp("exported") / "demo.onnx"
    export(card("resnest_demo"), None, path, SIZE)
    return path


@pytest.fixture
def folder(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: demo.onnx and nothing else."""
    home = tmp_path / "a folder"
    home.mkdir()
    shutil.copy(exported, home)
    monkeypatch.chdir(home)
    return home


@pytest.fixture
def no_ascend(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without CANN, whatever this one has."""
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    monkeypatch.setattr(cann, "set_env_scripts", lambda: iter(()))


@pytest.fixture
def ascend(standins: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with CANN on PATH and a chip."""
    for name, value in standins.items():
        monkeypatch.setenv(name, value)


def run(*arguments: str) -> None:
    assert convert.main([*arguments, "--onnx", "demo.onnx"]) == 0


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def normalised(pixels: np.ndarray) -> np.ndarray:
    """uint8 NHWC -> float32 NCHW, as the demo network takes it."""
    demo = card("resnest_demo")
    scaled = (pixels / 255 - np.array(demo.mean)) / np.array(demo.std)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), dtype=np.float32)


def onnx_logits(path: Path | str, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    logits: np.ndarray = session.run(None, {"actual_input_1": images})[0]
    return logits


def openvino_model(path: str) -> Any:
    return openvino_ir.import_openvino().Core().read_model(path)


def openvino_logits(path: str, images: np.ndarray) -> np.ndarray:
    core = openvino_ir.import_openvino().Core()
    logits: np.ndarray = core.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(images)[0]
    return logits


def older(path: str) -> None:
    """Makes a file an hour older."""
    time = os.stat(path).st_mtime - 3600
    os.utime(path, (time, time))


# --- arguments


@pytest.mark.parametrize(("text", "batches"), [("1", [1]), ("1,4,8", [1, 4, 8]), ("8,1,8,1", [8, 1]), ("016", [16])])
def test_batch_sizes_are_read_in_order_without_duplicates(text: str, batches: list[int]) -> None:
    assert targets.parse_batches(text) == batches


@pytest.mark.parametrize("text", ["", "0", "1,", "-1", "1.5", "1 4", "310P3", "²", "1,x"])
def test_anything_else_for_batch_sizes_is_refused(text: str) -> None:
    with pytest.raises(ArgumentError, match="batch sizes must be whole numbers above 0, like 1,4,8"):
        targets.parse_batches(text)


def test_compiled_files_are_named_after_the_onnx_file_and_the_batch_size() -> None:
    assert targets.compiled_name("resnest50", 8, "310P3") == "resnest50_bs8.om"
    assert targets.compiled_name("resnest50", 8, "cpu") == "resnest50_bs8.xml"


def test_a_missing_onnx_file_is_named(folder: Path) -> None:
    with pytest.raises(PipelineError, match=r"other\.onnx: no such file; make it with resnest_pth2onnx\.py"):
        convert.main(["1", "cpu", "--onnx", "other.onnx"])


# --- simplified ONNX


def test_a_network_in_the_place_of_another_one_is_simplified_anew_however_old_its_file_is(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("1", "cpu")
    model = onnx.load("demo.onnx")
    model.doc_string = "another"
    onnx.save(model, "demo.onnx")
    os.utime("demo.onnx", (0, 0))
    run("1", "cpu")
    assert capsys.readouterr().out.count("demo_sim.onnx: simplified from demo.onnx") == 2
    os.utime("demo_sim.onnx", (0, 0))
    run("1", "cpu")
    assert capsys.readouterr().out.splitlines() == ["demo_bs1.xml: up to date"]


def test_the_simplified_file_keeps_batch_axis_opset_metadata_and_answers(folder: Path) -> None:
    simplify.simplify(Path("demo.onnx"), Path("demo_sim.onnx"))
    before, after = onnx.load("demo.onnx"), onnx.load("demo_sim.onnx")
    assert after.graph.input == before.graph.input
    assert after.graph.output == before.graph.output
    assert [(entry.domain, entry.version) for entry in after.opset_import] == [("", 11)]
    assert list(after.metadata_props)[:-2] == list(before.metadata_props)
    told = {entry.key: entry.value for entry in after.metadata_props[-2:]}
    graph = hashlib.sha256(after.graph.SerializeToString()).hexdigest()
    assert told == {"graph_sha256": graph, "simplified_from": sha256("demo.onnx")}
    for batch in (1, 5):
        images = normalised(PIXELS[:batch])
        np.testing.assert_allclose(
            onnx_logits("demo_sim.onnx", images), onnx_logits("demo.onnx", images), atol=ROUNDING
        )


def damage(path: Path) -> bytes:
    """Changes a weight; returns the content."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)
    return bytes(content)


def test_a_simplified_file_that_is_not_as_it_was_left_is_neither_taken_nor_written_over(folder: Path) -> None:
    simplify.simplify(Path("demo.onnx"), Path("demo_sim.onnx"))
    content = damage(Path("demo_sim.onnx"))
    with pytest.raises(PipelineError, match=r"^demo_sim\.onnx: is not as convert\.sh left it, damaged or edited"):
        run("1", "cpu")
    assert Path("demo_sim.onnx").read_bytes() == content


@pytest.mark.parametrize("chip", ["cpu", "310P3"])
def test_an_int8_file_is_known_for_what_convert_sh_left_until_a_weight_differs(folder: Path, chip: str) -> None:
    model, path = onnx.load("demo.onnx"), Path("demo_int8.onnx")
    model.metadata_props.add(key=calibration.QUANTIZED, value="")
    onnx_file.seal(model)
    onnx.save(model, path)
    sidecar.write(path, {calibration.QUANTIZED: "", "sha256": sha256(path)})
    assert _is_own_int8(path, chip)
    damage(path)
    assert not _is_own_int8(path, chip)


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("demo_aipp.cfg", ["1", "310P3", "--dtype=uint8"]),
        ("demo_int8.onnx", ["1", "cpu", "--precision=int8"]),
        ("demo_int8_deploy_model.onnx", ["1", "310P3", "--precision=int8"]),
    ],
)
def test_a_file_of_the_user_s_in_the_place_of_one_on_the_way_is_kept(
    folder: Path, ascend: None, name: str, flags: list[str]
) -> None:
    Path(name).write_text("mine")
    with pytest.raises(PipelineError, match=rf"^{name}: is not .*; --force replaces it, --output names another"):
        run(*flags)
    assert Path(name).read_text() == "mine"


def test_an_aipp_file_is_written_anew_for_a_network_of_another_mean_and_not_over_an_edited_one(
    folder: Path, ascend: None
) -> None:
    run("1", "310P3", "--dtype=uint8")
    model = onnx.load("demo.onnx")
    onnx.helper.set_model_props(model, {**read_metadata("demo.onnx"), "resnest.mean": "[0.5, 0.5, 0.5]"})
    onnx.save(model, "demo.onnx")
    run("1", "310P3", "--dtype=uint8")
    written = Path("demo_aipp.cfg").read_text()
    assert "min_chn_0: 127.5" in written
    Path("demo_aipp.cfg").write_text(written.replace("127.5", "128"))
    with pytest.raises(PipelineError, match=r"^demo_aipp\.cfg: is not what convert\.sh writes for demo_sim\.onnx"):
        run("1", "310P3", "--dtype=uint8")


def test_what_onnxsim_s_own_command_wrote_is_made_again_only_when_older_than_its_source(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    simplified, same = onnxsim.simplify(onnx.load("demo.onnx"))
    assert same
    onnx.save(simplified, "demo_sim.onnx")
    run("1", "cpu")
    assert "simplified" not in capsys.readouterr().out
    older("demo_sim.onnx")
    run("1", "cpu")
    assert "demo_sim.onnx: simplified" in capsys.readouterr().out


@pytest.mark.parametrize("result", ["wrong answers", "crash"])
def test_a_failed_simplification_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch, result: str) -> None:
    import onnxsim

    def fails(model: Any, **_options: Any) -> tuple[Any, bool]:
        if result == "crash":
            raise RuntimeError("bad graph")
        other = onnx.ModelProto()
        other.CopyFrom(model)
        bias = next(value for value in other.graph.initializer if value.name == "fc.bias")
        bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(1e3), "fc.bias"))
        return other, False

    monkeypatch.setattr(onnxsim, "simplify", fails)
    with pytest.raises(
        PipelineError, match=r"demo\.onnx: (onnxsim failed: bad graph|the simplified graph gives other)"
    ):
        run("1", "cpu")
    assert names(folder) == {"demo.onnx"}


def test_a_graph_that_onnxsim_finds_to_differ_on_noise_is_taken_where_both_answer_pictures_alike(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxsim, "simplify", lambda model, **_options: (model, False))
    simplify.simplify(Path("demo.onnx"), Path("demo_sim.onnx"))
    assert Path("demo_sim.onnx").is_file()


def test_without_onnxsim_the_command_and_the_file_to_copy_are_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxsim", None)
    with pytest.raises(MissingRuntimeError) as caught:
        convert.main(["1", "310P3", "--onnx", "demo.onnx", "--output-dir", "out"])
    assert "`python3 -m onnxsim demo.onnx demo_sim.onnx` and copy demo_sim.onnx, with the" in str(caught.value)
    assert "the demo_sim.onnx.data that it may write beside it, to out" in str(caught.value)


def test_without_onnxsim_a_simplified_file_is_used_with_or_without_its_source(
    folder: Path, monkeypatch: pytest.MonkeyPatch, ascend: None
) -> None:
    simplify.simplify(Path("demo.onnx"), Path("demo_sim.onnx"))
    monkeypatch.setitem(sys.modules, "onnxsim", None)
    run("1", "310P3")
    os.unlink("demo.onnx")
    run("2", "310P3")
    assert {"demo_bs1.om", "demo_bs2.om"} <= names(folder)


def test_without_onnxsim_the_simplified_file_beside_the_onnx_file_serves_every_output_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, ascend: None
) -> None:
    simplify.simplify(Path("demo.onnx"), Path("demo_sim.onnx"))
    before = Path("demo_sim.onnx").read_bytes()
    monkeypatch.setitem(sys.modules, "onnxsim", None)
    run("1", "310P3", "--dtype", "uint8", "--output", "uint8")
    run("1", "310P3", "--output", "uint8", "--force")
    assert {"demo_bs1.om", "demo_bs1.om.json"} <= names(folder / "uint8")
    assert "demo_sim.onnx" not in names(folder / "uint8")
    assert Path("demo_sim.onnx").read_bytes() == before
    os.unlink("demo_sim.onnx")
    with pytest.raises(PipelineError, match=r"^\d of \d+ checks fail: onnxsim"):
        run("1", "310P3", "--output", "new", "--check")


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        (["N", 3, 96, 96], "UINT8", r"images uint8 \['N', 3, 96, 96\]\], expected one of float32 \[N, 3"),
        (["N", 96, 96, 3], "FLOAT", "expected one of float32"),
        (["N", 3, "H", "W"], "FLOAT", "expected one of float32"),
    ],
    ids=["uint8", "NHWC", "free size"],
)
def test_a_network_that_takes_something_else_is_refused(
    tmp_path: Path, shape: list[int | str], dtype: str, message: str
) -> None:
    images = onnx.helper.make_tensor_value_info("images", getattr(onnx.TensorProto, dtype), shape)
    node = onnx.helper.make_node("Identity", ["images"], ["output"])
    output = onnx.helper.make_tensor_value_info("output", getattr(onnx.TensorProto, dtype), shape)
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "graph", [images], [output]))
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(PipelineError, match=message):
        onnx_file.read(tmp_path / "other.onnx")


def test_an_onnx_file_without_metadata_has_no_mean_and_std(exported: Path, tmp_path: Path) -> None:
    model = onnx.load(exported)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "bare.onnx")
    found = onnx_file.read(tmp_path / "bare.onnx")
    assert (found.mean, found.std, found.info) == (None, None, {})


def test_metadata_that_make_no_sense_are_refused(exported: Path, tmp_path: Path) -> None:
    model = onnx.load(exported)
    onnx.helper.set_model_props(model, {"resnest.mean": "[1, 2]"})
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(PipelineError, match=r"odd\.onnx: its metadata says mean '\[1, 2\]', expected three numbers"):
        onnx_file.read(tmp_path / "odd.onnx")


# --- cpu


def test_the_cpu_model_has_a_static_batch_and_the_answers_of_the_export(folder: Path) -> None:
    pytest.importorskip("openvino")
    run("1,4", "cpu")
    for batch in (1, 4):
        images = normalised(PIXELS[:batch])
        model = openvino_model(f"demo_bs{batch}.xml")
        assert list(model.input("actual_input_1").shape) == [batch, 3, SIZE, SIZE]
        found = openvino_logits(f"demo_bs{batch}.xml", images)
        assert found.shape == (batch, 10)
        np.testing.assert_allclose(found, onnx_logits("demo.onnx", images), atol=ROUNDING)


def test_the_uint8_cpu_model_takes_bare_pixels_and_gives_the_same_answers(folder: Path) -> None:
    pytest.importorskip("openvino")
    run("4", "cpu", "--dtype", "uint8")
    images = openvino_model("demo_bs4.xml").input("actual_input_1")
    assert (list(images.shape), images.element_type.get_type_name()) == ([4, SIZE, SIZE, 3], "u8")
    found = openvino_logits("demo_bs4.xml", PIXELS[:4])
    np.testing.assert_allclose(found, onnx_logits("demo.onnx", normalised(PIXELS[:4])), atol=ROUNDING)


def test_a_cpu_model_is_the_same_file_whatever_was_compiled_before_it(folder: Path) -> None:
    pytest.importorskip("openvino")
    run("1,2", "cpu")
    before = Path("demo_bs2.xml").read_bytes()
    run("2", "cpu", "--force")
    assert Path("demo_bs2.xml").read_bytes() == before


def test_the_cpu_model_says_what_it_is(folder: Path) -> None:
    pytest.importorskip("openvino")
    run("2", "cpu", "--precision", "bf16")
    info = openvino_model("demo_bs2.xml").get_rt_info(["resnest"]).astype(dict)
    source = {key.split(".", 1)[1]: value for key, value in read_metadata("demo.onnx").items()}
    sha256 = subprocess.run(["sha256sum", "demo_sim.onnx"], capture_output=True, text=True).stdout.split()[0]
    assert {key: value.astype(str) for key, value in info.items()} == {**source, "precision": "bf16", "source": sha256}
    assert source["model"] == "resnest_demo"


def read_metadata(path: str) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def test_a_cpu_model_that_does_not_run_leaves_nothing_not_even_the_last_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    run("1", "cpu")

    def fails(*_arguments: object) -> NoReturn:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(openvino_ir, "_try", fails)
    with pytest.raises(PipelineError, match=r"demo_bs1\.xml: OpenVINO cannot compile .*out of luck"):
        run("1", "cpu", "--force")
    assert not names(folder) & {"demo_bs1.xml", "demo_bs1.xml.json"}


def test_no_runtime_starts_its_telemetry_or_leaves_an_id_at_home(folder: Path) -> None:
    pytest.importorskip("openvino")
    home = folder / "home"
    home.mkdir()
    code = (
        "import sys; from ResNeSt.convert.__main__ import main; main(['1', 'cpu', '--onnx', 'demo.onnx'])\n"
        "assert sys.modules['openvino'] and sys.modules['onnxruntime'] and not sys.modules['openvino_telemetry']"
    )
    # Both runtimes keep quiet where they find themselves in a continuous-integration job.
    kept = {key: value for key, value in os.environ.items() if key in ("PATH", "VIRTUAL_ENV")}
    environment = {**kept, "HOME": str(home), "PYTHONPATH": str(PROJECT)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, cwd=folder)
    assert names(home) == set()


# --- up to date, for either kind


def compiled(out: str) -> bool:
    return "up to date" not in out


@pytest.mark.parametrize("chip", ["cpu", "310P3"])
def test_nothing_is_compiled_again_until_source_options_or_files_change(
    folder: Path, capsys: pytest.CaptureFixture[str], ascend: None, chip: str
) -> None:
    if chip == "cpu":
        pytest.importorskip("openvino")
    target = targets.compiled_name("demo", 2, chip)

    def again(*options: str) -> bool:
        capsys.readouterr()
        run("2", chip, *options)
        return compiled(capsys.readouterr().out)

    assert again()
    assert not again()
    assert again("--force")
    assert again("--dtype", "uint8", "--force")
    assert not again("--dtype", "uint8")
    with pytest.raises(
        PipelineError, match=rf"^{target}: was compiled for dtype uint8, not dtype float32; --force repl"
    ):
        again()
    assert not again("--dtype", "uint8")
    assert again("--force")
    model = onnx.load("demo.onnx")
    onnx.helper.set_model_props(model, {"resnest.model": "another"})
    onnx.save(model, "demo.onnx")
    assert again()
    assert not again()
    with open(target, "ab") as file:
        file.write(b" ")
    assert again()
    Path(target + ".json").write_text("{")
    with pytest.raises(
        PipelineError, match=rf"^{target}: no {target}\.json says that convert\.sh made it; --force repl"
    ):
        again()
    assert again("--force")
    os.unlink(target)
    assert again()
    assert not again()


@pytest.mark.parametrize("chip", ["cpu", "310P3"])
def test_a_model_that_another_release_compiled_in_another_way_is_compiled_anew(
    folder: Path, capsys: pytest.CaptureFixture[str], ascend: None, chip: str
) -> None:
    if chip == "cpu":
        pytest.importorskip("openvino")
    run("2", chip, "--dtype", "uint8")
    target = Path(targets.compiled_name("demo", 2, chip))
    record = sidecar.read(target)
    without = {key: value for key, value in record.items() if key != "form"}  # as releases before wrote it
    for other in [without, {**record, "form": "another"}, *([{**record, "aipp": "another"}] if chip != "cpu" else [])]:
        sidecar.write(target, other)
        capsys.readouterr()
        run("2", chip, "--dtype", "uint8")
        assert compiled(capsys.readouterr().out)
        assert sidecar.read(target) == record


def test_what_a_file_is_called_and_how_much_is_logged_makes_no_other_model(folder: Path, ascend: None) -> None:
    run("2", "310P3", "--dtype", "uint8")
    options = sidecar.read(Path("demo_bs2.om"))["form"]
    assert [option.partition("=")[0] for option in options if option != "atc"] == [
        *("--framework", "--input_format", "--input_shape", "--soc_version", "--enable_small_channel")
    ]


FLOAT32_FP16 = {"onnx": "demo.onnx", "batch": 2, "chip": "310P3", "dtype": "float32", "precision": "fp16"}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("2", "310P3", "--dtype", "uint8"), "was compiled for dtype float32, not dtype uint8"),
        (("2", "310P3", "--precision", "mixed"), "was compiled for precision fp16, not precision mixed"),
        (("2", "910B3", "--precision", "fp32"), "chip 310P3, precision fp16, not chip 910B3, precision fp32"),
        (("2", "310P3", "--output-dir", ".", "--onnx", "other/demo.onnx"), "onnx demo.onnx, not onnx other/demo.onnx"),
    ],
)
def test_a_model_of_another_question_is_not_replaced(folder: Path, asked: tuple[str, ...], message: str) -> None:
    (folder / "other").mkdir()
    shutil.copy("demo.onnx", "other")
    Path("demo_bs2.om").write_bytes(b"a model")
    sidecar.write(Path("demo_bs2.om"), {**FLOAT32_FP16, "network": "of another digest"})
    before = names(folder)
    for dry in ([], ["--dry-run"]):
        with pytest.raises(PipelineError, match=f"{message}; --force replaces it, --output names another folder$"):
            convert.main(["--onnx", "demo.onnx", *asked, *dry])
    assert (names(folder), Path("demo_bs2.om").read_bytes()) == (before, b"a model")


@pytest.mark.parametrize("name", ["demo_bs2.xml", "demo_bs2.bin"])
def test_a_file_that_convert_did_not_make_is_not_replaced_by_a_model(folder: Path, name: str) -> None:
    Path(name).write_bytes(b"the user's")
    with pytest.raises(PipelineError, match=rf"^{name}: no demo_bs2\.xml\.json says that convert"):
        run("1,2", "cpu")
    assert Path(name).read_bytes() == b"the user's"


def test_the_same_network_under_another_name_is_up_to_date(
    folder: Path, ascend: None, capsys: pytest.CaptureFixture[str]
) -> None:
    run("2", "310P3")
    (folder / "other").mkdir()
    shutil.copy("demo.onnx", "other")
    capsys.readouterr()
    assert convert.main(["2", "310P3", "--onnx", "other/demo.onnx"]) == 0
    assert capsys.readouterr().out == "demo_bs2.om: up to date\n"


# --- one at a time, and the bytes that were hashed


@pytest.mark.parametrize(
    ("chip", "place", "file"),
    [
        ("cpu", "ResNeSt.convert.compile.sha256_of_onnx", "demo_sim.onnx"),
        ("310P3", "ResNeSt.convert.compile.sha256_of_onnx", "demo_sim.onnx"),
        ("310P3", "ResNeSt.convert.simplify.sha256_of_onnx", "demo.onnx"),
    ],
)
def test_a_network_that_changes_between_hash_and_compilation_makes_no_model(
    folder: Path, ascend: None, monkeypatch: pytest.MonkeyPatch, chip: str, place: str, file: str
) -> None:
    model = onnx.load("demo.onnx")
    onnx.helper.set_model_props(model, {**read_metadata("demo.onnx"), "resnest.model": "another"})
    onnx.save(model, "another")

    def swapped(path: Path) -> str:
        digest = sha256(path)
        shutil.copystat(path, "another")  # as `cp -p` leaves it
        os.replace("another", file)
        return digest

    monkeypatch.setattr(place, swapped)
    with pytest.raises(PipelineError, match=f"{file}: changed while it was being read; run the same command again"):
        run("1", chip)
    assert names(folder) <= {"demo.onnx", "demo_sim.onnx"}


def test_of_two_networks_of_one_name_converted_at_once_one_is_compiled_and_one_refused(folder: Path) -> None:
    pytest.importorskip("openvino")
    for name in ("a", "b"):
        model = onnx.load("demo.onnx")
        model.producer_name = name
        (folder / name).mkdir()
        onnx.save(model, folder / name / "demo.onnx")
    command = [sys.executable, "-m", "ResNeSt.convert", "1", "cpu", "--output=out"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    at_once = {
        name: subprocess.Popen(
            [*command, f"--onnx={name}/demo.onnx"], stderr=subprocess.PIPE, text=True, env=environment
        )
        for name in ("a", "b")
    }
    errors = {name: process.communicate()[1] for name, process in at_once.items()}
    codes = {name: process.returncode for name, process in at_once.items()}
    assert sorted(codes.values()) == [0, 1]
    (done,) = (name for name, code in codes.items() if code == 0)
    (refused,) = (error for name, error in errors.items() if name != done)
    assert re.fullmatch(r"error: out/.*(another process is writing here|--force replaces it).*\n", refused)
    record = json.loads(Path("out/demo_bs1.xml.json").read_text())
    assert record["network"] == sha256(f"{done}/demo.onnx")
    assert record["source"] == sha256("out/demo_sim.onnx")
    assert read_metadata("out/demo_sim.onnx")["simplified_from"] == record["network"]
    assert names(folder / "out") == {"demo_sim.onnx", "demo_bs1.xml", "demo_bs1.bin", "demo_bs1.xml.json"}


def test_a_lock_that_a_killed_process_left_locks_nobody_out(tmp_path: Path) -> None:
    code = "import os, sys; from ResNeSt.common.files import alone\nwith alone(sys.argv[1]): os._exit(9)"
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    assert subprocess.run([sys.executable, "-c", code, tmp_path / "m"], env=environment).returncode == 9
    assert len(names(tmp_path)) == 1
    refused = pytest.raises(PipelineError, match="m: another process is writing here")
    with alone(tmp_path / "m"), alone(tmp_path / "other"), refused, alone(tmp_path / "m"):
        pass
    assert names(tmp_path) == set()


def test_up_to_date_models_need_no_compiler(folder: Path, ascend: None, monkeypatch: pytest.MonkeyPatch) -> None:
    run("2", "310P3")
    monkeypatch.setattr(cann, "find_toolkit", lambda: None)
    run("2", "310P3")
    with pytest.raises(MissingRuntimeError):
        run("2,3", "310P3")


def test_the_record_beside_a_model_says_how_it_was_made(folder: Path, ascend: None) -> None:
    run("2", "Ascend310p3", "--precision", "mixed")
    record = json.loads(Path("demo_bs2.om.json").read_text())
    assert record["tool"] == str(STANDINS / "bin" / "atc")
    assert {key: record[key] for key in ("batch", "chip", "dtype", "precision", "files")} == {
        "batch": 2,
        "chip": "310P3",
        "dtype": "float32",
        "precision": "mixed",
        "files": {"demo_bs2.om": sha256("demo_bs2.om")},
    }


# --- Ascend: the command


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[list[str]]:
    """The commands that a dry run prints, split as a shell would."""
    capsys.readouterr()
    run(*arguments, "--dry-run")
    lines = capsys.readouterr().out.splitlines()
    return [shlex.split(line) for line in lines if line.startswith(("atc ", "python3 "))]


def test_a_dry_run_prints_the_commands_of_the_original_sample(
    folder: Path, capsys: pytest.CaptureFixture[str], no_ascend: None
) -> None:
    def original(batch: int) -> list[str]:
        return [
            "atc",
            "--framework=5",
            f"--model={folder}/demo_sim.onnx",
            f"--output=demo_bs{batch}",
            "--input_format=NCHW",
            f"--input_shape=actual_input_1:{batch},3,{SIZE},{SIZE}",
            "--soc_version=Ascend310P3",
        ]

    simplification = ["python3", "-m", "onnxsim", "demo.onnx", "demo_sim.onnx"]
    assert planned(capsys, "1,8", "310P3") == [simplification, original(1), original(8)]


@pytest.mark.parametrize("chip", ["310P3", "cpu"])
def test_a_dry_run_changes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], no_ascend: None, chip: str
) -> None:
    planned(capsys, "1,8", chip, "--dtype", "uint8", "--output-dir", "new")
    assert names(folder) == {"demo.onnx"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--precision", "fp16"], []),
        (["--precision", "fp32"], ["--precision_mode=must_keep_origin_dtype"]),
        (["--precision", "mixed"], ["--precision_mode=allow_mix_precision"]),
        (["--log", "info"], ["--log=info"]),
        (["--dtype", "uint8"], ["--insert_op_conf={folder}/demo_aipp.cfg", "--enable_small_channel=1"]),
    ],
)
def test_each_option_adds_its_own_to_the_atc_command(
    folder: Path, capsys: pytest.CaptureFixture[str], no_ascend: None, options: list[str], expected: list[str]
) -> None:
    plain = planned(capsys, "4", "910B3")[1]
    found = planned(capsys, "4", "910B3", *options)[1]
    assert found == plain + [option.format(folder=folder) for option in expected]


def test_fp32_on_a_310p_is_warned_about(folder: Path, capsys: pytest.CaptureFixture[str], no_ascend: None) -> None:
    run("1", "310P3", "--precision", "fp32", "--dry-run")
    assert "AvgPool and MaxPool take no float32" in capsys.readouterr().out
    run("1", "910B3", "--precision", "fp32", "--dry-run")
    assert "AvgPool" not in capsys.readouterr().out


def test_the_aipp_file_holds_imagenet_s_constants(exported: Path) -> None:
    lines = [line.strip() for line in atc.aipp_config(onnx_file.read(exported), "uint8").splitlines()]
    assert lines == [
        "aipp_op {",
        "aipp_mode: static",
        "input_format: RGB888_U8",
        "csc_switch: false",
        f"src_image_size_w: {SIZE}",
        f"src_image_size_h: {SIZE}",
        "min_chn_0: 123.675",
        "min_chn_1: 116.28",
        "min_chn_2: 103.53",
        "var_reci_chn_0: 0.0171247538316637",
        "var_reci_chn_1: 0.0175070028011204",
        "var_reci_chn_2: 0.0174291938997821",
        "}",
    ]


# --- Ascend: running the compiler


def operators(path: str) -> int:
    return len(onnx.load(path).graph.node)


@pytest.mark.parametrize("suffixed", ["0", "1"], ids=["plain name", "name with os and arch"])
def test_models_come_under_their_plain_names_and_nothing_else_is_left(
    folder: Path, ascend: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], suffixed: str
) -> None:
    monkeypatch.setenv("STANDIN_ATC_SUFFIX", suffixed)
    run("1,4", "310P3", "--output-dir", "out", "--dtype", "uint8", "--precision", "mixed")
    models = {"demo_bs1.om", "demo_bs1.om.json", "demo_bs4.om", "demo_bs4.om.json"}
    assert names(folder / "out") == models | {"demo_sim.onnx", "demo_aipp.cfg"}
    assert names(folder) == {"demo.onnx", "out"}
    printed = capsys.readouterr().out
    assert "\ndemo_bs4.om: model demo_bs4" in printed
    assert f", type IR, IR version 0, {operators('out/demo_sim.onnx')} operators, platform stand-in, " in printed


def test_atc_is_found_by_the_environment_script(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_PYTHON", sys.executable)
    toolkit = folder / "tool kit" / "latest"
    toolkit.mkdir(parents=True)
    script = f'export PATH="{STANDINS}/bin:$PATH" NOTE="two\nlines"\necho noise\nfalse\n'
    (toolkit.parent / "set_env.sh").write_text(script)
    monkeypatch.setenv("ASCEND_TOOLKIT_HOME", str(toolkit))
    found = cann.find_toolkit()
    assert found is not None
    assert found.atc == str(STANDINS / "bin" / "atc")
    assert found.environment["NOTE"] == "two\nlines"


def test_the_stand_in_s_own_environment_script_works(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_PYTHON", sys.executable)
    monkeypatch.setenv("ASCEND_TOOLKIT_HOME", str(STANDINS / "ascend-toolkit"))
    run("1", "310P3")
    assert "demo_bs1.om" in names(folder)


def test_a_script_that_exits_is_passed_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "set_env.sh").write_text("exit 1\n")
    monkeypatch.setattr(cann, "set_env_scripts", lambda: iter([Path("missing.sh"), Path("set_env.sh")]))
    assert cann.find_toolkit() is None


def test_without_atc_the_place_the_command_and_the_file_are_named(folder: Path, no_ascend: None) -> None:
    with pytest.raises(MissingRuntimeError) as caught:
        run("1,4", "Ascend310P3")
    message = str(caught.value)
    assert "run `bash convert.sh 1,4 310P3`" in message
    assert "after copying demo_sim.onnx there" in message
    assert names(folder) == {"demo.onnx", "demo_sim.onnx"}


def test_a_refusal_shows_atc_s_lines_with_a_hint_and_leaves_no_model(
    folder: Path, ascend: None, capsys: pytest.CaptureFixture[str]
) -> None:
    run("1", "310P3")
    model = onnx.load("demo_sim.onnx")
    model.opset_import.append(onnx.helper.make_opsetid("com.other", 1))
    onnx.save(model, "demo_sim.onnx")
    capsys.readouterr()
    with pytest.raises(PipelineError, match=r"demo_bs1\.om: ATC failed \(exit code 255\); E16005: two operator sets"):
        run("1", "310P3")
    shown = capsys.readouterr().err
    assert "E16005: The model has 2 domain_version fields" in shown
    assert "Solution:" in shown
    assert "TraceBack" not in shown
    assert names(folder) == {"demo.onnx", "demo_sim.onnx"}


@pytest.fixture
def broken_atc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts an atc of the given shell lines on PATH."""

    def install(lines: str) -> None:
        script = tmp_path / "atc"
        script.write_text(f"#!/bin/sh\n{lines}\n")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return install


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("true", "reported success but left 0 .om files"),
        ("touch demo_bs1.om demo_bs1_linux_x86_64.om", "left 2 .om files"),
        ("head -c 5000 /dev/zero > demo_bs1.om", "no IMOD header"),
        ("printf IMOD > demo_bs1.om", "no IMOD header"),
        (
            "echo words; exit 7",
            r"ATC failed \(exit code 7\); --log error shows all that it says, --check what this host lacks$",
        ),
    ],
)
def test_a_compiler_that_goes_wrong_is_told_of_and_leaves_no_model(
    folder: Path, broken_atc: Callable[[str], None], lines: str, message: str
) -> None:
    broken_atc(lines)
    with pytest.raises(PipelineError, match=message):
        run("1", "310P3")
    assert names(folder) == {"demo.onnx", "demo_sim.onnx"}


def test_without_an_error_line_atc_s_last_words_are_shown(
    folder: Path, broken_atc: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    broken_atc("seq 30; echo words; exit 7")
    with pytest.raises(PipelineError):
        run("1", "310P3")
    assert capsys.readouterr().err.split() == [str(number) for number in range(22, 31)] + ["words"]


def test_without_a_driver_atc_runs_with_the_toolkit_s_stub_and_that_is_said(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    devlib = tmp_path / f"cann-9.0.0/{platform.machine()}-linux/devlib"
    devlib.mkdir(parents=True)
    (tmp_path / "cann-9.0.0/bin").mkdir()
    atc = tmp_path / "cann-9.0.0/bin/atc"
    atc.write_text('#!/bin/sh\necho "with $LD_LIBRARY_PATH"; exit 7\n')
    atc.chmod(0o755)
    monkeypatch.setattr(cann, "DRIVER_FOLDERS", [])
    monkeypatch.setenv("PATH", f"{atc.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/elsewhere")
    with pytest.raises(PipelineError, match="failed"):
        run("1", "310P3")
    said = capsys.readouterr()
    assert f"note: no driver here, so ATC gets {devlib} on its LD_LIBRARY_PATH" in said.out
    assert f"with /elsewhere:{devlib}" in said.err


def test_a_chip_that_is_not_on_record_is_compiled_for_with_a_note(
    folder: Path, ascend: None, capsys: pytest.CaptureFixture[str]
) -> None:
    run("1", "Ascend950PR_9589")
    assert capsys.readouterr().out.count("note: chip 950PR_9589 is not on record here") == 1
    assert json.loads(Path("demo_bs1.om.json").read_text())["chip"] == "950PR_9589"
    run("1", "950PR_9589", "--dry-run")
    shown = capsys.readouterr().out
    assert "# note: chip 950PR_9589 is not on record here" in shown
    assert "--soc_version=Ascend950PR_9589" in shown
    assert "# ATC takes only letters, digits and . / _ - in a path; convert.sh gives it copies so named" in shown


def test_log_shows_all_that_atc_prints(folder: Path, ascend: None, capsys: pytest.CaptureFixture[str]) -> None:
    run("1", "310P3")
    assert "ATC run success" not in capsys.readouterr().out
    run("1", "310P3", "--force", "--log", "info")
    assert "ATC run success" in capsys.readouterr().out


# --- the script


def test_the_script_works_from_any_directory_with_its_relative_paths(folder: Path, ascend: None) -> None:
    (folder / "sub").mkdir()
    os.chdir("sub")
    result = call("convert.sh", "1", "auto", "--onnx", "../demo.onnx", "--output", "../out")
    assert (result.returncode, result.stderr) == (0, "")
    assert "demo_bs1.om" in names(folder / "out")
    assert names(folder / "sub") == set()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["0", "cpu"], 2),
        (["1", "31OP3"], 2),
        (["1", "cpu", "--precision", "fp16"], 2),
        (["1", "cpu", "--onnx", "missing.onnx"], 1),
        (["1", "cpu", "--onnx", "noise.onnx"], 1),
    ],
)
def test_a_refused_command_ends_with_one_line_and_its_code(folder: Path, arguments: list[str], code: int) -> None:
    Path("noise.onnx").write_bytes(os.urandom(1000))
    result = call("convert.sh", *arguments)
    assert_refused(result, code=code)
    assert result.stderr.count("\n") == 1


def test_an_ascend_host_needs_no_torch_onnx_or_openvino(folder: Path, ascend: None) -> None:
    simplify.simplify(Path("demo.onnx"), Path("demo_sim.onnx"))
    absent = ["torch", "torchvision", "onnx", "onnxsim", "onnxruntime", "openvino", "sklearn"]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({absent}))\n"
        "from ResNeSt.convert.__main__ import main; main(['1', '310P3', '--onnx', 'demo.onnx', '--dtype', 'uint8'])"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
    assert "demo_bs1.om" in names(folder)
