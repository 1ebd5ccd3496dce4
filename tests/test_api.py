"""The functions behind the commands, called by other programs: values that nobody typed on a command line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ResNeSt.bench.benchmark import Benchmark, bench
from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.compare.pairs import compare
from ResNeSt.convert.conversion import Conversion, convert, plan
from ResNeSt.engines.image_batches import ModelChoice
from ResNeSt.engines.opening import open_engine
from ResNeSt.infer.inference import Inference, infer
from ResNeSt.models.cards import card
from ResNeSt.models.model_info import format_of
from ResNeSt.predict import predict
from ResNeSt.score.score import score_summaries
from tests.conftest import PROJECT, call

pytest.importorskip("onnxsim")
PICTURES = sorted((PROJECT / "demo/val").iterdir())[:3]


@pytest.fixture
def onnx_file(demo_onnx: Path, tmp_path: Path) -> Path:
    shutil.copy(demo_onnx, tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def asked(**changes: Any) -> Any:
    """A conversion with values of types that annotations do not allow."""
    return Conversion(**{"onnx": Path("m.onnx"), "batches": [1], "chip": "cpu", **changes})


@pytest.mark.parametrize("batches", [[], [0], [-1], [True], [1.0], ["1"], np.array([0]), iter([])])
def test_batch_sizes_that_are_none_are_refused(batches: Any) -> None:
    with pytest.raises(ArgumentError, match="batch sizes must be whole numbers above 0"):
        convert(asked(batches=batches))


def test_batch_sizes_and_paths_of_any_kind_are_taken(onnx_file: Path, tmp_path: Path) -> None:
    for number, batches in enumerate([np.array([2, 1]), (2, 1), (value for value in (2, 1)), [np.int64(2), 1, 2]]):
        folder = str(tmp_path / f"out{number}")
        compiled = convert(asked(onnx=str(onnx_file), batches=batches, output=folder))
        assert [(model.path.name, model.batch) for model in compiled] == [("m_bs2.xml", 2), ("m_bs1.xml", 1)]


def test_a_dtype_that_there_is_not_is_refused_before_anything_is_lost(onnx_file: Path, tmp_path: Path) -> None:
    (model,) = convert(asked(onnx=onnx_file, output=tmp_path))
    before = model.path.read_bytes()
    for function in (convert, plan):
        with pytest.raises(ArgumentError, match="dtype 'int7', expected one of float32, uint8"):
            function(asked(onnx=onnx_file, output=tmp_path, dtype="int7"))
    with pytest.raises(ArgumentError, match="dtype 'int7'"):
        format_of(card("resnest_demo"), "int7")
    assert model.path.read_bytes() == before


@pytest.mark.parametrize("part", [".xml", ".bin"])
def test_a_compiled_model_damaged_at_equal_size_is_compiled_again(part: str, onnx_file: Path, tmp_path: Path) -> None:
    (model,) = convert(asked(onnx=onnx_file, output=tmp_path))
    path = model.path.with_suffix(part)
    content = path.read_bytes()
    path.write_bytes(content[:-9] + b"x" + content[-8:])
    (again,) = convert(asked(onnx=onnx_file, output=tmp_path))
    assert not again.kept
    assert path.read_bytes() == content
    assert convert(asked(onnx=onnx_file, output=tmp_path))[0].kept


@pytest.mark.parametrize("content", [b"", b"damaged", None])
def test_force_makes_a_damaged_simplified_file_anew(content: bytes | None, onnx_file: Path, tmp_path: Path) -> None:
    convert(asked(onnx=onnx_file, output=tmp_path))
    path = tmp_path / "m_sim.onnx"
    whole = path.read_bytes()
    path.write_bytes(whole[:-900] if content is None else content)
    convert(asked(onnx=onnx_file, output=tmp_path, force=True))
    assert path.read_bytes() == whole


def test_a_model_that_fails_the_gate_leaves_no_part_of_itself(
    onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--model=resnest_demo"]
    (tmp_path / "pictures").mkdir()
    for picture in sorted((PROJECT / "demo/val").iterdir())[:12]:
        shutil.copy(picture, tmp_path / "pictures")
    assert call("resnest_preprocess.py", tmp_path / "pictures", tmp_path / "prep", *flags).returncode == 0
    convert(asked(onnx=onnx_file, output=tmp_path))
    monkeypatch.setattr("ResNeSt.convert.gate.FURTHEST", -1)  # nothing is as near as that
    with pytest.raises(PipelineError, match=r"not written: agrees with fp32 on 1\.000 of the images"):
        convert(asked(onnx=onnx_file, output=tmp_path, calibration=tmp_path / "prep"))
    assert not list(tmp_path.glob("m_bs1*"))


@pytest.mark.parametrize(
    "changes",
    [
        {"outfmt": "txt"},
        {"outfmt": "XXX"},
        {"pure_data": "bogus"},
        {"loop": 0},
        {"loop": -1},
        {"warmup": -1},
        {"batch": 0},
    ],
)
def test_an_inference_that_cannot_be_is_refused(changes: dict[str, Any], demo_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError):
        infer(Inference(demo_onnx, output=tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_an_engine_that_there_is_not_is_named(demo_onnx: Path) -> None:
    with pytest.raises(ArgumentError, match="unknown engine 'bogus'; known: openvino"):
        open_engine(demo_onnx, "bogus")


def test_pictures_come_in_any_way_and_none_are_refused(demo_onnx: Path) -> None:
    expected = [answer.image for answer in predict(ModelChoice(demo_onnx), [str(path) for path in PICTURES])]
    assert expected == [str(path) for path in PICTURES]
    assert [answer.image for answer in predict(ModelChoice(demo_onnx), (path for path in PICTURES))] == expected
    one: Any = PICTURES[0]
    assert [answer.image for answer in predict(ModelChoice(demo_onnx), one)] == expected[:1]
    for images, top in (([], 5), (PICTURES, 0), (PICTURES, -1)):
        with pytest.raises(ArgumentError, match="expected at least one of each"):
            predict(ModelChoice(demo_onnx), images, top)


def test_nothing_to_score_is_refused() -> None:
    with pytest.raises(ArgumentError, match="no summary given"):
        score_summaries([], PROJECT / "demo/val_label.txt")


def test_bench_and_compare_take_numbers_and_paths_of_any_kind(onnx_file: Path, tmp_path: Path) -> None:
    convert(asked(onnx=onnx_file, output=tmp_path))
    wanted: dict[str, Any] = {"batches": np.array([1]), "prefix": tmp_path / "m", "loop": np.int64(2)}
    assert [row.batch for row in bench(Benchmark(chip="CPU", output=tmp_path / "b", **wanted)).rows] == [1]
    with pytest.raises(ArgumentError, match="loop 0"):
        bench(Benchmark([1], "cpu", str(tmp_path / "m"), loop=0))
    assert call("resnest_preprocess.py", PROJECT / "demo/val", tmp_path / "prep", "--arch=resnest_demo").returncode == 0
    assert compare(str(onnx_file), str(tmp_path / "m_bs1.xml"), str(tmp_path / "prep"), 3).images == 3


def test_a_command_whose_stdout_is_closed_does_its_work(onnx_file: Path, tmp_path: Path) -> None:
    command = "[sys.executable, '-m', 'ResNeSt.convert', '1', 'cpu', '--onnx=m.onnx']"
    code = f"import os, subprocess, sys; os.close(1); sys.exit(subprocess.call({command}))"
    result = call("-c", code, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "m_bs1.xml.json").is_file()


def test_what_is_printed_where_the_caller_closed_every_stream_goes_into_no_file(tmp_path: Path) -> None:
    """The next file to be opened has the lowest descriptor that is free, and libraries print to 1 and 2."""
    work = (
        "import os; from ResNeSt.common.errors import run\n"
        "def main():\n"
        "    with open('made', 'w') as file:\n"
        "        print('said'); os.write(1, b'heard'); os.write(2, b'heard'); file.write('whole')\n"
        "run(main)"
    )
    command = ["bash", "-c", '"$0" -c "$1" <&- >&- 2>&-', sys.executable, work]
    subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(PROJECT)}, check=True)
    assert (tmp_path / "made").read_text() == "whole"


def test_a_simplified_file_is_taken_as_one_and_the_models_have_its_network_s_name(
    onnx_file: Path, tmp_path: Path
) -> None:
    (expected,) = convert(asked(onnx=onnx_file, output=tmp_path / "there"))
    for number, force in enumerate([False, True]):
        folder = tmp_path / f"out{number}"
        simplified = folder / "m_sim.onnx" if force else tmp_path / "there/m_sim.onnx"
        if force:  # in the folder where the models go, and without what it was made of
            folder.mkdir()
            shutil.copy(tmp_path / "there/m_sim.onnx", simplified)
        before = simplified.read_bytes()
        (model,) = convert(asked(onnx=simplified, output=folder, force=force))
        assert (model.path, simplified.read_bytes()) == (folder / "m_bs1.xml", before)
        assert model.path.read_bytes() == expected.path.read_bytes()
        assert not list(folder.glob("*_sim_sim*"))
        assert "onnxsim" not in "".join(plan(asked(onnx=simplified, output=folder)))
    (kept,) = convert(asked(onnx=tmp_path / "there/m_sim.onnx", output=tmp_path / "there"))
    assert kept.kept
