"""bench.sh --profile: the operators by their time, from msprof's files and from OpenVINO's counters."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from ResNeSt.bench import msprof
from ResNeSt.bench.benchmark import Benchmark, bench
from ResNeSt.bench.profile import Call, on_cpu, printed, write
from ResNeSt.common.errors import PipelineError
from ResNeSt.convert.conversion import Conversion, convert
from ResNeSt.engines import openvino
from ResNeSt.engines.engine import TensorSpec
from ResNeSt.engines.openvino import Counter
from tests.conftest import STANDINS, assert_refused, call

HEAD = "Device_id,Model ID,Task ID,Op Name,OP Type,Task Type,Task Start Time(us),Task Duration(us)"


def test_calls_add_up_and_the_longest_come_first(tmp_path: Path) -> None:
    calls = [
        Call("a", "Add", "AI_VECTOR_CORE", 1.0),
        Call("b", "Conv2D", "AI_CORE", 5.0),
        Call("a", "Add", "AI_VECTOR_CORE", 3.0),
    ]
    profile = write(tmp_path, 4, [*calls, Call("c", "Mul", "AI_CORE", 1.0, 10)])
    assert [(each.name, each.calls, each.ms, each.percent) for each in profile.operators] == [
        ("b", 1, 5.0, 50.0),
        ("a", 2, 2.0, 40.0),
        ("c", 10, 0.1, 10.0),
    ]
    rows = list(csv.DictReader((tmp_path / "profile_bs4.csv").read_text().splitlines()))
    assert rows[1] == {
        "name": "a",
        "type": "Add",
        "runs_on": "AI_VECTOR_CORE",
        "calls": "2",
        "ms": "2.0",
        "percent": "40.0",
    }
    assert len(rows) == 3


def test_the_table_shows_ten_and_their_share(tmp_path: Path) -> None:
    lines = printed(
        write(tmp_path, 1, [Call(f"op{number}", "Conv2D", "AI_CORE", 1.0) for number in range(20)])
    ).splitlines()
    assert lines[0].startswith("operator, batch 1")
    assert len(lines) == 2 + 10 + 2
    assert lines[-2].split() == ["these", "10", "of", "20", "50.0"]
    assert lines[-1] == f"all of them: {tmp_path}/profile_bs1.csv"


def test_a_profile_without_time_is_none(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="no operator that took time"):
        write(tmp_path, 1, [Call("a", "Add", "AI_CORE", 0.0)])
    assert list(tmp_path.iterdir()) == []


def left(folder: Path, place: str, text: str) -> list[Path]:
    """A PROF_ folder with one file."""
    path = folder / "PROF_000001_20260101_X" / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return [folder / "PROF_000001_20260101_X"]


@pytest.mark.parametrize(
    "place", ["mindstudio_profiler_output/op_summary_2026.csv", "device_0/summary/op_summary_0_1_1.csv"]
)
def test_op_summary_is_read_where_either_release_leaves_it(place: str, tmp_path: Path) -> None:
    rows = "0,1,2,conv,Conv2D,AI_CORE,1.5\t,20.5\n0,1,3,x,Cast,AI_CPU,3\t,N/A\n0,1,4,add,Add,AI_VECTOR_CORE,9\t,1\n"
    found = msprof.read(left(tmp_path, place, f"{HEAD}\n{rows}"))
    assert found == [Call("conv", "Conv2D", "AI_CORE", 0.0205), Call("add", "Add", "AI_VECTOR_CORE", 0.001)]


def test_a_file_that_lies_in_both_places_counts_once(tmp_path: Path) -> None:
    text = f"{HEAD}\n0,1,2,conv,Conv2D,AI_CORE,1,20\n"
    left(tmp_path, "device_0/summary/op_summary_0_1_1.csv", text)
    assert len(msprof.read(left(tmp_path, "mindstudio_profiler_output/op_summary_1.csv", text))) == 1


def test_op_statistic_serves_where_there_is_no_op_summary(tmp_path: Path) -> None:
    text = (
        "Model Name,OP Type,Core Type,Count,Total Time(us),Ratio(%)\nm,Conv2D,AI_CORE,4,100,80\nm,Add,AI_CORE,2,25,20\n"
    )
    place = "mindstudio_profiler_output/op_statistic_1.csv"
    wanted = [Call("Conv2D", "Conv2D", "AI_CORE", 0.1, 4), Call("Add", "Add", "AI_CORE", 0.025, 2)]
    assert msprof.read(left(tmp_path, place, text)) == wanted
    assert msprof.read(left(tmp_path, place, text.replace("Total Time(us)", "Total Time"))) == wanted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Name,Kind\nconv,Conv2D\n", "has no column Op Name, but Name, Kind"),
        ("", "has no column Op Name"),
        (f"{HEAD}\n0,1,2,conv,Conv2D,AI_CORE,1,fast\n", "holds 'fast' where a number is expected"),
        (f"{HEAD}\n0,1,2,conv,Conv2D,AI_CORE,1,-3\n", "holds '-3' where a number is expected"),
    ],
)
def test_a_table_of_another_kind_is_one_line_that_names_the_file(text: str, words: str, tmp_path: Path) -> None:
    runs = left(tmp_path, "mindstudio_profiler_output/op_summary_1.csv", text)
    with pytest.raises(PipelineError, match=f"op_summary_1.csv: {words}"):
        msprof.read(runs)


def test_data_that_were_not_exported_are_told_with_the_command_that_does(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"msprof --export=on --output=.*PROF_000001"):
        msprof.read(left(tmp_path, "device_0/data/raw", ""))


def test_msprof_takes_a_script_and_no_module_and_no_word_with_a_blank(
    monkeypatch: pytest.MonkeyPatch, standins: dict[str, str]
) -> None:
    """As its published source has it: "Script params are invalid" for `python -m`, and quotation marks do nothing."""
    monkeypatch.syspath_prepend(standins["PYTHONPATH"].split(os.pathsep)[0])
    command = ["/opt/py/bin/python3", "-m", "ais_bench", "--model=m.om", "--device=0"]
    wanted = f"/opt/py/bin/python3 {STANDINS}/ais_bench/__main__.py --model=m.om --device=0"
    assert msprof.application(command) == wanted
    with pytest.raises(PipelineError, match="takes no path with a blank, as in '/opt/my py/python3'"):
        msprof.application(["/opt/my py/python3", *command[1:]])


def test_the_data_of_an_earlier_profile_in_the_folder_are_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(model: Path, folder: Path, dirname: str, *_: object, **__: object) -> None:
        number = len(list((folder / dirname).glob("PROF_*")))
        path = folder / dirname / f"PROF_{number}/mindstudio_profiler_output/op_summary_1.csv"
        path.parent.mkdir(parents=True)
        path.write_text(f"{HEAD}\n0,1,2,conv{number},Conv2D,AI_CORE,1,20\n")

    monkeypatch.setattr(msprof, "run_client", run)
    for name in ("conv0", "conv1"):
        calls = msprof.profile("msprof", Path("m.om"), tmp_path, "profile_bs1", device=0)
        assert [call.name for call in calls] == [name]


def test_openvino_s_counters_are_means_over_all_runs_and_the_first_one_does_not_count(
    demo_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    took = iter([9.0, 1.0, 2.0, 3.0])  # seconds of each run
    ran: list[float] = []
    engine = SimpleNamespace(
        input=TensorSpec("x", (1, 2), "float32"),
        run=lambda batch: ran.append(next(took)),
        counters=lambda: [Counter("a", "Convolution", "brgconv", sum(ran) / len(ran))],
    )
    monkeypatch.setattr(openvino, "open_model", lambda *asked, **options: engine)
    (call,) = on_cpu(demo_onnx, 1, loop=3)
    assert call._replace(ms=0) == Call("a", "Convolution", "brgconv", 0, calls=3)
    assert call.ms == pytest.approx(6000)


def test_the_operators_of_a_cpu_model_are_timed_by_openvino(demo_onnx: Path, tmp_path: Path) -> None:
    convert(Conversion(demo_onnx, [1], "cpu", tmp_path))
    prefix = str(tmp_path / "resnest_demo")
    benched = bench(Benchmark([1], "cpu", prefix, loop=7, output=tmp_path / "out", profile=True))
    (profile,) = benched.profiles
    assert profile.path == tmp_path / "out/profile_bs1.csv"
    rows = list(csv.DictReader(profile.path.read_text().splitlines()))
    assert sum(float(row["percent"]) for row in rows) == pytest.approx(100)
    assert {row["calls"] for row in rows} == {"7"}
    convolutions = [row for row in rows if row["type"] == "Convolution"]
    assert len(convolutions) > 20
    assert all(row["runs_on"] for row in convolutions)
    assert sum(float(row["ms"]) for row in rows) < 20 * benched.fastest.mean_ms
    bench(Benchmark([1], "cpu", prefix, loop=1, output=tmp_path / "out"))
    assert not profile.path.exists()  # nor does the profile of an earlier run stay beside newer figures


@pytest.fixture
def npu(demo_onnx: Path, tmp_path: Path, standins: dict[str, str]) -> dict[str, str]:
    """A host with the stand-ins, where the demo is compiled for 310P3."""
    flags = (f"--onnx={demo_onnx}", f"--output={tmp_path}")
    assert call("convert.sh", "4", "310P3", *flags, env=standins).returncode == 0
    return standins


@pytest.mark.parametrize("kind", ["new", "old", "statistic"])
def test_the_operators_of_an_npu_model_are_timed_by_msprof(kind: str, npu: dict[str, str], tmp_path: Path) -> None:
    flags = ("--model=resnest_demo", "--loop=3", "--output=out", "--no-report", "--profile")
    result = call("bench.sh", "4", "310P3", *flags, cwd=tmp_path, env={**npu, "STANDIN_MSPROF": kind})
    assert result.returncode == 0, result.stderr
    rows = list(csv.DictReader((tmp_path / "out/profile_bs4.csv").read_text().splitlines()))
    if kind != "statistic":
        assert {row["calls"] for row in rows} == {"4"}  # with the warm-up
        assert len(rows) > 50
    assert float(rows[0]["percent"]) == max(float(row["percent"]) for row in rows)
    assert "operator, batch 4" in result.stdout
    assert "all of them: out/profile_bs4.csv" in result.stdout
    assert len(list((tmp_path / "out/profile_bs4").glob("PROF_*"))) == 1


def test_an_msprof_that_leaves_nothing_or_is_not_there_ends_in_one_line(npu: dict[str, str], tmp_path: Path) -> None:
    flags = ("--model=resnest_demo", "--loop=3", "--output=out", "--no-report", "--profile")
    result = call("bench.sh", "4", "310P3", *flags, cwd=tmp_path, env={**npu, "STANDIN_MSPROF": "none"})
    assert_refused(result, "holds no op_summary_*.csv", "msprof --export=on")
    assert not (tmp_path / "out/profile_bs4.csv").exists()
    shutil.rmtree(tmp_path / "out")
    without = {**npu, "PATH": os.environ["PATH"]}
    result = call("bench.sh", "4", "310P3", *flags, cwd=tmp_path, env=without)
    assert_refused(result, "--profile: msprof is not on this machine", code=3)
    assert not (tmp_path / "out").exists()
