"""bench.sh auto, instances and times: what is tried, what is kept of earlier runs, and how long a loop gets."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ResNeSt.bench import benchmark as benchmark_module
from ResNeSt.bench import copies, measure
from ResNeSt.bench.__main__ import main
from ResNeSt.bench.benchmark import Benchmark, bench
from ResNeSt.bench.best import commands
from ResNeSt.bench.copies import Copies
from ResNeSt.bench.ledger import Ledger, Run, earlier_runs, tensors_state
from ResNeSt.bench.models import compiled_batches
from ResNeSt.common.ais_bench_paths import MOST_LOOPS
from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.common.files import write_json
from ResNeSt.common.timed_process import Spent
from ResNeSt.convert.conversion import Conversion, convert
from ResNeSt.infer.client import Ran, summaries_of
from ResNeSt.infer.inference import busy_rate
from ResNeSt.models import sidecar
from ResNeSt.models.files import digests
from ResNeSt.report.data import Step
from ResNeSt.report.machine import environment
from tests.conftest import STANDINS, call


class Client:
    """In the place of the real one: a run takes `ms`, so many of `rates` a second where instances are side by side."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, str]]] = []
        self.rates = {2: 300.0, 4: 302.0}
        self.ms = 5.0
        self.dies_at: str | None = None

    def __call__(self, model: Path, output: Path, name: str, *flags: str, devices: Sequence[int]) -> Ran:
        told = dict(flag.split("=") for flag in flags)
        self.calls.append((name, told))
        if name == self.dies_at:
            raise PipelineError("killed")
        instances = told.get("--instances", "1")
        instances = "4" if instances == "auto" else instances
        summary = {"npu_compute_time_list": [self.ms] * int(told.get("--loop", "1")), "instances": int(instances)}
        summary["throughput"] = int(told["--batchsize"]) * self.rates.get(int(instances), 0.0)
        (output / f"{name}.log").write_text("")
        summaries = summaries_of(output, name, devices)
        for path in summaries:
            path.parent.mkdir(exist_ok=True)
            write_json(path, {**summary, "filesinfo": {}})
        return Ran(summaries, Spent(0, 1.0, 1000))

    def names(self) -> list[str]:
        """Of the runs since it was asked last."""
        names = [name for name, _ in self.calls]
        self.calls.clear()
        return names


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    made = Client()
    monkeypatch.setattr(measure, "run_client", made)
    monkeypatch.setattr(copies, "cores", lambda: 8)
    return made


@pytest.fixture
def asked(tmp_path: Path) -> Benchmark:
    """A search over models for a batch of 1, 2 and 16 beside files of other names."""
    for batch in (16, 1, 2):
        (tmp_path / f"m_bs{batch}.xml").write_text(f"model {batch}")
        (tmp_path / f"m_bs{batch}.bin").write_bytes(b"weights")
    for other in ("m_bs4.om", "m_bs04.xml", "mm_bs8.xml", "m_bs2.xml.json.part", "m_dyn.xml"):
        (tmp_path / other).touch()
    return Benchmark("auto", "cpu", str(tmp_path / "m"), output=tmp_path / "out")


def told(asked: Benchmark) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(asked.output) / "bench.json").read_text())
    return found


def test_a_search_ends_at_each_batch_size_where_more_instances_no_longer_help(client: Client, asked: Benchmark) -> None:
    said: list[str] = []
    benched = bench(asked, said.append)
    tried = [(batch, instances) for batch in (1, 2, 16) for instances in (1, 2, 4)]  # 4 are 1 % better, 8 not tried
    assert [(row.batch, row.instances) for row in benched.rows] == tried
    assert (benched.fastest.batch, benched.fastest.instances) == (16, 4)
    assert said[1] == "batch 1, 2 instances: 300.0 images/s"
    assert [row["instances"] for row in told(asked)["rows"]] == [1, 2, 4] * 3
    assert told(asked)["finished"] is True


def test_a_search_tries_up_to_all_cores_and_on_a_device_up_to_four_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(copies, "cores", lambda: 6)
    assert [each.instances for each in copies.asked("cpu", None, None, search=True)] == [1, 2, 4, 6]
    assert [each.processes for each in copies.asked("310P3", None, None, search=True)] == [1, 2, 4]
    assert copies.asked("310P3", [2, 1], None, search=True) == [Copies(2), Copies(1)]
    assert copies.asked("cpu", None, None, search=False) == [Copies(1, 1)]


def test_what_was_measured_before_a_run_died_is_not_measured_again(client: Client, asked: Benchmark) -> None:
    client.dies_at = "pure_bs2_i2"
    with pytest.raises(PipelineError, match="killed"):
        bench(asked)
    assert [(row["batch"], row["instances"]) for row in told(asked)["rows"]] == [(1, 1), (1, 2), (1, 4), (2, 1)]
    assert told(asked)["finished"] is False
    before = told(asked)["rows"]
    client.dies_at = None
    client.names()
    benched = bench(asked)
    assert client.names() == [*(f"pure_bs{batch}{mark}" for batch in (2, 16) for mark in ("", "_i2", "_i4"))][1:]
    assert len(benched.rows) == 9
    for row in before:
        assert {**row, "best": False} in told(asked)["rows"]
    assert len(json.loads((Path(asked.output) / "report.json").read_text())["speeds"]) == 9
    bench(asked)
    assert client.names() == []


def test_a_batch_size_that_is_compiled_later_is_all_that_a_later_search_measures(
    client: Client, asked: Benchmark
) -> None:
    bench(asked)
    client.names()
    for suffix in ("xml", "bin"):
        Path(f"{asked.prefix}_bs8.{suffix}").write_text("8")
    assert {row.batch for row in bench(asked).rows} == {1, 2, 8, 16}
    assert client.names() == ["pure_bs8", "pure_bs8_i2", "pure_bs8_i4"]


def other_weights(asked: Benchmark, monkeypatch: pytest.MonkeyPatch) -> Benchmark:
    for batch in (1, 2, 16):
        Path(f"{asked.prefix}_bs{batch}.bin").write_bytes(b"others")
    return asked


def other_machine(asked: Benchmark, monkeypatch: pytest.MonkeyPatch) -> Benchmark:
    here = environment("cpu")
    monkeypatch.setattr(benchmark_module, "environment", lambda chip: {**here, "cores": here["cores"] + 1})
    return asked


def other_release(asked: Benchmark, monkeypatch: pytest.MonkeyPatch) -> Benchmark:
    here = environment("cpu")
    monkeypatch.setattr(benchmark_module, "environment", lambda chip: {**here, "versions": {"openvino": "1"}})
    return asked


def other_length(asked: Benchmark, monkeypatch: pytest.MonkeyPatch) -> Benchmark:
    return dataclasses.replace(asked, loop=7)


def other_warmup(asked: Benchmark, monkeypatch: pytest.MonkeyPatch) -> Benchmark:
    return dataclasses.replace(asked, warmup=0)


def changed_results(asked: Benchmark, monkeypatch: pytest.MonkeyPatch) -> Benchmark:
    for path in Path(asked.output).glob("*_summary.json"):
        path.write_text(path.read_text().replace("5.0", "1.0"))
    return asked


def damaged_table(asked: Benchmark, monkeypatch: pytest.MonkeyPatch) -> Benchmark:
    (Path(asked.output) / "bench.json").write_text('{"runs": {"pure_bs1"')
    return asked


def foreign_table(asked: Benchmark, monkeypatch: pytest.MonkeyPatch) -> Benchmark:
    (Path(asked.output) / "bench.json").write_text('{"runs": {"pure_bs1": 3, "pure_bs2": {"made_of": [], "left": 1}}}')
    return asked


@pytest.mark.parametrize(
    "change",
    [
        *(other_weights, other_machine, other_release, other_length, other_warmup),
        *(changed_results, damaged_table, foreign_table),
    ],
)
def test_what_was_measured_of_something_else_is_measured_anew(
    change: Callable[[Benchmark, pytest.MonkeyPatch], Benchmark],
    client: Client,
    asked: Benchmark,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench(asked)
    first = client.names()
    bench(change(asked, monkeypatch))
    assert client.names() == first


def test_another_release_of_cann_measures_anew(
    client: Client, asked: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_npu = dataclasses.replace(asked, chip="310P3", processes=[1])
    for release in ("8.0.0", "8.5.0", "8.5.0"):
        library = tmp_path / release / "libascendcl.so"
        library.parent.mkdir(exist_ok=True)
        library.touch()
        (tmp_path / "latest").unlink(missing_ok=True)
        (tmp_path / "latest").symlink_to(library.parent)
        monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path / "latest"))
        bench(on_npu)
        assert told(on_npu)["libascendcl.so"] == str(library)
    assert client.names() == ["pure_bs4"] * 2


def test_results_are_taken_while_all_of_them_and_the_tensors_are_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "prep").mkdir()
    tensor, output, summary = tmp_path / "prep/a.bin", tmp_path / "result/a_0.txt", tmp_path / "result_summary.json"
    tensor.write_bytes(b"tensor")
    calls = []

    def client() -> list[Step]:
        calls.append(1)
        output.parent.mkdir(exist_ok=True)
        output.write_text("1.0 \n")
        entry = {"infiles": [str(tensor)], "outfiles": [str(output)]}
        write_json(summary, {"filesinfo": {"0": entry}, "npu_compute_time_list": [1.0]})
        return [Step("data set", 1.0, 2)]

    def run() -> Run:
        ledger = Ledger(tmp_path, {"host": "h"}, {}, earlier_runs(tmp_path))
        found = ledger.run("result", [summary], {"tensors": tensors_state(tmp_path / "prep")}, client)
        ledger.finish()
        return found

    first = run()
    assert run() == first._replace(kept=True)
    output.write_text("2.0 \n")
    assert not run().kept
    output.unlink()
    assert not run().kept
    tensor.write_bytes(b"others")
    assert not run().kept
    assert (run().kept, len(calls)) == (True, 4)


def test_batch_sizes_that_are_named_are_measured_anew(client: Client, asked: Benchmark) -> None:
    named = dataclasses.replace(asked, batches=[1], instances=[2])
    for _ in range(2):
        bench(named)
        assert client.names() == ["pure_bs1_i2"]


def test_instances_that_the_runtime_finds_best_have_one_row_with_their_number(client: Client, asked: Benchmark) -> None:
    benched = bench(dataclasses.replace(asked, batches=[2], instances=[1, None, 4, 2]))
    assert [row.instances for row in benched.rows] == [1, 4, 2]
    assert client.names() == ["pure_bs2_iauto", "pure_bs2", "pure_bs2_i4", "pure_bs2_i2"]


def test_no_model_at_all_is_named_with_the_command_that_makes_some(tmp_path: Path) -> None:
    for chip, suffix in (("cpu", "xml"), ("310P3", "om")):
        with pytest.raises(PipelineError, match=rf"m_bs\*\.{suffix}: no such files; make .* 1,4,8 {chip} "):
            bench(Benchmark("auto", chip, str(tmp_path / "m"), output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_model_of_several_batch_sizes_is_searched_over_those_of_its_record(tmp_path: Path) -> None:
    prefix, model = str(tmp_path / "m"), tmp_path / "m_dyn.om"
    with pytest.raises(PipelineError, match=r"m_dyn\.om: no such file; make it with: .*--dynamic-batch"):
        compiled_batches(prefix, "310P3", dynamic=True)
    model.write_bytes(b"model")
    with pytest.raises(PipelineError, match=r"has no m_dyn\.om\.json that says its batch sizes; name them"):
        compiled_batches(prefix, "310P3", dynamic=True)
    sidecar.write(model, {"batch": [8, 1], "files": digests(model)})
    assert compiled_batches(prefix, "310P3", dynamic=True) == [1, 8]


@pytest.mark.parametrize(("duration", "instances", "loop"), [(2.0, 1, 400), (2.0, 2, 800), (0.001, 1, 1)])
def test_a_loop_is_as_long_as_fills_the_time_of_what_a_few_runs_took(
    duration: float, instances: int, loop: int, client: Client, asked: Benchmark
) -> None:
    benched = bench(dataclasses.replace(asked, batches=[1], instances=[instances], duration=duration, warmup=3))
    assert [flags["--loop"] for _, flags in client.calls] == [str(10 * instances), str(loop)]
    assert {flags["--warmup_count"] for _, flags in client.calls} == {"3"}
    assert benched.rows[0].runs == loop
    assert (told(asked)["loop"], told(asked)["duration"]) == (None, duration)
    client.ms = 1e-6
    bench(dataclasses.replace(asked, batches=[1], duration=10))
    assert client.calls[-1][1]["--loop"] == str(MOST_LOOPS)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"instances": [2], "processes": [2]}, "name one of both"),
        (
            {"instances": [2], "chip": "310P3"},
            "--instances is for cpu and ncnn; on an NPU it is a process of its own",
        ),
        ({"instances": [0]}, "expected whole numbers from 1"),
        ({"instances": []}, "expected whole numbers from 1"),
        ({"instances": [257]}, "expected whole numbers from 1 to 256, or auto"),
        ({"loop": 5, "duration": 5}, "name one of both"),
        ({"loop": 0}, "loop 0, expected a whole number above 0"),
        ({"duration": 0}, "duration 0, expected seconds above 0"),
        ({"duration": float("nan")}, "duration nan, expected seconds above 0"),
        ({"warmup": -1}, "warmup -1, expected a whole number from 0"),
        ({"batches": "all"}, "batches 'all', expected numbers like"),
    ],
)
def test_what_has_no_meaning_is_refused_before_anything_runs(
    changes: dict[str, Any], words: str, client: Client, asked: Benchmark
) -> None:
    with pytest.raises(ArgumentError, match=words):
        bench(dataclasses.replace(asked, **changes))
    assert client.calls == []
    assert not Path(asked.output).exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--loop=3", "--duration=3"], "--duration: not allowed with argument --loop"),
        (["--instances=0"], "--instances: 0 is not a whole number from 1 to 256"),
        (["--instances=1,few"], "argument --instances: few is not a whole number"),
        (["--processes=1,x"], "argument --processes: x is not a whole number"),
        (["--device=0,,1"], "argument --device: nothing is not a whole number from 0 to 255"),
        (["--device=-1"], "argument --device: -1 is not a whole number from 0 to 255"),
        (["--duration=soon"], "argument --duration: invalid float value"),
    ],
)
def test_the_command_line_says_what_it_does_not_take(
    flags: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.sh", "auto", "cpu", *flags])
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, words in capsys.readouterr().err) == (2, True)


def test_the_command_line_takes_times_and_instances_and_names_the_fastest(
    client: Client, asked: Benchmark, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(Path(asked.prefix).parent)
    flags = ["--model=m", "--instances=1,auto", "--duration=0.1", "--warmup=0", "--no-report", "--output=out"]
    monkeypatch.setattr(sys, "argv", ["bench.sh", "auto", "cpu", *flags])
    assert main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert "batch 2, 4 instances: 604.0 images/s" in lines
    assert lines[-4] == "chip cpu, 0.1 s a row, * is the fastest; written to out/bench.csv and bench.json"
    assert lines[-1] == "  bash bench.sh 16 cpu --prefix=m --instances=4"


def test_runs_a_second_count_while_all_instances_are_at_work() -> None:
    """Two that begin 1 s apart and need 2 s a run: a second at either end has one alone."""
    first = [(float(start), start + 2.0) for start in range(0, 10, 2)]
    second = [(start + 1.0, start + 3.0) for start in range(0, 10, 2)]
    assert busy_rate([*first, *second], 2) == pytest.approx(1.0)
    assert busy_rate([(0.0, 2.0), (1.0, 3.0)], 2) == pytest.approx(2 / 3)
    assert busy_rate([(0.0, 1.0)] * 4, 4) == pytest.approx(4.0)


def test_the_fastest_is_named_with_the_commands_that_use_it(client: Client, asked: Benchmark) -> None:
    benched = bench(asked)
    prefix, checked = asked.prefix, benchmark_module.checked(asked)
    assert commands(benched.fastest, checked) == [
        f"python -m ResNeSt.infer --model={prefix}_bs16.xml --input=prep_dataset --output=results --instances=4",
        f"bash bench.sh 16 cpu --prefix={prefix} --instances=4",
    ]
    row = dataclasses.replace(benched.fastest, batch=8, processes=2, instances=1, model="resnest50_dyn.om")
    on_npu = Benchmark("auto", "310P3", tensors="prep", labels="l", devices=[1, 3], dynamic_batch=True)
    assert commands(row, on_npu) == [
        "python -m ResNeSt.infer --model=resnest50_dyn.om --input=prep --output=results --dymBatch=8 "
        "--device=1,1,3,3 --divide_input=1",
        "bash bench.sh 8 310P3 --dynamic-batch --processes=2 --device=1,3",
    ]
    assert len(commands(row, dataclasses.replace(on_npu, chip="cpu", devices=[0]))) == 1


def test_instances_of_a_real_model_share_a_process_and_their_images_count_by_the_clock(
    demo_onnx: Path, tmp_path: Path
) -> None:
    (compiled,) = convert(Conversion(demo_onnx, [1], "cpu", tmp_path))
    prefix = str(compiled.path).removesuffix("_bs1.xml")
    asked = Benchmark("auto", "cpu", prefix, loop=20, instances=[2], output=tmp_path / "out")
    (row,) = bench(asked).rows
    summary = json.loads((tmp_path / "out/pure_bs1_i2_summary.json").read_text())
    assert (row.instances, summary["instances"], row.runs) == (2, 2, 40)
    assert row.images_per_second == pytest.approx(summary["throughput"])
    assert row.mean_ms == pytest.approx(np.mean(summary["npu_compute_time_list"]))
    (speed,) = json.loads((tmp_path / "out/report.json").read_text())["speeds"]
    assert (speed["instances"], speed["processes"]) == (2, 1)


def test_a_search_on_an_npu_fills_the_time_through_ais_bench(
    demo_onnx: Path, tmp_path: Path, standins: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = (f"--onnx={demo_onnx}", f"--output={tmp_path}")
    assert call("convert.sh", "4", "310P3", *flags, env=standins).returncode == 0
    for name, value in standins.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "path", [str(STANDINS), *sys.path])
    asked = Benchmark("auto", "310P3", str(tmp_path / "resnest_demo"), duration=0.2, warmup=2, output=tmp_path / "out")
    (row,) = bench(dataclasses.replace(asked, processes=[1])).rows
    summary = json.loads((tmp_path / "out/pure_bs4_summary.json").read_text())
    assert (row.batch, row.processes, row.runs) == (4, 1, len(summary["npu_compute_time_list"]))
    assert any(argument in ("--warmup_count=2", "--warmup-count=2") for argument in summary["args"])
    assert f"--loop={row.runs}" in summary["args"]
    monkeypatch.setattr(measure, "run_client", None)  # which a second search does not need
    assert bench(dataclasses.replace(asked, processes=[1])).rows == (row,)
