"""The four stages in one command."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

import ResNeSt.pipeline as pipeline_module
from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.common.files import alone, sha256
from ResNeSt.common.progress import silent
from ResNeSt.common.timed_process import Spent
from ResNeSt.labels.file import read_labels
from ResNeSt.models import sidecar
from ResNeSt.models.cards import card
from ResNeSt.models.files import model_files
from ResNeSt.pipeline import (
    RunPlan,
    _calibrated,
    _convert,
    _is_exported,
    _of_another_question,
    _plan,
    _run_compiled,
    make_parser,
    run_pipeline,
)
from ResNeSt.report import data
from tests.conftest import PROJECT, Completed, assert_refused, call, corrupt

DEMO = PROJECT / "demo"
STAGES = ["PyTorch", "ONNX", "simplified ONNX", "compiled", "compiled"]


def pipeline(cwd: Path, *flags: str, env: dict[str, str] | None = None) -> Completed:
    return call("-m", "ResNeSt.pipeline", "--batch=1,8", "--loop=5", *flags, cwd=cwd, env=env)


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder and the output of a run without any data of the user's."""
    folder = tmp_path_factory.mktemp("run")
    # As where run.sh was told which Python to make its environment with.
    result = pipeline(folder, env={"PYTHON": "/no/packages/here"})
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


def read(folder: Path, name: str = "resnest_demo") -> dict[str, Any]:
    told: dict[str, Any] = json.loads((folder / "work" / name / "summary.json").read_text())
    return told


def test_every_stage_gives_the_accuracy_that_training_measured_image_by_image(demo_run: tuple[Path, str]) -> None:
    expected = json.loads((DEMO / "expected.json").read_text())
    stages = read(demo_run[0])["stages"]
    assert [stage["stage"] for stage in stages] == STAGES
    for stage in stages:
        assert stage["top1"] / stage["total"] == pytest.approx(expected["top1"])
        assert stage["same_top1"] == stage["images"] == stage["total"]
        assert stage["difference"] <= 1e-4


def test_the_table_has_a_row_for_every_stage(demo_run: tuple[Path, str]) -> None:
    lines = demo_run[1].splitlines()
    for name in STAGES:
        assert any(line.startswith(name) for line in lines)


def test_the_report_has_the_scores_of_the_summary_the_speeds_of_bench_and_what_every_command_took(
    demo_run: tuple[Path, str],
) -> None:
    folder = demo_run[0] / "work/resnest_demo"
    assert demo_run[1].splitlines()[-1] == "to look at: work/resnest_demo/report.html"
    found = json.loads((folder / "report.json").read_text())
    for stage, row in zip(found["stages"], read(demo_run[0])["stages"]):
        same = ("batch", "top1", "top5", "total", "same_top1", "difference", "images_per_second")
        assert {key: stage[key] for key in same} == {key: row[key] for key in same}
    rows = json.loads((folder / "results/bench.json").read_text())["rows"]
    assert [speed["images_per_second"] for speed in found["speeds"]] == [row["images_per_second"] for row in rows]
    steps = {step["name"]: step for step in found["steps"]}
    assert list(steps) == ["preprocess", "export", "convert", "PyTorch", "ONNX", "simplified ONNX", "bench"]
    assert all(step["seconds"] > 0 and step["peak_bytes"] > 10e6 for step in steps.values())
    assert steps["PyTorch"]["peak_bytes"] > steps["preprocess"]["peak_bytes"]
    assert (
        f"{100 * found['stages'][0]['top1'] / found['stages'][0]['total']:.2f} %"
        in (folder / "report.html").read_text()
    )


def test_each_step_tells_its_seconds_as_soon_as_it_is_done_and_the_run_its_own(demo_run: tuple[Path, str]) -> None:
    folder, printed = demo_run
    steps = json.loads((folder / "work/resnest_demo/report.json").read_text())["steps"]
    told = [f"{step['name']}: {step['seconds']:.1f} s" for step in steps]
    lines = printed.splitlines()
    assert [line for line in lines if line in told] == told
    assert lines.index(told[0]) < next(place for place, line in enumerate(lines) if "resnest_pth2onnx.py" in line)
    (total,) = [line for line in lines if line.startswith("all stages: ")]
    assert float(total.split()[-2]) > sum(step["seconds"] for step in steps) - 0.1


def test_every_printed_command_can_be_typed_again(demo_run: tuple[Path, str]) -> None:
    folder, printed = demo_run
    commands = [line[2:].split() for line in printed.splitlines() if line.startswith("$ ")]
    assert [command[1] for command in commands] == [
        "resnest_preprocess.py",
        "resnest_pth2onnx.py",
        "convert.sh",
        "bench.sh",
    ]
    for command in commands:
        assert call(*command[1:], cwd=folder).returncode == 0


def test_a_second_run_keeps_tensors_export_and_models(demo_run: tuple[Path, str]) -> None:
    folder, _ = demo_run
    work = folder / "work/resnest_demo"
    made = [work / "resnest_demo.onnx", work / "resnest_demo_bs8.xml", work / "prep_dataset/digits_val_00000001.bin"]
    before = [path.stat().st_mtime_ns for path in made]
    assert pipeline(folder).returncode == 0
    assert [path.stat().st_mtime_ns for path in made] == before


def test_it_runs_for_an_ascend_chip(tmp_path: Path, standins: dict[str, str]) -> None:
    result = pipeline(tmp_path, "--chip=310P3", env=standins)
    assert result.returncode == 0, result.stderr
    stages = read(tmp_path)["stages"]
    assert [stage["stage"] for stage in stages] == STAGES
    assert {stage["same_top1"] for stage in stages} == {stages[0]["images"]}


def test_a_folder_that_ais_bench_would_refuse_is_named_before_anything_runs(tmp_path: Path) -> None:
    result = pipeline(tmp_path, "--chip=310P3", "--output=my work")
    assert_refused(result, "my work", "ais_bench takes only letters, digits and _ - . / in a path", "name another")
    assert not (tmp_path / "my work").exists()


def test_a_folder_whose_name_begins_as_an_option_does_is_taken_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []

    def spend(command: list[str], **_: Any) -> Spent:
        started.append(command)
        return Spent(0, 0.0, 0)

    monkeypatch.setattr(pipeline_module, "spend", spend)
    folders = Path("in"), Path("-out/prep")
    pipeline_module._command(silent, "preprocess", "resnest_preprocess.py", *folders, "--x=1")
    assert started[0][2:] == ["in", "./-out/prep", "--x=1"]


def test_the_exit_code_of_the_stage_that_failed_is_passed_on(tmp_path: Path) -> None:
    """3: ATC is not on this machine."""
    nowhere = {name: "" for name in ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH")}
    assert_refused(pipeline(tmp_path, "--chip=310P3", env=nowhere), "convert.sh ended with exit code 3", code=3)


def test_labels_of_other_images_end_it_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text((DEMO / "val_label.txt").read_text() + "other.JPEG 1\n")
    result = pipeline(tmp_path, f"--images={DEMO / 'val'}", "--labels=labels.txt", "--arch=resnest_demo")
    assert_refused(result, "labels.txt: 1 of 397 labelled images are not in", "such as other")
    assert not (tmp_path / "work").exists()


def test_a_stage_that_fails_ends_the_run_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "resnest_demo-bad.pth").write_bytes(b"damaged")
    result = pipeline(tmp_path, "--weights=resnest_demo-bad.pth")
    assert_refused(result, "resnest_pth2onnx.py ended with exit code 1")
    assert "bad.pth: is text that begins with 'damaged', expected a checkpoint" in result.stderr


@pytest.fixture
def again(demo_run: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of the finished run's folder, to be spoilt."""
    shutil.copytree(demo_run[0] / "work", tmp_path / "work")
    return tmp_path


def closer(result: Completed, folder: Path) -> Completed:
    """Runs the command that the last line names."""
    command = shlex.split(result.stderr.strip().splitlines()[-1].split("to dig further run: ")[1])
    return call(*command[1:], cwd=folder)


def test_a_graph_that_parts_from_pytorch_stops_the_run_and_the_command_to_dig_names_the_node(again: Path) -> None:
    exported = again / "work/resnest_demo/resnest_demo.onnx"
    corrupt(exported, exported, "/layer2/layer2.0/conv3/Conv")
    result = pipeline(again)
    assert_refused(result, "error: ONNX, batch 8, compared with PyTorch:", "to dig further run: python -m")
    assert [stage["stage"] for stage in read(again)["stages"]] == STAGES[:3]
    assert any(line.startswith("simplified ONNX ") for line in result.stdout.splitlines())
    told = json.loads((again / "work/resnest_demo/report.json").read_text())["complaints"]
    assert told[0] in result.stderr
    assert_refused(closer(result, again), "at /layer2/layer2.0/conv3/Conv:")


def test_a_compiled_model_that_parts_ends_the_run_and_the_command_to_dig_compares_it_with_its_source(
    again: Path,
) -> None:
    made = again / "work/resnest_demo"
    corrupt(made / "resnest_demo.onnx", again / "resnest_demo.onnx", "/layer4/layer4.0/conv3/Conv", by=0.5)
    assert call("convert.sh", "8", "cpu", "--onnx=resnest_demo.onnx", cwd=again).returncode == 0
    shutil.copy(again / "resnest_demo_bs8.bin", made)
    model = made / "resnest_demo_bs8.xml"
    files = {path.name: sha256(path) for path in model_files(model)}
    sidecar.write(model, {**sidecar.read(model), "files": files})  # so it looks up to date
    result = pipeline(again, "--batch=8")
    assert_refused(result, "compiled, batch 8, compared with PyTorch:")
    assert [stage["stage"] for stage in read(again)["stages"]] == STAGES[:-1]
    assert_refused(closer(result, again), "result_bs8_summary.json, compared with", "stage2_summary.json: differs by")


def plan(folder: Path) -> RunPlan:
    return RunPlan(
        card=card("resnest_demo"),
        arch="resnest_demo",
        weights=next(DEMO.glob("*.pth")),
        images=DEMO / "val",
        labels=DEMO / "val_label.txt",
        chip="cpu",
        precision="fp32",
        batches=[8],
        loop=1,
        output=folder,
    )


def test_models_of_another_precision_in_the_work_folder_are_found(tmp_path: Path) -> None:
    asked, model = plan(tmp_path), tmp_path / "resnest_demo_bs8.xml"
    assert _of_another_question(asked) == []
    model.touch()
    assert _of_another_question(asked) == []  # not this program's: convert.sh refuses to replace it
    sidecar.write(model, {"chip": "cpu", "precision": "fp32", "dtype": "float32"})
    assert _of_another_question(asked) == []
    for other in ({"precision": "int8"}, {"dtype": "uint8"}, {"chip": "310P3"}):
        sidecar.write(model, {**sidecar.read(model), **other})
        assert _of_another_question(asked) == [model]
        sidecar.write(model, {"chip": "cpu", "precision": "fp32", "dtype": "float32"})


def test_one_model_for_all_batch_sizes_is_compiled_and_measured_by_the_same_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = dataclasses.replace(plan(tmp_path), batches=[1, 8], dynamic_batch=True)
    commands: list[list[str]] = []

    def note(say: object, step: str, *arguments: object) -> data.Step:
        commands.append([str(argument) for argument in arguments])
        return data.Step(step, 0.0, 0)

    monkeypatch.setattr(pipeline_module, "_command", note)
    _convert(asked, silent)
    with pytest.raises(PipelineError, match=r"bench\.json"):
        _run_compiled(asked, [], silent)
    assert [command[:3] for command in commands] == [["convert.sh", "1,8", "cpu"], ["bench.sh", "1,8", "cpu"]]
    assert all("--dynamic-batch" in command for command in commands)
    model = tmp_path / "resnest_demo_dyn.xml"
    model.touch()
    for batch, others in (([1, 8], []), ([1, 4, 8], [model])):
        sidecar.write(model, {"chip": "cpu", "precision": "fp32", "dtype": "float32", "batch": batch})
        assert _of_another_question(asked) == others


def test_batch_sizes_that_no_dynamic_batch_takes_are_refused_before_anything_runs(tmp_path: Path) -> None:
    for flags in (["--batch=8"], ["--batch=1,8", "--chip=310P3", "--precision=int8"]):
        with pytest.raises(ArgumentError, match=r"^--dynamic-batch "):
            _plan(make_parser().parse_args([*flags, "--dynamic-batch", f"--output={tmp_path}"]))


def test_two_runs_do_not_work_in_one_folder(tmp_path: Path) -> None:
    refused = pytest.raises(PipelineError, match=r"summary\.json: another process is writing here; wait for it")
    with alone(tmp_path / "summary.json"), refused:
        run_pipeline(plan(tmp_path))


def test_other_weights_and_a_card_that_was_changed_are_exported_anew(again: Path, demo_checkpoint: Path) -> None:
    def is_exported(weights: Path, **changes: object) -> bool:
        changed = dataclasses.replace(card("resnest_demo"), **changes)  # type: ignore[arg-type]
        return _is_exported(dataclasses.replace(plan(again / "work/resnest_demo"), card=changed, weights=weights))

    assert is_exported(demo_checkpoint)
    other = again / demo_checkpoint.name
    other.write_bytes(demo_checkpoint.read_bytes() + b"x")
    changes: list[dict[str, object]] = [
        {"class_names": tuple("abcdefghij")},
        {"mean": (0.5, 0.5, 0.5)},
        {"std": (0.5, 0.5, 0.5)},
        {"recipe": "squash-bilinear"},
        {"size": 64},
        {"classes": 9},
    ]
    assert not is_exported(other)
    edited = again / "work/resnest_demo/resnest_demo.onnx"
    edited.write_bytes(edited.read_bytes().replace(b"\x12\x06deploy", b"\x12\x06edited"))
    assert not is_exported(demo_checkpoint)
    edited.write_bytes(edited.read_bytes().replace(b"\x12\x06edited", b"\x12\x06deploy"))
    assert [change for change in changes if is_exported(demo_checkpoint, **change)] == []


@pytest.mark.heavy
def test_int8_compiles_and_judges_int8_and_the_report_shows_each_flipped_image(again: Path) -> None:
    result = pipeline(again, "--precision=int8", "--batch=8")
    assert result.returncode == 0, result.stderr
    folder = again / "work/resnest_demo"
    found = json.loads((folder / "report.json").read_text())
    assert json.loads((folder / "resnest_demo_bs8.xml.json").read_text())["precision"] == "int8"
    compiled = found["stages"][-1]
    assert 1e-3 < compiled["difference"] < 0.5
    assert found["flip_count"] == compiled["total"] - compiled["same_top1"]
    assert (folder / "report.html").read_text().count("data:image/jpeg") == min(found["flip_count"], 24)
    assert len(found["layer_costs"]["layers"]) == 36
    assert "Kept in floating point: what int8 would cost" in (folder / "report.html").read_text()
    told = f"int8 was calibrated on 128 tensors of {os.path.relpath(DEMO, again)}/train, none of which is scored"
    assert told in result.stdout.splitlines()
    assert read(again)["calibration"] == found["about"]["calibration"] == told
    assert f"{told}." in (folder / "report.html").read_text()


def planned(*flags: str) -> RunPlan:
    return _plan(make_parser().parse_args(list(flags)))


MINE = ("--images", str(DEMO / "val"), "--labels", str(DEMO / "val_label.txt"), "--model", "resnest_demo")


def test_int8_calibrates_on_the_demo_s_training_pictures_and_else_on_what_is_named_or_scored(
    demo_run: tuple[Path, str], tmp_path: Path
) -> None:
    assert planned("--precision=int8").calibration == pipeline_module.DEMO / "train"
    assert planned().calibration is None
    mine = planned("--precision=int8", *MINE, "--output", str(tmp_path))
    assert mine.calibration_tensors == mine.tensors
    pictures = planned("--precision=int8", *MINE, "--output", str(tmp_path), f"--calibration={DEMO / 'train'}")
    assert pictures.calibration_tensors == tmp_path / "calibration"
    with tarfile.open(tmp_path / "train.tar", "w") as archive:
        archive.add(DEMO / "train", ".")
    archived = planned("--precision=int8", *MINE, "--output", str(tmp_path), f"--calibration={tmp_path / 'train.tar'}")
    assert archived.calibration_tensors == tmp_path / "calibration"
    tensors = demo_run[0] / "work/resnest_demo/prep_dataset"
    named = planned("--precision=int8", *MINE, "--output", str(tmp_path), f"--calibration={tensors}")
    assert named.calibration_tensors == tensors


def test_the_same_pictures_under_other_names_overlap_with_those_that_are_scored(
    demo_run: tuple[Path, str], tmp_path: Path
) -> None:
    work = demo_run[0] / "work/resnest_demo"
    for number, path in enumerate(sorted((work / "prep_dataset").glob("*.bin"))[:24]):
        shutil.copy(path, tmp_path / f"other_{number}.bin")
    asked = ("--precision=int8", *MINE, "--output", str(work))
    assert _calibrated(planned(*asked))["calibration"].startswith("int8 was calibrated on 128 of the images that are")
    told = _calibrated(planned(*asked, f"--calibration={tmp_path}"))["calibration"]
    assert told == (
        "int8 was calibrated on 16 of the images that are scored; they overlap, so the score flatters it "
        "(--calibration DIR takes others)"
    )
    assert _calibrated(planned(*MINE, "--output", str(work))) == {}


def test_min_agreement_reaches_the_gate_and_the_final_judgement_and_0_is_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[tuple[object, ...]] = []
    monkeypatch.setattr(pipeline_module, "_command", lambda say, step, *arguments: commands.append(arguments))
    for flags, agreement in (([], 0.95), (["--min-agreement=0"], 0), (["--min-agreement=0.5"], 0.5)):
        plan = planned("--precision=int8", *MINE, "--output", str(tmp_path), *flags)
        assert plan.tolerance == (agreement, None)
        _convert(plan, silent)
        assert list(commands[-1][7:]) == flags
    assert commands[-1][5:7] == ("--precision=int8", f"--calibration={tmp_path / 'prep_dataset'}")
    assert planned("--min-agreement=0").tolerance == (0, 1e-3)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--precision=int8", "--calibration=nowhere"], "nowhere: no such folder"),
        (["--precision=int8", "--calibration=empty"], "empty: "),
        (["--chip=310P3", f"--calibration={DEMO / 'val'}"], "--calibration is for int8 on 310P3"),
        (["--min-agreement=95"], "--min-agreement 95, expected a share"),
        (["--min-agreement=nan"], "--min-agreement nan, expected a share"),
        (["--min-agreement=-1"], "--min-agreement -1, expected a share"),
        (["--weights=nowhere.pth"], "nowhere.pth: no such file; give the checkpoint"),
        (["--weights=empty"], "empty: is a folder, expected a file"),
        (["--images=empty", "--labels=labels.txt", "--arch=resnest_demo"], "empty: "),
        (["--images=empty", "--arch=resnest_demo"], "empty: "),
        (["--images=one", "--arch=resnest_demo"], "one: no labels come with these images; name a labels file with"),
        (["--labels=labels.txt"], "--labels are of images of your own; name these with --images"),
        (["--images=one", "--labels=labels.txt"], "--weights is missing: .* --weights auto, .* weights of resnest50"),
        (["--images=one", "--arch=resnest101"], "--weights is missing: .* --weights auto, .* weights of resnest101"),
        (["--images=one", "--labels=labels.txt", "--arch=resnest_demo"], "labels.txt: a has class 10, "),
    ],
)
def test_what_cannot_be_is_found_before_anything_runs(
    flags: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipeline_module, "DEMO", DEMO)  # which is as seen from where the tests began
    (tmp_path / "empty").mkdir()
    (tmp_path / "one").mkdir()
    shutil.copy(DEMO / "val/digits_val_00000001.JPEG", tmp_path / "one/a.JPEG")
    (tmp_path / "labels.txt").write_text("a.JPEG 10\n")
    monkeypatch.setattr(pipeline_module, "fetch", lambda *_: pytest.fail("a download that nobody asked for"))
    with pytest.raises(PipelineError, match=words):
        planned(*flags)


def test_class_folders_stand_in_for_a_labels_file_which_the_work_folder_gets_and_keeps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = read_labels(DEMO / "val_label.txt")
    images, expected = tmp_path / "val", {}
    for name, label in list(truth.items())[:12]:
        (images / str(label)).mkdir(parents=True, exist_ok=True)
        shutil.copy(DEMO / f"val/{name}.JPEG", images / str(label))
        expected[name] = label
    asked = [f"--images={images}", "--arch=resnest_demo", f"--output={tmp_path / 'work'}"]
    for _ in range(2):
        plan = planned(*asked)
        assert (plan.labels, read_labels(plan.labels)) == (tmp_path / "work/val_label.txt", expected)
    assert "12 images of" in capsys.readouterr().out
    plan.labels.write_text(plan.labels.read_text().replace(" 9", " 8"))
    with pytest.raises(PipelineError, match=r"val_label\.txt: exists and says otherwise; name another file, or delete"):
        planned(*asked)


@pytest.mark.parametrize(
    "flags",
    [["--images=x"], ["--labels=x"], ["--model=resnest50"], ["--batch=0"], ["--chip=gpu"], ["--precision=fp16"]],
)
def test_a_command_line_that_makes_no_sense_ends_with_2(flags: list[str], tmp_path: Path) -> None:
    result = call("-m", "ResNeSt.pipeline", *flags, cwd=tmp_path)
    assert_refused(result, code=2)
