"""Stage 4, the table: accuracy and speed of every batch size, on cpu and through the Ascend client."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ResNeSt.bench.benchmark import Benched, Benchmark, check_devices
from ResNeSt.bench.benchmark import bench as bench_models
from ResNeSt.bench.benchmark import bench as run_bench
from ResNeSt.bench.copies import Copies
from ResNeSt.bench.measure import Timed, accuracy, measured, timed
from ResNeSt.bench.models import record_of
from ResNeSt.bench.rows import BenchRow, unlike
from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.labels.file import read_labels, write_labels
from ResNeSt.models import sidecar
from ResNeSt.models.files import digests
from ResNeSt.score.score import Result, Score
from tests.conftest import CLIENTS, PROJECT, Completed, assert_refused, call

LABELS = PROJECT / "demo" / "val_label.txt"
EXPECTED = PROJECT / "demo" / "expected.json"
COLUMNS = [
    "batch",
    "processes",
    "instances",
    "top1",
    "top5",
    "images_per_second",
    "mean_ms",
    "p50_ms",
    "p90_ms",
    "p99_ms",
    "p99_9_ms",
    "best",
    "date",
    "host",
]


@pytest.fixture(scope="session")
def work(demo_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the demo's tensors and its models compiled for cpu at batch 1 and 4."""
    folder = tmp_path_factory.mktemp("bench")
    assert call("resnest_preprocess.py", PROJECT / "demo/val", folder / "prep", "--arch=resnest_demo").returncode == 0
    result = call("convert.sh", "1,4", "cpu", f"--onnx={demo_onnx}", f"--output={folder}")
    assert result.returncode == 0, result.stderr
    return folder


def bench(
    work: Path,
    output: str | Path,
    *flags: str,
    chip: str = "cpu",
    batches: str = "1,4",
    env: dict[str, str] | None = None,
) -> Completed:
    return call(
        "bench.sh",
        batches,
        chip,
        "--model=resnest_demo",
        "--loop=5",
        f"--output={output}",
        *flags,
        cwd=work,
        env=env,
    )


ACCURACY = ("--input=prep", f"--labels={LABELS}")


@pytest.fixture(scope="session")
def on_cpu(work: Path) -> dict[str, Any]:
    result = bench(work, "cpu", *ACCURACY)
    assert result.returncode == 0, result.stderr
    told: dict[str, Any] = json.loads((work / "cpu/bench.json").read_text())
    return told


def test_every_batch_size_has_the_accuracy_that_training_measured(on_cpu: dict[str, Any]) -> None:
    expected = json.loads(EXPECTED.read_text())
    assert [row["batch"] for row in on_cpu["rows"]] == [1, 4]
    for row in on_cpu["rows"]:
        assert row["top1"] == pytest.approx(100 * expected["top1"])
        assert row["top5"] == pytest.approx(100 * expected["top5"])


def test_the_figures_are_those_of_the_client_s_times(on_cpu: dict[str, Any], work: Path) -> None:
    for row in on_cpu["rows"]:
        times = json.loads((work / f"cpu/pure_bs{row['batch']}_summary.json").read_text())["npu_compute_time_list"]
        assert len(times) == 5
        assert row["images_per_second"] == pytest.approx(1000 * row["batch"] / np.mean(times))
        assert row["mean_ms"] == pytest.approx(np.mean(times))
        assert row["p50_ms"] == pytest.approx(np.percentile(times, 50))
        assert row["p90_ms"] == pytest.approx(np.percentile(times, 90))
        assert row["p99_ms"] == pytest.approx(np.percentile(times, 99))
        assert row["p99_9_ms"] == pytest.approx(np.percentile(times, 99.9))


def test_latencies_are_those_of_all_devices_and_their_speeds_add_up(tmp_path: Path) -> None:
    """Of 1 to 100 and 152 ms, dealt out to two devices."""
    expected = [*range(1, 101), 152]
    times = np.random.default_rng(0).permutation(expected).tolist()
    shares, summaries = (times[:40], times[40:]), []
    for device, share in enumerate(shares):
        summaries.append(tmp_path / f"device{device}_summary.json")
        summaries[device].write_text(json.dumps({"npu_compute_time_list": share}))
    (tmp_path / "m_bs4.om").write_bytes(b"model")
    found = measured(tmp_path / "m_bs4.om", 4, {}, None, [], [timed(4, Copies(), summaries, None)], [])
    (row,), (speed,) = found.rows, found.speeds
    assert (row.p50_ms, row.p90_ms, row.p99_ms) == (51, 91, 100)
    assert row.mean_ms == speed.mean_ms == pytest.approx(5202 / 101)
    assert row.images_per_second == pytest.approx(sum(4000 * len(share) / sum(share) for share in shares))
    assert speed.percentiles_ms == pytest.approx(expected)
    assert (speed.batch, speed.images_per_second) == (4, row.images_per_second)


def test_a_row_says_how_many_were_right_at_first_guess_and_within_five(tmp_path: Path) -> None:
    (tmp_path / "m_bs4.om").write_bytes(b"model")
    result = Result(Score({1: 3, 5: 5}, 8), 8, 10, {}, {})
    times = [Timed(1, 1, 2000.0, np.array([2.0])), Timed(2, 1, 2500.0, np.array([3.2]))]
    found = measured(tmp_path / "m_bs4.om", 4, {}, result, [], times, [])
    assert [(row.processes, row.top1, row.top5) for row in found.rows] == [(1, 37.5, 62.5), (2, 37.5, 62.5)]
    assert found.judged is not None
    assert (found.judged.result, found.judged.images_per_second) == (result, 2500)
    without = measured(tmp_path / "m_bs4.om", 4, {}, None, [], times[:1], [])
    assert (without.rows[0].top1, without.rows[0].top5, without.judged) == (None, None, None)


def test_the_fastest_row_is_the_one_with_most_images_a_second() -> None:
    latencies, unknown = (9.0,) * 5, ("", "", "", "")
    rows = [
        BenchRow(batch, 1, 1, None, None, rate, *latencies, 9, "", "m", {}, *unknown)
        for batch, rate in ((1, 5), (4, 7))
    ]
    assert Benched(tuple(rows), Path("out")).fastest is rows[1]
    assert Benched(tuple(rows[::-1]), Path("out")).fastest is rows[1]


def scored(folder: Path, images: int, runs: int) -> Path:
    """A client's results of `images` images, all right, that took `runs` runs; the labels name two, or all, of them."""
    (folder / "r").mkdir()
    files = {}
    for number in range(images):
        np.eye(3, dtype=np.float32)[number % 3].tofile(folder / f"r/img{number}_0.bin")
        files[str(number)] = {"infiles": [f"img{number}.bin"], "outfiles": [f"r/img{number}_0.bin"]}
    (folder / "labels").write_text("".join(f"img{number} {number % 3}\n" for number in range(5)))
    summary = folder / "r_summary.json"
    summary.write_text(json.dumps({"filesinfo": files, "npu_compute_time_list": [1.0] * runs}))
    return summary


def test_an_image_without_a_result_stops_the_run(tmp_path: Path) -> None:
    assert accuracy(Path("m"), 4, [scored(tmp_path, 5, 2)], tmp_path / "labels").score.top1 == 5
    (tmp_path / "other").mkdir()
    with pytest.raises(PipelineError, match=r"r_summary\.json: 1 missing, such as img4; look with: .*--labels="):
        accuracy(Path("m"), 4, [scored(tmp_path / "other", 4, 1)], tmp_path / "labels")


@pytest.mark.parametrize("runs", [1, 3, 5])
def test_a_model_that_took_other_runs_than_its_name_says_is_refused(runs: int, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=rf"m_bs4\.om: took {runs} runs for 5 images, a batch of 4 takes 2"):
        accuracy(Path("m_bs4.om"), 4, [scored(tmp_path, 5, runs)], tmp_path / "labels")


def test_the_fastest_batch_size_is_marked_in_every_output(on_cpu: dict[str, Any], work: Path) -> None:
    fastest = max(on_cpu["rows"], key=lambda row: row["images_per_second"])
    assert [row["best"] for row in on_cpu["rows"]] == [row is fastest for row in on_cpu["rows"]]
    with open(work / "cpu/bench.csv", newline="") as file:
        assert [row["batch"] for row in csv.DictReader(file) if row["best"] == "True"] == [str(fastest["batch"])]


def test_the_csv_and_the_json_say_when_where_and_with_what(on_cpu: dict[str, Any], work: Path) -> None:
    with open(work / "cpu/bench.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert set(COLUMNS) <= set(rows[0])
    assert on_cpu["chip"] == rows[0]["chip"] == "cpu"
    assert on_cpu["versions"]["openvino"] in rows[0]["versions"]
    assert on_cpu["loop"] == 5


def test_each_row_says_which_model_ran_and_what_it_was_compiled_for(on_cpu: dict[str, Any], work: Path) -> None:
    with open(work / "cpu/bench.csv", newline="") as file:
        flat = list(csv.DictReader(file))
    for row, told in zip(on_cpu["rows"], flat):
        model = work / f"resnest_demo_bs{row['batch']}.xml"
        digests = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (model, model.with_suffix(".bin"))
        }
        record = json.loads(Path(f"{model}.json").read_text())
        assert (row["model"], row["sha256"], row["network"]) == (model.name, digests, record["network"])
        assert (row["precision"], row["dtype"], row["compiled_for"]) == ("fp32", "float32", "cpu")
        assert told["sha256"] == " ".join(f"{name}={digest}" for name, digest in digests.items())
        assert (told["precision"], told["dtype"], told["compiled_for"]) == ("fp32", "float32", "cpu")


@pytest.fixture
def compiled(tmp_path: Path) -> Callable[..., Path]:
    """Puts a file where a model for a batch size would be, with a record beside it."""

    def put(batch: int, **record: str) -> Path:
        model = tmp_path / f"m_bs{batch}.om"
        model.write_bytes(b"model %d" % batch)
        files = {model.name: hashlib.sha256(model.read_bytes()).hexdigest()}
        sidecar.write(model, {"batch": batch, "chip": "310P3", "files": files, **record})
        return model

    return put


def test_a_model_of_another_chip_is_refused(compiled: Callable[..., Path], tmp_path: Path) -> None:
    model = compiled(1)
    with pytest.raises(PipelineError, match=r"m_bs1\.om: is compiled for 310P3, says m_bs1\.om\.json, not for 910B3;"):
        bench_models(Benchmark([1], "910B3", prefix=str(tmp_path / "m"), output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    model.write_bytes(b"another one, of which nothing is known")
    assert record_of(model, digests(model)) == {}


def test_a_model_that_was_renamed_with_its_record_keeps_it(compiled: Callable[..., Path], tmp_path: Path) -> None:
    for name in (compiled(1).name, "m_bs1.om.json"):
        (tmp_path / name).rename(tmp_path / f"new{name}")
    assert record_of(tmp_path / "newm_bs1.om", digests(tmp_path / "newm_bs1.om"))["chip"] == "310P3"


@pytest.mark.parametrize("name", ["m_bs1.om", "m_dyn.xml", "m_bs1.ncnn.param", "m.onnx"])
def test_a_model_file_in_place_of_what_the_names_begin_with_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ArgumentError, match=rf"{name}: is a file; name what .* begin with: \S*/m$"):
        bench_models(Benchmark([1], "cpu", prefix=str(tmp_path / name), output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_model_without_its_weights_is_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "m_bs1.xml").write_text("<net/>")
    with pytest.raises(PipelineError, match=r"m_bs1\.bin: no such file; make it with: bash convert\.sh 1 cpu"):
        bench_models(Benchmark([1], "cpu", prefix=str(tmp_path / "m"), output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_models_of_two_networks_make_no_table(compiled: Callable[..., Path], tmp_path: Path) -> None:
    compiled(1, network="a", source="1")
    compiled(2, network="a", source="2")  # in int8
    compiled(4, network="b", source="1")  # without the ONNX file that it was simplified from
    compiled(8, network="b", source="3")
    asked = Benchmark([1, 2, 4, 8], "310P3", prefix=str(tmp_path / "m"), output=tmp_path / "out")
    with pytest.raises(
        PipelineError, match=r"m_bs8\.om: is compiled from another network than .*m_bs1\.om; .* 1,2,4,8 310P3\b"
    ):
        bench_models(asked)


def test_models_compiled_in_different_ways_are_told_apart_below_the_table() -> None:
    def rows(*precisions: str) -> list[BenchRow]:
        figures = (1, 1, 1, None, None, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1, "")
        return [BenchRow(*figures, f"m{n}", {}, "", precision, precision, "") for n, precision in enumerate(precisions)]

    assert unlike(rows("fp32", "fp32")) == []
    assert unlike(rows("fp32", "int8")) == ["m0: precision fp32, dtype fp32", "m1: precision int8, dtype int8"]
    assert unlike(rows("unknown")) == ["m0: precision unknown, dtype unknown"]


def test_the_report_has_the_same_scores_and_speeds(on_cpu: dict[str, Any], work: Path) -> None:
    found = json.loads((work / "cpu/report.json").read_text())
    rows = on_cpu["rows"]
    assert [100 * stage["top1"] / stage["total"] for stage in found["stages"]] == pytest.approx(
        [r["top1"] for r in rows]
    )
    assert [speed["percentiles_ms"][90] for speed in found["speeds"]] == pytest.approx([row["p90_ms"] for row in rows])
    assert (found["model"], found["size"]) == ("resnest_demo", 96)
    assert "<svg" in (work / "cpu/report.html").read_text()


def test_without_labels_the_speed_alone_is_measured_and_what_lacks_is_named(work: Path) -> None:
    (work / "prep_dataset").mkdir()
    result = bench(work, "speed", batches="4")
    (work / "prep_dataset").rmdir()
    assert result.returncode == 0, result.stderr
    assert "speed alone: no val_label.txt here, no --tensors" in result.stdout
    assert json.loads((work / "speed/bench.json").read_text())["rows"][0]["top1"] is None


def test_tensors_and_labels_of_the_usual_names_are_found(work: Path, tmp_path: Path) -> None:
    for path in work.glob("resnest_demo_bs4.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "prep_dataset").symlink_to(work / "prep")
    (tmp_path / "val_label.txt").write_text(LABELS.read_text())
    assert bench(tmp_path, "out", batches="4").returncode == 0
    assert json.loads((tmp_path / "out/bench.json").read_text())["rows"][0]["top1"] > 90


def test_a_model_that_is_not_compiled_is_named_with_the_command_that_compiles_it(work: Path) -> None:
    command = "make it with: bash convert.sh 2 cpu --onnx=resnest_demo.onnx"
    assert_refused(bench(work, "x", batches="2"), "resnest_demo_bs2.xml", command)


@pytest.mark.parametrize(
    ("prefix", "flags"),
    [
        ("resnest50", ""),
        ("pets", " --onnx=pets.onnx"),
        ("work/pets", " --onnx=work/pets.onnx --output=work"),
        ("my work/resnest50", " '--onnx=my work/resnest50.onnx' '--output=my work'"),
    ],
)
def test_the_command_that_makes_a_missing_model_names_its_onnx_file_and_its_folder(prefix: str, flags: str) -> None:
    with pytest.raises(PipelineError, match=re.escape(f"make it with: bash convert.sh 8 310P3{flags}") + "$"):
        run_bench(Benchmark([8], "310P3", prefix))


def test_pictures_that_are_not_those_of_the_tensors_are_refused_before_anything_is_measured(
    work: Path, tmp_path: Path
) -> None:
    model, out = str(work / "resnest_demo"), tmp_path / "out"
    asked = Benchmark([1], "cpu", model, tensors=work / "prep", labels=LABELS, output=out)
    (tmp_path / "empty").mkdir()
    (tmp_path / "others").mkdir()
    shutil.copy(PROJECT / "demo/train/digits_train_00000001.JPEG", tmp_path / "others")
    for name, words in (("nowhere", "no such folder"), ("empty", "empty: "), ("others", "none of which the tensors")):
        with pytest.raises(PipelineError, match=words):
            run_bench(dataclasses.replace(asked, images=tmp_path / name))
    assert not (tmp_path / "out").exists()


def test_labels_that_count_from_1_are_told_below_the_table(work: Path, tmp_path: Path) -> None:
    """They would be right one lower; class 9, which alone would become impossible, is not among them."""
    truth = {name: label for name, label in read_labels(LABELS).items() if label < 9}
    few = dict(list(truth.items())[:12])
    (tmp_path / "prep").mkdir()
    for name in few:
        shutil.copy(work / f"prep/{name}.bin", tmp_path / "prep")
    write_labels({name: label + 1 for name, label in few.items()}, tmp_path / "l.txt")
    tensors = (f"--input={tmp_path / 'prep'}", f"--labels={tmp_path / 'l.txt'}")
    result = bench(work, tmp_path / "out", *tensors, "--no-report", batches="1")
    assert result.returncode == 0, result.stderr
    assert "12 would be right: they seem to count from 1, and classes count from 0" in result.stdout


def test_tensors_without_labels_are_refused(work: Path) -> None:
    assert_refused(bench(work, "x", "--input=prep"), "--labels", code=2)


def test_images_that_only_the_labels_name_are_refused_before_anything_runs(work: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text(LABELS.read_text() + "never_seen.JPEG 1\n")
    result = bench(work, "x", "--input=prep", f"--labels={tmp_path / 'labels.txt'}", batches="4")
    assert_refused(result, "1 of 397 labelled images are not in prep", "never_seen")
    assert not (work / "x").exists()


def test_results_that_cannot_be_scored_stop_the_run_and_are_counted(
    on_cpu: dict[str, Any], work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    summary = json.loads(Path("cpu/result_bs4_summary.json").read_text())
    (tmp_path / "digits_val_00000008_0.txt").write_text("nan " * 10 + "\n")
    summary["filesinfo"]["7"]["outfiles"] = [str(tmp_path / "digits_val_00000008_0.txt")]
    (tmp_path / "s.json").write_text(json.dumps(summary))
    with pytest.raises(PipelineError, match=r"s\.json: 1 not-finite, such as .*ResNeSt_postprocess\.py"):
        accuracy(Path("resnest_demo_bs4.xml"), 4, [tmp_path / "s.json"], str(LABELS))


def test_tensors_without_a_label_are_refused_before_anything_runs(work: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("\n".join(LABELS.read_text().splitlines()[1:]))
    result = bench(work, "x", "--input=prep", f"--labels={tmp_path / 'labels.txt'}", batches="4")
    assert_refused(result, "1 of the 396 images in prep have no label", "digits_val_00000001")


def test_tensors_of_another_normalisation_are_refused_on_either_chip(
    work: Path, tmp_path: Path, ascend: dict[str, str]
) -> None:
    shutil.copytree(work / "prep", tmp_path / "prep")
    about = json.loads((tmp_path / "prep/tensors.json").read_text())
    about["mean"] = [0.5, 0.5, 0.5]
    (tmp_path / "prep/tensors.json").write_text(json.dumps(about))
    for chip in ("cpu", "310P3"):
        result = bench(
            work, f"other-{chip}", f"--input={tmp_path / 'prep'}", f"--labels={LABELS}", chip=chip, env=ascend
        )
        assert "normalised with mean [0.5, 0.5, 0.5], the model wants [0.485, 0.456, 0.406]" in result.stderr
        assert result.returncode == 1


def test_what_an_earlier_run_measured_does_not_stay_beside_one_that_failed(work: Path, tmp_path: Path) -> None:
    shutil.copytree(work / "cpu", tmp_path / "out")
    (tmp_path / "out/report.html").touch()
    shutil.copy(work / "resnest_demo_bs4.xml", tmp_path / "resnest_demo_bs4.xml")
    (tmp_path / "resnest_demo_bs4.bin").write_bytes(b"damaged")
    assert call("bench.sh", "4", "cpu", "--prefix=resnest_demo", "--output=out", cwd=tmp_path).returncode == 1
    assert not [path for path in (tmp_path / "out").iterdir() if path.stem in ("bench", "report")]


def test_a_report_that_was_drawn_before_stays_where_none_is_asked_for(work: Path, tmp_path: Path) -> None:
    for suffix in (".xml", ".bin"):
        shutil.copy(work / f"resnest_demo_bs1{suffix}", tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/report.html").write_text("precious")
    flags = ["--model=resnest_demo", "--output=out", "--loop=1", "--no-report"]
    assert call("bench.sh", "1", "cpu", *flags, cwd=tmp_path).returncode == 0
    assert (tmp_path / "out/report.html").read_text() == "precious"


def test_an_output_folder_that_was_there_keeps_its_mode(work: Path, tmp_path: Path, ascend: dict[str, str]) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    result = call(
        "bench.sh", "1", "cpu", f"--prefix={work / 'resnest_demo'}", "--loop=1", "--output=open", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o755
    result = bench(work, tmp_path / "open", chip="310P3", batches="1", env=ascend)
    assert_refused(result, "mode 0755", "chmod 750")


@pytest.fixture
def ascend(work: Path, demo_onnx: Path, standins: dict[str, str]) -> dict[str, str]:
    """The environment of an Ascend host on which the demo is compiled for 310P3."""
    result = call("convert.sh", "1,4", "310P3", f"--onnx={demo_onnx}", f"--output={work}", env=standins)
    assert result.returncode == 0, result.stderr
    return standins


def test_the_ascend_path_gives_the_accuracy_of_the_cpu_path(
    work: Path, ascend: dict[str, str], on_cpu: dict[str, Any]
) -> None:
    result = bench(work, "npu", *ACCURACY, chip="310P3", env=ascend)
    assert result.returncode == 0, result.stderr
    found = json.loads((work / "npu/bench.json").read_text())
    assert found["chip"] == "310P3"
    for ours, theirs in zip(found["rows"], on_cpu["rows"]):
        assert (ours["top1"], ours["top5"]) == (theirs["top1"], theirs["top5"])


def test_uint8_tensors_through_aipp_give_the_accuracy_of_float32_tensors(
    demo_onnx: Path, tmp_path: Path, standins: dict[str, str], on_cpu: dict[str, Any]
) -> None:
    call("resnest_preprocess.py", PROJECT / "demo/val", tmp_path / "prep", "--arch=resnest_demo", "--dtype=uint8")
    for chip in ("310P3", "cpu"):
        flags = (f"--onnx={demo_onnx}", f"--output={tmp_path}", "--dtype=uint8")
        assert call("convert.sh", "4", chip, *flags, env=standins).returncode == 0
        result = bench(tmp_path, chip, *ACCURACY, chip=chip, batches="4", env=standins)
        assert result.returncode == 0, result.stderr
        found = json.loads((tmp_path / chip / "bench.json").read_text())["rows"][0]
        assert (found["top1"], found["top5"]) == (on_cpu["rows"][1]["top1"], on_cpu["rows"][1]["top5"])


@pytest.mark.parametrize("standins", CLIENTS, indirect=True)
def test_of_two_devices_the_one_that_fails_is_named_with_its_reason(work: Path, ascend: dict[str, str]) -> None:
    result = bench(work, "two", "--device=0,1", chip="310P3", batches="1", env={**ascend, "STANDIN_BROKEN_DEVICE": "1"})
    assert_refused(result, "exit code 1: device 1: open device 1 failed, errorCode is 507033 (all of it in")


def test_a_tensor_that_the_client_would_refuse_is_named_before_anything_runs(
    work: Path, ascend: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "prep").mkdir()
    shutil.copy(next((work / "prep").glob("*.bin")), tmp_path / "prep/img (1).bin")
    (tmp_path / "labels.txt").write_text("img (1).JPEG 0\n")
    flags = [f"--input={tmp_path / 'prep'}", f"--labels={tmp_path / 'labels.txt'}"]
    result = bench(work, "tensor", *flags, chip="310P3", env=ascend)
    assert_refused(result, "img (1).bin: ais_bench takes only letters, digits", "run: mv ")
    assert not (work / "tensor").exists()


def test_the_output_folder_is_of_the_mode_that_today_s_client_accepts(work: Path, ascend: dict[str, str]) -> None:
    assert bench(work, "mode", chip="310P3", batches="1", env=ascend).returncode == 0
    assert stat.S_IMODE((work / "mode").stat().st_mode) == 0o750


def test_a_path_that_the_client_would_refuse_is_refused_with_what_to_do(work: Path, ascend: dict[str, str]) -> None:
    assert_refused(bench(work, "a b", chip="310P3", env=ascend), "a b", "letters, digits", "name another")


def test_a_model_that_others_can_write_is_refused_with_the_chmod_that_helps(work: Path, ascend: dict[str, str]) -> None:
    model = work / "resnest_demo_bs1.om"
    model.chmod(0o666)
    try:
        assert_refused(bench(work, "x", chip="310P3", batches="1", env=ascend), "chmod -R go-w resnest_demo_bs1.om")
    finally:
        model.chmod(0o644)


def test_a_linked_model_is_refused_with_what_to_do(work: Path, ascend: dict[str, str], tmp_path: Path) -> None:
    os.symlink(work / "resnest_demo_bs1.om", tmp_path / "resnest_demo_bs1.om")
    assert_refused(bench(tmp_path, "x", chip="310P3", batches="1", env=ascend), "symbolic link")


def test_without_ais_bench_the_run_ends_with_3_and_names_the_requirements(work: Path, ascend: dict[str, str]) -> None:
    without = {**ascend, "PYTHONPATH": ""}
    assert_refused(bench(work, "x", chip="310P3", batches="1", env=without), "requirements/npu.txt", code=3)


def test_a_client_that_fails_is_quoted(work: Path, ascend: dict[str, str]) -> None:
    (work / "resnest_demo_bs2.om").write_bytes(b"damaged")
    result = bench(work, "x", chip="310P3", batches="2", env=ascend)
    assert_refused(result, "resnest_demo_bs2.om", "exit code", "pure_bs2.log")


def test_several_devices_share_the_data_set_and_their_results_are_one_score(
    work: Path, ascend: dict[str, str], on_cpu: dict[str, Any]
) -> None:
    result = bench(work, "two", *ACCURACY, "--device=0,1", chip="310P3", batches="4", env=ascend)
    assert result.returncode == 0, result.stderr
    (row,) = json.loads((work / "two/bench.json").read_text())["rows"]
    assert (row["top1"], row["top5"]) == (on_cpu["rows"][1]["top1"], on_cpu["rows"][1]["top5"])
    shares = [
        {entry["infiles"][0] for entry in json.loads(path.read_text())["filesinfo"].values()}
        for path in sorted((work / "two/result_bs4").glob("device*_summary.json"))
    ]
    assert [len(share) for share in shares] == [198, 198]
    assert not shares[0] & shares[1]


def test_the_speed_of_several_devices_is_their_sum(work: Path, ascend: dict[str, str]) -> None:
    assert bench(work, "sum", "--device=3,7", "--loop=60", chip="310P3", batches="4", env=ascend).returncode == 0
    (row,) = json.loads((work / "sum/bench.json").read_text())["rows"]
    summaries = [json.loads((work / f"sum/pure_bs4/device{name}_summary.json").read_text()) for name in ("3_0", "7_1")]
    assert row["images_per_second"] == pytest.approx(sum(summary["throughput"] for summary in summaries), rel=0.5)


def test_a_device_that_leaves_no_result_stops_the_run(work: Path, ascend: dict[str, str], tmp_path: Path) -> None:
    client = tmp_path / "ais_bench"
    client.mkdir()
    (client / "__init__.py").write_text("")
    (client / "__main__.py").write_text("print('device 1 is lost')\n")
    environment = {**ascend, "PYTHONPATH": str(tmp_path)}
    result = bench(work, "lost", "--device=0,1", chip="310P3", batches="4", env=environment)
    assert_refused(result, "resnest_demo_bs4.om", "device 1 is lost")


def test_cpu_is_one_device(work: Path) -> None:
    assert_refused(bench(work, "x", "--device=0,1"), "--device is for NPUs", code=2)


@pytest.mark.parametrize("devices", [[], [-1], ["0"], [True], [256], [0.0], [0, 0]])
def test_devices_are_numbers_of_npus_each_named_once(devices: list[Any]) -> None:
    with pytest.raises(ArgumentError, match=r"devices? "):
        check_devices("310P3", devices)


def test_one_model_of_several_batch_sizes_has_the_rows_of_one_model_each(
    work: Path, demo_onnx: Path, standins: dict[str, str], on_cpu: dict[str, Any]
) -> None:
    for chip, suffix in (("cpu", "xml"), ("310P3", "om")):
        flags = (f"--onnx={demo_onnx}", f"--output={work}", "--dynamic-batch")
        assert call("convert.sh", "1,4", chip, *flags, env=standins).returncode == 0
        result = bench(
            work, f"dyn-{chip}", *ACCURACY, "--dynamic-batch", "--profile", "--no-report", chip=chip, env=standins
        )
        assert result.returncode == 0, result.stderr
        told = json.loads((work / f"dyn-{chip}/bench.json").read_text())
        assert [(row["batch"], row["model"]) for row in told["rows"]] == [
            (1, f"resnest_demo_dyn.{suffix}"),
            (4, f"resnest_demo_dyn.{suffix}"),
        ]
        for ours, theirs in zip(told["rows"], on_cpu["rows"]):
            assert (ours["top1"], ours["top5"]) == (theirs["top1"], theirs["top5"])
        report = json.loads((work / f"dyn-{chip}/report.json").read_text())
        assert report["about"]["models"] == f"resnest_demo_dyn.{suffix}"
        for batch in (1, 4):
            assert (work / f"dyn-{chip}/profile_bs{batch}.csv").is_file()
            times = json.loads((work / f"dyn-{chip}/result_bs{batch}_summary.json").read_text())[
                "npu_compute_time_list"
            ]
            assert len(times) == 396 // batch


def test_a_model_of_several_batch_sizes_that_lacks_one_is_named_with_the_command_that_adds_it(tmp_path: Path) -> None:
    prefix = str(tmp_path / "m")
    asked = Benchmark([4], "310P3", prefix, output=tmp_path / "out", dynamic_batch=True)
    with pytest.raises(
        PipelineError, match=r"m_dyn\.om: no such file; make it with: bash convert\.sh 4,8 310P3 .*--dynamic-batch$"
    ):
        run_bench(asked)
    model = tmp_path / "m_dyn.om"
    model.write_bytes(b"model")
    sidecar.write(model, {"batch": [1, 4], "chip": "310P3", "files": digests(model)})
    with pytest.raises(
        PipelineError, match=r"m_dyn\.om: takes batches of 1, 4, says m_dyn\.om\.json, not of 2, 8; .* 1,2,4,8 "
    ):
        run_bench(dataclasses.replace(asked, batches=[2, 4, 8]))
    with pytest.raises(PipelineError, match=r"m_bs4\.om: no such file; .*; --dynamic-batch takes m_dyn\.om$"):
        run_bench(dataclasses.replace(asked, dynamic_batch=False))
