"""Several processes of one model: their own cores, loops that start together, and a sum of what ran side by side."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from ResNeSt.bench.benchmark import Benchmark, bench
from ResNeSt.bench.copies import Copies
from ResNeSt.bench.measure import timed
from ResNeSt.bench.overlap import Span, longer, shared, side_by_side, spans
from ResNeSt.common import cores
from ResNeSt.common.ais_bench_paths import MOST_LOOPS
from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.convert.conversion import Conversion, convert
from ResNeSt.infer.inference import Inference
from ResNeSt.infer.side_by_side import infer_side_by_side
from tests.conftest import CLIENTS, STANDINS, call

TWO = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core")


def test_the_cores_are_dealt_out_whole_and_to_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 3, 5, 7, 11})
    monkeypatch.setattr(cores, "cores", lambda: 5)
    assert cores.shares(2) == [[2, 3], [5, 7, 11]]
    assert cores.shares(5) == [[2], [3], [5], [7], [11]]
    with pytest.raises(ArgumentError, match="6 processes: this process may use 5 cores"):
        cores.shares(6)


def test_a_quota_bounds_the_cores_that_are_dealt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr(cores, "cores", lambda: 4)
    assert list(map(len, cores.shares(2))) == [2, 2]
    with pytest.raises(ArgumentError, match="8 processes: this process may use 4 cores"):
        cores.shares(8)


def test_what_the_client_printed_of_each_loop_is_found(tmp_path: Path) -> None:
    log = tmp_path / "log"
    lines = [
        "[INFO] multidevice run end qsize:4 result:0",
        "i:1 device_0 throughput:276.5 start_time:1676875630.8043878 end_time:1676875630.8326817",
        "[INFO] i:0 device_0 throughput:281.3                 start_time:1676875630.5 end_time:1676875630.75",
        "[INFO] summary throughput:557.9",
    ]
    log.write_text("\n".join(lines))
    assert spans(log, 2) == [Span(1676875630.5, 1676875630.75), Span(1676875630.8043878, 1676875630.8326817)]
    assert spans(log, 3) is None
    log.write_text("another client")
    assert spans(log, 2) is None


def test_only_runs_that_had_the_others_beside_them_count() -> None:
    """Ten runs of 100 ms and of 200 ms; the second loop begins 0.35 s late, the first has ended before it does."""
    loops = [Span(10.0, 11.0), Span(10.35, 12.35)]
    first, second = side_by_side([[100.0] * 10, [200.0] * 10], loops)
    assert (len(first), len(second)) == (6, 3)  # from 10.4 on; up to 10.95
    assert shared(loops) == pytest.approx(0.65 / 2)


def test_loops_after_each_other_share_nothing_and_are_not_added(tmp_path: Path) -> None:
    loops = [Span(10.0, 10.2), Span(10.9, 11.1)]
    assert shared(loops) == 0
    for index in range(2):
        (tmp_path / f"{index}.json").write_text(json.dumps({"npu_compute_time_list": [2.0] * 100}))
    with pytest.raises(PipelineError, match="no run that had all others beside it"):
        timed(1, Copies(2), [tmp_path / "0.json", tmp_path / "1.json"], loops)


def test_a_longer_loop_is_long_enough_for_the_same_delay() -> None:
    loops = [Span(10.0, 10.2), Span(10.9, 11.1)]  # 100 runs of 2 ms, 0.9 s apart
    wanted = longer(100, loops)
    assert shared([Span(0, 0.002 * wanted), Span(0.9, 0.9 + 0.002 * wanted)]) == pytest.approx(0.75, abs=0.01)
    assert longer(100, [Span(0, 1e-6), Span(9, 9 + 1e-6)]) == MOST_LOOPS


def test_a_loop_that_the_clock_sees_slower_is_remarked_on(tmp_path: Path) -> None:
    """Ten runs of 5 ms, each in 10 ms with its copies."""
    paths = [tmp_path / "0.json", tmp_path / "1.json"]
    for path in paths:
        path.write_text(json.dumps({"npu_compute_time_list": [5.0] * 10}))
    found = timed(4, Copies(2), paths, [Span(0, 0.1), Span(0, 0.1)])
    assert found.images_per_second == pytest.approx(1600)
    assert found.remarks == (
        "batch 4, 2 processes: 1600.0 images/s of the network alone, 800.0 by the clock, with all copies",
    )
    assert timed(4, Copies(2), paths, [Span(0, 0.05), Span(0, 0.05)]).remarks == ()
    assert "did not say when each ran" in timed(4, Copies(2), paths, None).remarks[0]


@pytest.fixture(scope="module")
def model(demo_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("side")
    (compiled,) = convert(Conversion(demo_onnx, [1], "cpu", folder))
    return compiled.path


@TWO
def test_processes_on_cpu_begin_together_each_with_a_summary_of_its_own(model: Path, tmp_path: Path) -> None:
    asked = Inference(model, output=tmp_path, dirname="d", loop=30)
    said: list[str] = []
    found = infer_side_by_side(asked, 2, said.append)
    assert abs(found[0].started - found[1].started) < 0.5 * min(each.ended - each.started for each in found) + 0.05
    for index, inferred in enumerate(found):
        told = json.loads((tmp_path / f"d/device0_{index}_summary.json").read_text())
        assert told["npu_compute_time_list"] == list(inferred.times_ms)
        assert len(inferred.times_ms) == 30
    (tmp_path / "log").write_text("\n".join(said))
    assert spans(tmp_path / "log", 2) == [Span(each.started, each.ended) for each in found]


@TWO
def test_a_model_that_cannot_be_opened_ends_all_processes_with_its_own_reason(model: Path, tmp_path: Path) -> None:
    (tmp_path / "m.xml").write_bytes(model.read_bytes())
    with pytest.raises(PipelineError, match=r"m\.xml: OpenVINO cannot compile it"):
        infer_side_by_side(Inference(tmp_path / "m.xml"), 2)
    with pytest.raises(ArgumentError, match="with --tensors there is one"):
        infer_side_by_side(Inference(model, tensors=tmp_path), 2)


@TWO
def test_every_number_of_processes_has_a_row_and_the_accuracy_is_measured_once(model: Path, tmp_path: Path) -> None:
    prefix = str(model).removesuffix("_bs1.xml")
    asked = Benchmark([1], "cpu", prefix, loop=100, output=tmp_path / "out", processes=[1, 2, 2])
    benched = bench(asked)
    assert [(row.batch, row.processes) for row in benched.rows] == [(1, 1), (1, 2)]
    record = json.loads((tmp_path / "out/bench.json").read_text())
    assert [row["processes"] for row in record["rows"]] == [1, 2]
    assert sum(row["best"] for row in record["rows"]) == 1
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert [speed["processes"] for speed in report["speeds"]] == [1, 2]
    log = tmp_path / "out/pure_bs1_x2.log"
    assert spans(log, 2) is not None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"processes": [1000]}, "1000 processes: this process may use"),
        ({"processes": [0]}, "expected whole numbers above 0"),
        ({"processes": []}, "expected whole numbers above 0"),
        ({"devices": [0, 0], "chip": "310P3"}, "--device 0,0: names one twice; --processes N runs N on each"),
    ],
)
def test_processes_that_cannot_be_are_refused_before_anything_runs(
    changes: dict[str, object], words: str, model: Path, tmp_path: Path
) -> None:
    asked = Benchmark([1], "cpu", str(model).removesuffix("_bs1.xml"), output=tmp_path / "out")
    with pytest.raises(ArgumentError, match=words):
        bench(dataclasses.replace(asked, **changes))  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


@pytest.fixture
def ascend(demo_onnx: Path, tmp_path: Path, standins: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the demo's model for 310P3, on a host with the stand-ins."""
    assert call("convert.sh", "4", "310P3", f"--onnx={demo_onnx}", f"--output={tmp_path}", env=standins).returncode == 0
    for name, value in standins.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "path", [str(STANDINS), *sys.path])
    return tmp_path


@pytest.mark.parametrize("standins", CLIENTS, indirect=True)
def test_processes_share_an_npu_and_their_images_add_up(ascend: Path) -> None:
    (row,) = bench(
        Benchmark([4], "310P3", str(ascend / "resnest_demo"), loop=100, output=ascend / "out", processes=[2])
    ).rows
    told = [json.loads((ascend / f"out/pure_bs4_x2/device0_{index}_summary.json").read_text()) for index in range(2)]
    assert all("--device=0,0" in each["args"] for each in told)
    loops = spans(ascend / "out/pure_bs4_x2.log", 2)
    assert loops is not None
    counted = side_by_side([each["npu_compute_time_list"] for each in told], loops)
    assert row.images_per_second == pytest.approx(sum(4000 / float(np.mean(times)) for times in counted))
    assert row.mean_ms == pytest.approx(float(np.mean(np.concatenate(counted))))


def test_processes_that_begin_too_far_apart_run_once_more_and_longer(
    ascend: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_LATE", "0.3")
    asked = Benchmark([4], "310P3", str(ascend / "resnest_demo"), loop=2, output=ascend / "out", processes=[2])
    (row,) = bench(asked).rows
    told = json.loads((ascend / "out/pure_bs4_x2/device0_0_summary.json").read_text())
    assert len(told["npu_compute_time_list"]) > 2
    assert row.processes == 2
