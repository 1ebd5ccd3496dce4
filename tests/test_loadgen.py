"""MLPerf's LoadGen drives our engines: what it asks is answered, its logs are whole, and errors end a run at once."""

from __future__ import annotations

import importlib.util
import json
import random
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest

from ResNeSt.common.errors import ArgumentError, MissingRuntimeError, PipelineError
from ResNeSt.common.timed_process import with_this_project
from ResNeSt.convert.conversion import Conversion, convert
from ResNeSt.engines.engine import TensorSpec
from ResNeSt.engines.image_batches import ModelChoice
from ResNeSt.evaluate import evaluate
from ResNeSt.loadgen import __main__ as command
from ResNeSt.loadgen.load_test import LoadTested, load_test
from ResNeSt.loadgen.samples import Samples
from ResNeSt.loadgen.settings import LoadTest, Speed, make, read_config, short_of_the_rules
from ResNeSt.loadgen.system import Asked, Query, _model, answer, batches, measure
from ResNeSt.score.score import score_summaries
from tests.conftest import PROJECT, assert_refused, call

LABELS = PROJECT / "demo/val_label.txt"
LOGS = {
    "loadgen.json",
    *(f"mlperf_log_{name}" for name in ("accuracy.json", "detail.txt", "summary.txt", "trace.json")),
}


@pytest.fixture
def loadgen() -> Any:
    return pytest.importorskip("mlperf_loadgen", reason="requirements/loadgen.txt is not installed")


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """Six pictures of the demo."""
    (tmp_path / "pictures").mkdir()
    for picture in sorted((PROJECT / "demo/val").iterdir())[:6]:
        shutil.copy(picture, tmp_path / "pictures")
    return tmp_path / "pictures"


def asked(model: Path, tmp_path: Path, **changes: Any) -> LoadTest:
    fields = {"scenario": "Offline", "output": tmp_path / "logs", **changes}
    return LoadTest(ModelChoice(model), **fields)


def test_the_accuracy_log_read_as_mlperf_documents_it_holds_the_answers_of_evaluate(
    loadgen: Any, demo_onnx: Path, tmp_path: Path
) -> None:
    lines = LABELS.read_text().splitlines()
    random.Random(0).shuffle(lines)  # sample n is line n of the file, whatever its order
    labels = tmp_path / "val_label.txt"
    labels.write_text("\n".join(lines) + "\n")
    said: list[str] = []
    tested = load_test(
        asked(demo_onnx, tmp_path, mode="accuracy", images=PROJECT / "demo/val", labels=labels), said.append
    )
    predictions = tmp_path / "predictions.jsonl"
    evaluated = evaluate(ModelChoice(demo_onnx), PROJECT / "demo/val", labels, predictions)

    first = {
        record["image"]: record["classes"][0] for record in map(json.loads, predictions.read_text().splitlines()[1:])
    }
    logged = {}
    for entry in json.loads((tested.folder / "mlperf_log_accuracy.json").read_text()):
        (value,) = struct.unpack("<f", bytes.fromhex(entry["data"]))
        logged[lines[entry["qsl_idx"]].split()[0]] = value
    assert logged == first
    assert len(logged) == 396
    result = score_summaries([tested.accuracy_log], labels)
    assert (result.score.top1, result.score.total) == (evaluated.score.top1, 396) == (393, 396)
    assert "Offline, every sample once" in said[-1]


@pytest.mark.parametrize("scenario", ["Offline", "SingleStream", "MultiStream", "Server"])
def test_every_scenario_ends_with_a_verdict_and_all_its_logs(
    scenario: str, loadgen: Any, demo_onnx: Path, few: Path, tmp_path: Path
) -> None:
    bound = {"target_qps": 50.0, "target_latency": 2000.0} if scenario == "Server" else {}
    tested = load_test(asked(demo_onnx, tmp_path, scenario=scenario, images=few, duration=0.5, **bound))
    assert {file.name for file in tested.folder.iterdir()} == LOGS
    assert (
        f"Result is : {'VALID' if tested.valid else 'INVALID'}\n"
        in (tested.folder / "mlperf_log_summary.txt").read_text()
    )
    assert tested.valid or tested.reasons
    assert (tested.rate is None) == (scenario == "MultiStream")
    assert 0 < tested.latency_ms["50.00"] <= tested.latency_ms["99.00"] < 60_000
    assert "MLPerf's own settings ask for at least 600 s (here 0.5)" in tested.notes[0]
    assert tested.batch == {"SingleStream": 1, "MultiStream": 8}.get(scenario, 16)
    assert not list((tmp_path / "logs").glob(".*"))


@pytest.mark.heavy
def test_the_benchmark_has_a_row_for_offline_and_single_stream(
    loadgen: Any, demo_onnx: Path, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import loadgen as part
    from benchmarks import rounds

    monkeypatch.setattr(rounds, "SECONDS", 0.1)
    monkeypatch.setattr(part, "interleave", lambda contenders, _: {name: work() for name, work in contenders.items()})
    prepared = call("resnest_preprocess.py", few, tmp_path / "prep", "--arch=resnest_demo")
    assert prepared.returncode == 0, prepared.stderr
    compiled = convert(Conversion(demo_onnx, list(part.BATCHES.values()), "cpu", tmp_path))
    models = {"fp32": {model.batch: model.path for model in compiled}}
    rows = part.compare(models, tmp_path / "prep", tmp_path, 1, 0.5)
    assert [row[0] for row in rows] == ["Offline, fp32, batch 16", "SingleStream, fp32, batch 1"]
    assert all(float(ratio) > 0.02 for *_, ratio in rows)


def test_an_error_behind_loadgen_s_back_is_one_line_and_leaves_no_logs(
    loadgen: Any, demo_onnx: Path, few: Path, tmp_path: Path
) -> None:
    damaged = next(iter(sorted(few.iterdir())))
    damaged.write_bytes(damaged.read_bytes()[:99])
    flags = [f"--images={few}", "--scenario=Offline", f"--output={tmp_path / 'logs'}"]
    result = call("-m", "ResNeSt.loadgen", f"--model={demo_onnx}", *flags, cwd=tmp_path)
    assert_refused(result, damaged.name, "decoded")
    assert list((tmp_path / "logs").rglob("*")) == [tmp_path / "logs/Offline"]


def test_an_interrupted_run_ends_at_once_and_leaves_no_logs(
    loadgen: Any, demo_onnx: Path, few: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "ResNeSt.loadgen", f"--model={demo_onnx}", f"--images={few}"]
    command += ["--scenario=SingleStream", f"--output={tmp_path / 'logs'}"]
    with subprocess.Popen(command, env=with_this_project(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert b"SingleStream, 60 s or more" in process.stdout.readline()
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors.startswith(b"error: interrupted")
    assert list((tmp_path / "logs").rglob("*")) == [tmp_path / "logs/SingleStream"]


def test_the_logs_of_an_earlier_run_are_left_alone(demo_onnx: Path, few: Path, tmp_path: Path) -> None:
    earlier = tmp_path / "logs/Offline/performance/mlperf_log_summary.txt"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("earlier")
    if importlib.util.find_spec("mlperf_loadgen") is None:
        pytest.skip("requirements/loadgen.txt is not installed")
    with pytest.raises(PipelineError, match=r"Offline/performance: is there already, from an earlier run"):
        load_test(asked(demo_onnx, tmp_path, images=few))
    assert [file for file in (tmp_path / "logs").rglob("*") if file.is_file()] == [earlier]


def test_without_the_package_the_line_says_how_to_install_it(
    demo_onnx: Path, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingRuntimeError, match=r"pip install -r requirements/loadgen\.txt") as caught:
        load_test(asked(demo_onnx, tmp_path, images=few))
    assert caught.value.exit_code == 3
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scenario": "Ofline"}, "scenario 'Ofline', expected one of Offline, SingleStream, MultiStream, Server"),
        ({"mode": "Accuracy"}, "mode 'Accuracy', expected one of performance, accuracy"),
        ({"images": None}, "name the samples"),
        ({"tensors": "prep"}, "name the samples"),
        ({"mode": "accuracy"}, "--mode accuracy needs --labels"),
        ({"scenario": "SingleStream", "target_qps": 5.0}, "--target-qps: SingleStream"),
        ({"target_latency": 5.0}, "--target-latency: Offline"),
        ({"duration": 0.0}, "--duration 0"),
        ({"duration": float("nan")}, "--duration nan"),
        ({"duration": 1e9}, "--duration 1e"),
        ({"target_qps": float("inf")}, "--target-qps inf"),
        ({"min_queries": 0}, "--min-queries 0"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_runs(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ArgumentError, match=words):
        load_test(asked(Path("m.onnx"), tmp_path, **{"images": "pictures", **changes}))
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("*.Offline.target_qps=100", "expected 'MODEL.SCENARIO.KEY = NUMBER'"),
        ("*.Offline.target_qps = 100 # mine", "expected 'MODEL.SCENARIO.KEY = NUMBER'"),
        ("*.Offline.target_qps = fast", "expected 'MODEL.SCENARIO.KEY = NUMBER'"),
        ("*.*.min_duration = 6e5", "expected 'MODEL.SCENARIO.KEY = NUMBER'"),
        ("*.Server.max_async_queries = -1", "expected 'MODEL.SCENARIO.KEY = NUMBER'"),
        ("*.offline.target_qps = 100", "expected a scenario of Offline, SingleStream, MultiStream, Server"),
        ("*.Offline.target_rate = 100", "LoadGen knows no target_rate"),
        ("*.Server.target_latency = 15.5", "LoadGen takes a whole number here"),
        ("*.*.mode = 1", "which --mode says"),
    ],
)
def test_a_setting_that_loadgen_would_pass_over_or_misread_is_refused(line: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "user.conf"
    path.write_text(f"# mine\n\n{line}\n")
    with pytest.raises(PipelineError, match=f"line 3: found .*{words}"):
        read_config(path, "Offline")


def test_settings_are_mlperf_s_then_ours_then_the_file_s_then_the_flags(loadgen: Any, tmp_path: Path) -> None:
    path = tmp_path / "user.conf"
    path.write_text(
        "# mine\n*.Server.target_qps = 20.5\n*.Server.min_duration = 7000\n*.SingleStream.target_latency = 10.5\n"
        "resnet50.Server.min_query_count = 9\nbert.Server.target_latency = 130\n*.Offline.min_duration = 1\n"
        "*.MultiStream.samples_per_query = 3\n"
    )
    speed = Speed(seconds=0.1, batch=4)

    def server(**changes: Any) -> Any:
        return make(loadgen, asked(Path("m.onnx"), tmp_path, scenario="Server", **changes), speed)

    ours, told, flagged = (
        server(),
        server(config=path),
        server(config=path, target_qps=5.0, duration=2.0, min_queries=3),
    )
    assert (ours.server_target_qps, ours.min_duration_ms, ours.min_query_count) == (20.0, 60_000, 1)
    assert (told.server_target_qps, told.min_duration_ms, told.min_query_count) == (20.5, 7000, 9)
    assert (flagged.server_target_qps, flagged.min_duration_ms, flagged.min_query_count) == (5.0, 2000, 3)
    assert {one.server_target_latency_ns for one in (ours, told, flagged)} == {15_000_000}
    assert server(target_latency=2.5).server_target_latency_ns == 2_500_000
    assert make(loadgen, asked(Path("m"), tmp_path, config=path), speed).min_duration_ms == 1
    several = make(loadgen, asked(Path("m"), tmp_path, scenario="MultiStream", config=path), speed)
    assert several.multi_stream_samples_per_query == 3
    stream = make(loadgen, asked(Path("m"), tmp_path, scenario="SingleStream", config=path), speed)
    assert stream.single_stream_expected_latency_ns == 10_500_000
    with pytest.raises(ArgumentError, match="queries of 60,000,000,000 images before it begins"):
        server(target_qps=1e9)


def test_a_run_by_mlperf_s_own_settings_has_no_note(loadgen: Any, tmp_path: Path) -> None:
    speed = Speed(seconds=1.0, batch=4)
    for scenario, least in {"Offline": 24576, "SingleStream": 100, "MultiStream": 662, "Server": 100}.items():
        whole = asked(Path("m"), tmp_path, scenario=scenario, duration=600.0, min_queries=least)
        assert short_of_the_rules(loadgen, whole, make(loadgen, whole, speed), 50_000) == ""
        assert "1024 samples (here 9)" in short_of_the_rules(loadgen, whole, make(loadgen, whole, speed), 9)


def queue(*queries: Asked) -> SimpleQueue[Asked]:
    filled: SimpleQueue[Asked] = SimpleQueue()
    for query in queries:
        filled.put(query)
    return filled


def test_what_waits_fills_a_batch_and_nothing_waits_for_one_to_fill() -> None:
    one, two, seven = Query([1], [10]), Query([2], [20]), Query([*range(3, 10)], [*range(30, 37)])
    assert [query.ids for query in batches(queue(one, two, seven, None), 4)] == [[1, 2, 3, 4], [5, 6, 7, 8], [9]]
    waiting = queue(one)
    asked_for = batches(waiting, 4)
    assert next(asked_for) == one
    waiting.put(two)
    assert next(asked_for) == two
    waiting.put(ValueError("in the other thread"))
    with pytest.raises(ValueError, match="in the other thread"):
        next(asked_for)


class Row:
    """An engine whose logits are its input."""

    title, info, probabilities, instances, sizes = "row", dict[str, str](), False, 1, (2,)
    input = TensorSpec("x", (2, 3), "float32")

    def run(self, batch: np.ndarray) -> np.ndarray:
        return batch.copy()

    def another(self) -> Row:
        return self


def answered(rows: Sequence[Sequence[float]], *queries: Query) -> dict[int, str]:
    samples = Samples([f"image{number}" for number in range(len(rows))], {}, 1)
    samples.rows = {number: np.array(row, np.float32) for number, row in enumerate(rows)}
    found: dict[int, str] = {}
    answer(Row(), samples, queue(*queries, None), lambda ids, classes: found.update(zip(ids, map(hexes, classes))))
    return found


def hexes(value: np.float32) -> str:
    return value.tobytes().hex()


def test_an_answer_is_the_best_class_as_a_little_endian_float32_and_of_equals_the_lower() -> None:
    found = answered([[0, 1, 9], [5, 5, 5], [0, 3, 3]], Query([70, 71, 72], [0, 1, 2]), Query([73], [0]))
    assert found == {70: "00000040", 71: "00000000", 72: "0000803f", 73: "00000040"}


def test_logits_that_are_not_finite_end_the_run_with_the_image_s_name() -> None:
    with pytest.raises(PipelineError, match="image1: its logits have NaN or infinity in them"):
        answered([[0, 1, 9], [5, float("nan"), 5]], Query([70, 71], [0, 1]))


def test_an_error_in_one_of_several_instances_ends_the_run_though_nothing_more_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Row, "instances", 2)
    asked_for = queue(Query([70], [0]))
    later = threading.Timer(10, asked_for.put, [None])  # so that a failure does not hang
    later.start()
    samples = Samples(["image0"], {}, 1)
    samples.rows = {0: np.full(3, np.nan, np.float32)}
    began = time.monotonic()
    with pytest.raises(PipelineError, match="image0: its logits have NaN"):
        answer(Row(), samples, asked_for, lambda ids, classes: None)
    later.cancel()
    assert time.monotonic() - began < 5


def test_a_model_that_computes_nothing_is_not_expected_to_answer_faster_than_it_can_be_asked(tmp_path: Path) -> None:
    speed = measure(Row())
    assert speed.batch / speed.seconds <= 100_000


@pytest.mark.parametrize(("scenario", "alone"), [("SingleStream", 1), ("MultiStream", 1), ("Offline", None)])
def test_where_nobody_says_how_many_latency_is_measured_of_one_instance(
    scenario: str, alone: int | None, tmp_path: Path
) -> None:
    assert _model(asked(Path("m.onnx"), tmp_path, scenario=scenario)).instances == alone
    three = LoadTest(ModelChoice("m.onnx", instances=3), scenario)
    assert _model(three).instances == 3


@pytest.mark.parametrize(("valid", "code", "word"), [(True, 0, "; VALID"), (False, 1, "; INVALID\n  too slow")])
def test_the_exit_code_is_the_verdict(
    valid: bool, code: int, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    reasons = [] if valid else ["too slow"]
    tested = LoadTested(tmp_path, "e", 1, 2, {}, valid, reasons, 9.0, {"50.00": 1.0}, ())
    monkeypatch.setattr(command, "load_test", lambda asked, say: tested)
    monkeypatch.setattr(sys, "argv", ["loadgen", "--model=m.xml", "--scenario=Offline", "--images=i"])
    assert command.main() == code
    assert word in capsys.readouterr().out


def entry(number: Any, data: bytes) -> dict[str, Any]:
    return {"seq_id": 0, "qsl_idx": number, "data": data.hex().upper()}


def f32(value: float) -> bytes:
    return struct.pack("<f", value)


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    (tmp_path / "labels.txt").write_text("a.jpg 3\nb.jpg 0\nc.jpg 3\n")
    return tmp_path / "labels.txt"


def score(tmp_path: Path, truth: Path, entries: Any, *flags: str) -> Any:
    (tmp_path / "mlperf_log_accuracy.json").write_text(entries if isinstance(entries, str) else json.dumps(entries))
    paths = (f"--result_path={tmp_path / 'mlperf_log_accuracy.json'}", f"--gt_path={truth}")
    return call("ResNeSt_postprocess.py", *paths, *flags)


def test_a_log_scores_top_1_and_says_that_top_5_is_not_known(tmp_path: Path, truth: Path) -> None:
    log = [entry(2, f32(3)), entry(0, f32(1)), entry(1, f32(0)), entry(2, f32(3))]  # MultiStream asks some twice
    result = score(tmp_path, truth, log, f"--json={tmp_path / 'score.json'}")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[:3] == [
        "top1_acc\t0.6667",
        "top1_correct=2, tot=3, acc=66.667%",
        "top-5 is not known, the file has one class an image; tot is 3 of 3 labelled images",
    ]
    told = json.loads((tmp_path / "score.json").read_text())
    assert (told["top1_correct"], told["top5_correct"], told["top5_acc"]) == (2, None, None)


@pytest.mark.parametrize(
    ("further", "kind"),
    [
        ([], "missing: 1 labelled images without a result"),
        ([entry(2, struct.pack("<i", 3))], "unreadable: 1 "),  # an int32, 4e-45 as a float32
        ([entry(2, struct.pack("<q", 3))], "unreadable: 1 "),
        ([entry(2, f32(-1))], "unreadable: 1 "),
        ([entry(2, f32(float("nan")))], "unreadable: 1 "),
        ([entry("2", f32(3))], "unreadable: 1 "),
        ([{"qsl_idx": 2, "data": "0g"}], "unreadable: 1 "),
        ([7], "unreadable: 1 "),
        ([entry(2, f32(3)), entry(3, f32(3))], "extra: 1 results without a label"),
        ([entry(2, f32(3)), entry(2, f32(0))], "duplicate: 1 "),
    ],
)
def test_what_is_wrong_with_a_log_is_named_and_makes_the_exit_code_1(
    further: list[Any], kind: str, tmp_path: Path, truth: Path
) -> None:
    result = score(tmp_path, truth, [entry(0, f32(3)), entry(1, f32(0)), *further])
    assert kind in result.stdout
    assert result.returncode == 1


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([], "holds no answers; LoadGen writes them in mode accuracy"),
        ('[\n{"qsl_idx" : 0, "data" : "00000000"},\n', "not valid JSON"),
        ([entry(0, struct.pack("<q", 3))], "no answer in it can be scored"),
    ],
)
def test_a_log_without_an_answer_is_refused(entries: Any, words: str, tmp_path: Path, truth: Path) -> None:
    assert_refused(score(tmp_path, truth, entries), "mlperf_log_accuracy.json", words)
