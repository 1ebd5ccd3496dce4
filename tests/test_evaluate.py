"""Evaluation without files in between: the four stages' answers from any engine, resumable, in bounded memory."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from ResNeSt import evaluate
from ResNeSt.answers.jobs import Setting
from ResNeSt.answers.outcomes import Watches, outcomes_of
from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.common.files import sha256
from ResNeSt.common.made_of import state_of
from ResNeSt.common.parallel import Stopwatch
from ResNeSt.engines import image_batches
from ResNeSt.engines.engine import TensorSpec
from ResNeSt.engines.opening import open_engine
from ResNeSt.images.listing import list_images
from ResNeSt.images.preprocess import preprocess
from ResNeSt.infer.inference import Inference, infer
from ResNeSt.labels.class_names import ClassList, ClassName
from ResNeSt.labels.file import read_labels, write_labels
from ResNeSt.labels.folders import names_and_labels
from ResNeSt.labels.sources import read_tree, tree_of_model
from ResNeSt.models.cards import IMAGENET_MEAN, IMAGENET_STD, card, write_card
from ResNeSt.models.model_info import format_of
from ResNeSt.predict import predict
from ResNeSt.score.score import TOP, score_summaries, score_summary
from ResNeSt.tensors.format import TensorFormat
from tests.conftest import PROJECT, STANDINS, Completed, assert_refused, call

VAL = PROJECT / "demo/val"
LABELS = PROJECT / "demo/val_label.txt"
PICTURE = VAL / "digits_val_00000001.JPEG"
EXPECTED = json.loads((PROJECT / "demo/expected.json").read_text())


@pytest.fixture(scope="module")
def work(demo_onnx: Path, demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo as checkpoint, ONNX, and compiled for cpu in float32 (batch 8) and uint8 (batch 5)."""
    folder = tmp_path_factory.mktemp("evaluate")
    shutil.copy(demo_onnx, folder / "m.onnx")
    shutil.copy(demo_checkpoint, folder)
    for batch, dtype in (("8", "float32"), ("5", "uint8")):
        result = call("convert.sh", batch, "cpu", "--onnx=m.onnx", f"--dtype={dtype}", cwd=folder)
        assert result.returncode == 0, result.stderr
    return folder


def run(
    work: Path,
    model: str | Path,
    *flags: str,
    images: Path = VAL,
    labels: Path = LABELS,
    env: dict[str, str] | None = None,
) -> Completed:
    data = [f"--images={images}", f"--labels={labels}"]
    return call("-m", "ResNeSt.evaluate", f"--model={model}", *data, *flags, cwd=work, env=env)


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()[1:]]


def few(tmp_path: Path) -> SimpleNamespace:
    """A folder with a few of the demo's pictures, and their labels."""
    folder = tmp_path / "few"
    folder.mkdir()
    pictures = sorted(VAL.iterdir())[:6]
    truth = read_labels(LABELS)
    for picture in pictures:
        shutil.copy(picture, folder)
    labels = tmp_path / "few.txt"
    labels.write_text("".join(f"{picture.name} {truth[picture.stem]}\n" for picture in pictures))
    return SimpleNamespace(images=folder, labels=labels, pictures=[folder / picture.name for picture in pictures])


@pytest.mark.parametrize(
    ("model", "flags"),
    [
        ("m_bs8.xml", ()),
        ("m_bs5.xml", ()),
        ("m.onnx", ()),
        ("m.onnx", ("--engine=openvino", "--batch=7")),
        ("resnest_demo-*.pth", ("--workers=3",)),
    ],
)
def test_every_engine_gives_the_answers_that_training_measured_image_by_image(
    work: Path, tmp_path: Path, model: str, flags: tuple[str, ...]
) -> None:
    (path,) = work.glob(model)
    result = run(work, path, f"--predictions={tmp_path / 'p.jsonl'}", *flags)
    assert result.returncode == 0, result.stderr
    predicted = {record["image"]: record["classes"][0] for record in records(tmp_path / "p.jsonl")}
    assert predicted == EXPECTED["predicted"]
    assert f"top1_acc\t{EXPECTED['top1']:.4f}\n" in result.stdout


def test_top_5_is_that_of_the_four_stages_image_by_image(work: Path, tmp_path: Path) -> None:
    assert call("resnest_preprocess.py", VAL, tmp_path / "prep", "--arch=resnest_demo").returncode == 0
    flags = [f"--input={tmp_path / 'prep'}", f"--output={tmp_path / 'out'}", "--output_dirname=r"]
    assert call("-m", "ResNeSt.infer", "--model=m_bs8.xml", *flags, cwd=work).returncode == 0
    stages = score_summary(tmp_path / "out/r_summary.json", LABELS)
    assert run(work, "m_bs8.xml", f"--predictions={tmp_path / 'p.jsonl'}").returncode == 0
    found = {Path(record["image"]).stem: tuple(record["classes"]) for record in records(tmp_path / "p.jsonl")}
    assert found == {name: prediction.classes for name, prediction in stages.predictions.items()}


@pytest.mark.parametrize("dtype", ["float32", "uint8", "yuv420sp"])
def test_an_om_runs_through_the_python_api_of_the_ascend_client(
    demo_onnx: Path, tmp_path: Path, standins: dict[str, str], dtype: str
) -> None:
    assert call("-m", "onnxsim", demo_onnx, tmp_path / "resnest_demo_sim.onnx").returncode == 0
    flags = [f"--onnx={demo_onnx}", f"--output={tmp_path}", f"--dtype={dtype}"]
    assert call("convert.sh", "4", "310P3", *flags, env=standins).returncode == 0
    result = run(tmp_path, "resnest_demo_bs4.om", env=standins)
    assert result.returncode == 0, result.stderr
    assert f"top1_acc\t{EXPECTED['top1']:.4f}\n" in result.stdout


def test_an_om_without_the_client_is_told_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "m.om").touch()
    assert_refused(run(tmp_path, "m.om"), "ais_bench is not installed", "requirements/npu.txt", code=3)


def test_an_om_on_a_host_that_has_not_sourced_cann_s_script_is_told_which(
    tmp_path: Path, standins: dict[str, str]
) -> None:
    (tmp_path / "m.om").touch()
    home = STANDINS / "ascend-toolkit"
    environment = {**standins, "STANDIN_LIBRARY": "needed", "ASCEND_TOOLKIT_HOME": str(home), "LD_LIBRARY_PATH": ""}
    result = run(tmp_path, "m.om", env=environment)
    assert_refused(result, "libascendcl.so is not found", f"run: source {home}/set_env.sh", code=3)
    result = run(tmp_path, "m.om", env={**environment, "LD_LIBRARY_PATH": f"{home}/lib64"})
    assert_refused(result, "m.om: ais_bench cannot load it on device 0")


def test_it_says_where_the_time_went_and_how_fast_it_was(work: Path) -> None:
    printed = run(work, "m_bs8.xml").stdout
    assert "396 images in" in printed
    assert "img/s; waited: decoding" in printed


@pytest.mark.parametrize(
    ("worked", "waited", "bound"),
    [
        ((18.0, 2.0, 1.0), "decoding 10 %, inference 80 %, ranking 90 %", "decoding"),  # by two threads
        ((4.0, 9.5, 1.0), "decoding 80 %, inference 5 %, ranking 90 %", "inference"),
        ((4.0, 2.0, 10.5), "decoding 80 %, inference 80 %, ranking 0 %", "ranking"),
    ],
)
def test_the_stage_that_waited_least_bounds_the_speed(worked: tuple[float, ...], waited: str, bound: str) -> None:
    watches = Watches(Stopwatch(), Stopwatch(), Stopwatch())
    for watch, seconds in zip(watches, worked):
        watch.seconds = seconds
    line = evaluate._waits(10.0, watches, workers=2, instances=1)
    assert line == f"waited: {waited} of the time; {bound}-bound"


def test_of_several_instances_each_may_wait() -> None:
    watches = Watches(Stopwatch(), Stopwatch(), Stopwatch())
    for watch, seconds in zip(watches, (2.0, 20.0, 1.0)):
        watch.seconds = seconds
    line = evaluate._waits(10.0, watches, workers=2, instances=4)
    assert "inference 50 %" in line


def test_an_image_that_cannot_be_decoded_is_named_and_the_others_count(work: Path, tmp_path: Path) -> None:
    data = few(tmp_path)
    data.pictures[2].write_bytes(b"no image")
    result = run(work, "m_bs8.xml", images=data.images, labels=data.labels)
    assert result.returncode == 1
    assert "tot=5" in result.stdout
    assert f"broken: 1 {evaluate.KINDS['broken']} (exit code 1; --allow-broken accepts them)" in result.stdout
    assert str(data.pictures[2]) in result.stdout
    assert run(work, "m_bs8.xml", "--allow-broken", images=data.images, labels=data.labels).returncode == 0


def test_images_without_label_and_labels_without_image_are_refused_before_anything_runs(
    work: Path, tmp_path: Path
) -> None:
    data = few(tmp_path)
    lines = data.labels.read_text().splitlines(keepends=True)
    data.labels.write_text("".join(lines[1:]) + "absent.JPEG 1\n")
    result = run(work, "m_bs8.xml", images=data.images, labels=data.labels)
    assert_refused(result, "1 labelled images without a file", "absent", "--allow-missing")
    result = run(work, "m_bs8.xml", "--allow-missing", images=data.images, labels=data.labels)
    assert_refused(result, "1 images without a label", data.pictures[0].name, "--allow-extra")
    result = run(work, "m_bs8.xml", "--allow-missing", "--allow-extra", images=data.images, labels=data.labels)
    assert result.returncode == 0
    assert "5 of 6" in result.stdout


def test_the_json_holds_the_figures_and_every_problem(work: Path, tmp_path: Path) -> None:
    data = few(tmp_path)
    data.pictures[0].write_bytes(b"")
    flags = [f"--json={tmp_path / 's.json'}", "--allow-broken"]
    assert run(work, "m_bs8.xml", *flags, images=data.images, labels=data.labels).returncode == 0
    found = json.loads((tmp_path / "s.json").read_text())
    assert (found["tot"], found["labelled"], found["tensors"]) == (5, 6, "ecentercrop-bicubic 96, float32 NCHW")
    assert found["problems"]["broken"]["count"] == 1
    assert found["problems"]["broken"]["allowed"] is True


def test_logits_that_are_not_finite_are_named_and_not_scored(work: Path, tmp_path: Path) -> None:
    model = onnx.load(work / "m.onnx")
    bias = next(tensor for tensor in model.graph.initializer if tensor.dims == [10])
    values = onnx.numpy_helper.to_array(bias).copy()
    values[3] = np.nan
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    onnx.save(model, tmp_path / "nan.onnx")
    data = few(tmp_path)
    result = run(work, tmp_path / "nan.onnx", images=data.images, labels=data.labels)
    assert result.returncode == 1
    assert f"not-finite: 6 {evaluate.KINDS['not-finite']}" in result.stdout
    assert "tot=0" in result.stdout


def test_a_model_that_does_not_say_its_recipe_is_refused_until_it_is_named(work: Path, tmp_path: Path) -> None:
    model = onnx.load(work / "m.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "bare.onnx")
    assert_refused(run(work, tmp_path / "bare.onnx"), "how its images are prepared", "--arch")
    result = run(work, tmp_path / "bare.onnx", "--arch=resnest_demo")
    assert f"top1_acc\t{EXPECTED['top1']:.4f}\n" in result.stdout


def test_a_batch_size_that_is_not_the_model_s_is_refused(work: Path) -> None:
    assert_refused(run(work, "m_bs8.xml", "--batch=4"), "its batch size is 8", code=2)


def test_a_label_that_is_no_class_of_the_model_is_refused(work: Path, tmp_path: Path) -> None:
    data = few(tmp_path)
    data.labels.write_text(data.labels.read_text() + "absent.JPEG 10\n")
    result = run(work, "m_bs8.xml", "--allow-missing", images=data.images, labels=data.labels)
    assert_refused(result, "absent has class 10", "10 values")


@pytest.fixture(scope="module")
def undisturbed(work: Path) -> bytes:
    assert run(work, "m_bs8.xml", "--predictions=undisturbed.jsonl").returncode == 0
    return (work / "undisturbed.jsonl").read_bytes()


@pytest.mark.parametrize("keep", [1.0, 0.5, 0.01, 0.0])
def test_an_interrupted_run_goes_on_and_ends_byte_for_byte_as_an_undisturbed_one(
    work: Path, tmp_path: Path, undisturbed: bytes, keep: float
) -> None:
    unfinished = tmp_path / "p.jsonl.unfinished"
    unfinished.write_bytes(undisturbed[: int(keep * len(undisturbed))])
    result = run(work, "m_bs8.xml", f"--predictions={tmp_path / 'p.jsonl'}")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "p.jsonl").read_bytes() == undisturbed
    assert not unfinished.exists()
    assert f"top1_acc\t{EXPECTED['top1']:.4f}\n" in result.stdout
    assert ("were done by an earlier run" in result.stdout) == (keep >= 0.5)


def test_a_run_killed_at_random_moments_ends_byte_for_byte_as_an_undisturbed_one(
    work: Path, tmp_path: Path, undisturbed: bytes
) -> None:
    target = tmp_path / "p.jsonl"
    command = [sys.executable, "-m", "ResNeSt.evaluate", "--model=m_bs8.xml", f"--images={VAL}", f"--labels={LABELS}"]
    for _ in range(6):
        process = subprocess.Popen(
            [*command, f"--predictions={target}"],
            cwd=work,
            env={"PYTHONPATH": str(PROJECT)},
            stdout=subprocess.DEVNULL,
        )
        time.sleep(random.Random(process.pid).uniform(0.3, 1.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert run(work, "m_bs8.xml", f"--predictions={target}").returncode == 0
    assert target.read_bytes() == undisturbed


def test_the_json_says_with_what_it_was_run_and_how_fast(work: Path, tmp_path: Path) -> None:
    assert run(work, "m_bs8.xml", f"--json={tmp_path / 'told.json'}").returncode == 0
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["engine"].startswith("OpenVINO ")
    assert (told["batch"], told["kept"]) == (8, 0)
    assert told["sha256"] == {name: sha256(work / name) for name in ("m_bs8.xml", "m_bs8.bin")}
    assert told["images_per_second"] == pytest.approx(396 / told["seconds"])


def test_what_another_model_left_unfinished_is_neither_taken_over_nor_thrown_away(
    work: Path, tmp_path: Path, undisturbed: bytes
) -> None:
    unfinished = tmp_path / "p.jsonl.unfinished"
    unfinished.write_bytes(undisturbed)
    result = run(work, "m_bs5.xml", f"--predictions={tmp_path / 'p.jsonl'}")
    assert_refused(
        result, "p.jsonl.unfinished: is of a run with another batch, model, tensors; repeat", "or name another"
    )
    assert unfinished.read_bytes() == undisturbed


def test_predictions_depend_on_model_weights_engine_batch_recipe_normalisation_and_each_picture(tmp_path: Path) -> None:
    """Each alone makes another run."""

    def head(**changes: Any) -> dict[str, Any]:
        tensors = TensorFormat("ecentercrop-bicubic", 8, "float32", IMAGENET_MEAN, IMAGENET_STD)
        changed = {
            key: value for key, value in changes.items() if key not in ("engine", "ema", "batch", "images", "network")
        }
        model = image_batches.ModelChoice(tmp_path / "m.xml", engine=changes.get("engine"), ema=changes.get("ema"))
        images = changes.get("images", [str(tmp_path / "a.png"), str(tmp_path / "b.png")])
        spec = TensorSpec("", (changes.get("batch", 8), 3, 8, 8), "float32")
        engine: Any = SimpleNamespace(input=spec, info={"architecture": changes.get("network")})
        digests = {str(tmp_path / name): sha256(tmp_path / name) for name in ("m.xml", "m.bin")}
        return evaluate._head(Setting(model, 8, digests), engine, dataclasses.replace(tensors, **changed), TOP, images)

    for name in ("m.xml", "m.bin", "a.png", "b.png"):
        (tmp_path / name).write_bytes(name.encode())
    before = head()
    assert head() == before
    changes: list[dict[str, Any]] = [
        {"engine": "null"},
        {"ema": True},
        {"ema": False},
        {"network": "of the same shapes"},
        {"batch": 4},
        {"recipe": "squash-bilinear"},
        {"size": 9},
        {"dtype": "uint8"},
        {"mean": (0.5, 0.456, 0.406)},
        {"std": (0.5, 0.224, 0.225)},
        {"exif": True},
        {"images": [str(tmp_path / "b.png"), str(tmp_path / "a.png")]},
        {"images": [str(tmp_path / "a.png")]},
    ]
    assert [change for change in changes if head(**change) == before] == []
    for name in ("m.xml", "m.bin"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[::-1])
        assert head() != before, name
        (tmp_path / name).write_bytes(content)
    assert head() == before
    with pytest.MonkeyPatch.context() as patch:  # a copy keeps the date of the content, another file has its own
        for field in ("size", "mtime_ns", "ctime_ns"):
            odd: dict[str, Any] = {field: 7}
            patch.setattr(evaluate, "state_of", lambda image, odd=odd: state_of(image)._replace(**odd))
            assert head() != before, field
    for name in ("a.png", "b.png"):
        previous = head()
        os.utime(tmp_path / name, ns=(1, 1))
        assert head() != previous, name
    touched = head()
    assert touched != before
    (tmp_path / "b.png").write_bytes(b"gnp.b")
    os.utime(tmp_path / "b.png", ns=(1, 1))
    assert head() != touched, "of one size and date, and another picture"


def test_predictions_of_pictures_in_class_folders_are_gone_on_with_too(demo_onnx: Path, tmp_path: Path) -> None:
    for name in ("a/x.png", "b/x.png", "b/y.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (96, 96)).save(tmp_path / "images" / name)
    (tmp_path / "labels.txt").write_text("a/x.png 0\nb/x.png 1\nb/y.png 1\n")
    predictions = tmp_path / "p.jsonl"

    def kept() -> int:
        model = image_batches.ModelChoice(demo_onnx, batch=1)
        return evaluate.evaluate(model, tmp_path / "images", tmp_path / "labels.txt", predictions).kept

    assert kept() == 0
    lines = predictions.read_bytes().splitlines(keepends=True)
    predictions.unlink()
    (tmp_path / "p.jsonl.unfinished").write_bytes(b"".join(lines[:3]))
    assert kept() == 2
    assert predictions.read_bytes().splitlines(keepends=True) == lines


def test_a_checkpoint_s_engine_tells_networks_of_the_same_shapes_apart(demo_checkpoint: Path, tmp_path: Path) -> None:
    told = []
    for avd_first in (False, True):
        shape = dataclasses.replace(card("resnest_demo").architecture, avd_first=avd_first)
        write_card(dataclasses.replace(card("resnest_demo"), architecture=shape), tmp_path / "m.json")
        told.append(open_engine(demo_checkpoint, arch=str(tmp_path / "m.json")).info["architecture"])
    assert told[0] != told[1]


def test_a_model_that_is_replaced_while_it_is_opened_is_not_recorded(
    demo_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "m.onnx"
    shutil.copy(demo_onnx, model)

    def opened(choice: image_batches.ModelChoice, images: int) -> None:
        shutil.copy(demo_onnx, tmp_path / "other")
        (tmp_path / "other").replace(model)

    monkeypatch.setattr(evaluate, "open_for_images", opened)
    with pytest.raises(PipelineError, match="changed while it was being read"):
        evaluate._opened(image_batches.ModelChoice(model), 1, [], None)


def test_what_was_left_unfinished_on_other_images_of_the_same_names_is_not_taken_over(
    work: Path, tmp_path: Path
) -> None:
    data = few(tmp_path)
    flags = (f"--predictions={tmp_path / 'p.jsonl'}",)
    assert run(work, "m_bs8.xml", *flags, images=data.images, labels=data.labels).returncode == 0
    (tmp_path / "p.jsonl").rename(tmp_path / "p.jsonl.unfinished")
    first, second = sorted(data.images.iterdir())[:2]
    shutil.copy(second, first)
    result = run(work, "m_bs8.xml", *flags, images=data.images, labels=data.labels)
    assert_refused(result, "p.jsonl.unfinished: is of a run with another pictures;")


class CountingEngine:
    """Notes how many images had been decoded whenever it was called."""

    def __init__(self, decoded: list[object]) -> None:
        self.title = "counting"
        self.probabilities, self.instances = False, 1
        self.info: dict[str, str] = {}
        self.input, self.sizes = TensorSpec("x", (4, 3, 8, 8), "float32"), (4,)
        self.decoded = decoded
        self.seen: list[int] = []

    def run(self, batch: np.ndarray) -> np.ndarray:
        time.sleep(0.02)
        self.seen.append(len(self.decoded))
        return np.zeros((4, 10), np.float32)

    def another(self) -> CountingEngine:
        return self


def test_decoding_runs_two_batches_ahead_and_no_further(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    decoded: list[object] = []
    monkeypatch.setattr(image_batches, "tensor_maker", lambda made: lambda path, out: decoded.append(path))
    engine = CountingEngine(decoded)
    made = TensorFormat("ecentercrop-bicubic", 8, "float32", IMAGENET_MEAN, IMAGENET_STD)
    images = [f"{number}.JPEG" for number in range(80)]
    watches = Watches(Stopwatch(), Stopwatch(), Stopwatch())
    outcomes = [outcome for batch in outcomes_of(engine, made, TOP, images, 2, watches) for outcome in batch]
    assert [outcome.image for outcome in outcomes] == images
    assert len(engine.seen) == 20
    assert all(seen <= 4 * (run + 1) + 2 * 4 + 1 for run, seen in enumerate(engine.seen))


def test_pictures_of_one_name_in_two_class_folders_are_scored_by_their_paths_with_files_in_between_or_without(
    demo_onnx: Path, tmp_path: Path
) -> None:
    """In folders of ten classes, each picture is called 0.JPEG; one is a 0.JPEG and a 0.copy.JPEG, too."""
    truth = read_labels(LABELS)
    first = {label: name for name, label in reversed(truth.items())}
    for label, name in first.items():
        (tmp_path / f"val/{label}").mkdir(parents=True)
        shutil.copy(VAL / f"{name}.JPEG", tmp_path / f"val/{label}/0.JPEG")
    shutil.copy(tmp_path / "val/3/0.JPEG", tmp_path / "val/3/0.copy.JPEG")
    expected = {f"{label}/0.JPEG": EXPECTED["predicted"][f"{name}.JPEG"] for label, name in first.items()}
    expected["3/0.copy.JPEG"] = expected["3/0.JPEG"]
    tree = read_tree(tmp_path / "val")
    write_labels(names_and_labels(tree, tmp_path / "val"), tmp_path / "l.txt")

    model = image_batches.ModelChoice(demo_onnx)
    evaluated = evaluate.evaluate(model, tmp_path / "val", tmp_path / "l.txt", tmp_path / "p.jsonl")
    found = {record["image"]: record["classes"][0] for record in records(tmp_path / "p.jsonl")}
    assert found == expected
    right = sum(int(image.split("/")[0]) == label for image, label in expected.items())
    assert (evaluated.score.top1, evaluated.score.total) == (right, 11)

    tensors = format_of(card("resnest_demo"), "float32")
    with pytest.raises(PipelineError, match=r"11 images share their name .* --distinct-names"):
        preprocess(tmp_path / "val", tmp_path / "prep", tensors)
    for packed in (False, True):
        prep = tmp_path / f"prep{packed}"
        assert preprocess(tmp_path / "val", prep, tensors, packed=packed, distinct=True).written == 11
        assert preprocess(tmp_path / "val", prep, tensors, packed=packed, distinct=True).kept == 11
        inferred = infer(Inference(demo_onnx, prep, tmp_path / "out", dirname=f"r{packed}"))
        assert inferred.summary is not None
        result = score_summary(inferred.summary, tmp_path / "l.txt")
        assert {name: answer.classes[0] for name, answer in result.predictions.items()} == {
            image.replace("/", "__").replace(".", "_"): label for image, label in expected.items()
        }
        assert (result.score, list(filter(None, result.problems.values()))) == (evaluated.score, [])


def test_a_picture_that_is_turned_is_heeded_with_exif_alone_and_its_predictions_are_others(
    demo_onnx: Path, tmp_path: Path
) -> None:
    data = few(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(data.pictures[0]) as image:
        image.save(data.pictures[0], quality=95, exif=exif)
        turned = image.transpose(Image.Transpose.ROTATE_270)
    as_it_is, upright = tmp_path / "as_it_is.jsonl", tmp_path / "upright.jsonl"
    model = image_batches.ModelChoice(demo_onnx)
    evaluate.evaluate(model, data.images, data.labels, as_it_is)
    evaluate.evaluate(dataclasses.replace(model, exif=True), data.images, data.labels, upright)
    heads = [json.loads(path.read_text().splitlines()[0])["tensors"] for path in (as_it_is, upright)]
    assert [head.pop("exif") for head in heads] == [False, True]
    assert heads[0] == heads[1]
    made = {path: [r["classes"] for r in records(path)] for path in (as_it_is, upright)}
    assert made[as_it_is][0] != made[upright][0]
    assert made[as_it_is][1:] == made[upright][1:]
    turned.save(data.pictures[0].with_suffix(".png"))
    data.pictures[0].unlink()
    evaluate.evaluate(model, data.images, data.labels, tmp_path / "turned.jsonl")
    assert records(tmp_path / "turned.jsonl")[0]["classes"][0] == made[upright][0][0]


def test_a_link_to_nothing_is_one_broken_picture_although_predictions_are_kept(demo_onnx: Path, tmp_path: Path) -> None:
    data = few(tmp_path)
    data.pictures[1].unlink()
    data.pictures[1].symlink_to(tmp_path / "nothing")
    model = image_batches.ModelChoice(demo_onnx)
    evaluated = evaluate.evaluate(model, data.images, data.labels, tmp_path / "p.jsonl")
    assert (list(evaluated.problems), evaluated.score.total) == (["broken"], 5)


def by_class(tmp_path: Path, names: Sequence[str]) -> Path:
    """Two of the demo's pictures of each class, in folders that `names` call."""
    taken = Counter[int]()
    for name, label in read_labels(LABELS).items():
        taken[label] += 1
        if taken[label] <= 2:
            (tmp_path / f"val/{names[label]}").mkdir(parents=True, exist_ok=True)
            shutil.copy(VAL / f"{name}.JPEG", tmp_path / f"val/{names[label]}")
    return tmp_path / "val"


def test_class_folders_give_the_score_that_a_labels_file_of_the_same_gives(demo_onnx: Path, tmp_path: Path) -> None:
    source, told = by_class(tmp_path, "0123456789"), list[str]()
    write_labels(names_and_labels(read_tree(source), source), tmp_path / "l.txt")
    model = image_batches.ModelChoice(demo_onnx)
    expected = evaluate.evaluate(model, source, tmp_path / "l.txt")
    found = evaluate.evaluate(model, source, say=told.append)
    assert (found.score, found.pairs, found.labelled) == (expected.score, expected.pairs, 20)
    assert f"{source}: 20 images of 10 classes, by the numbers that the folders are called by" in told
    assert (found.numbering, expected.numbering) == ("the numbers that the folders are called by", "")


def test_class_folders_go_by_the_names_of_the_model_s_classes_whatever_their_order(
    demo_checkpoint: Path, tmp_path: Path
) -> None:
    """As an alphabet has digits, eight comes first; only the card knows that it is class 8."""
    digits = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    source = by_class(tmp_path, digits)
    shutil.rmtree(source / "zero")
    write_card(dataclasses.replace(card("resnest_demo"), class_names=tuple(digits)), tmp_path / "mine.json")
    model = image_batches.ModelChoice(demo_checkpoint, arch=str(tmp_path / "mine.json"))
    found = evaluate.evaluate(model, source)
    assert (found.score.top1, found.score.total) == (18, 18)
    assert all("EXIF" in remark for remark in found.remarks)  # none on numbers that begin with 1
    assert [name.name for name in found.class_names] == digits
    (source / "nine").rename(source / "Nine")
    with pytest.raises(PipelineError, match=r"folder Nine is none of the 10 classes .*; or name a labels file with"):
        evaluate.evaluate(model, source)


def test_a_card_does_not_rename_the_classes_of_a_model_that_says_what_they_are(tmp_path: Path) -> None:
    """Their order is how class folders are numbered: another one gives another score."""
    own = {"class_names": json.dumps(list("abcdefghij"))}
    engine: Any = SimpleNamespace(info=own, input=TensorSpec("", (1, 3, 96, 96), "float32"))
    silent = image_batches.ModelChoice("m.onnx", arch="resnest_demo")
    assert image_batches.image_format(engine, silent).size == 96
    assert [name.name for name in evaluate._classes_of(silent, engine, 10).names] == list("abcdefghij")
    write_card(dataclasses.replace(card("resnest_demo"), class_names=tuple("jihgfedcba")), tmp_path / "other.json")
    other = image_batches.ModelChoice("m.onnx", arch=str(tmp_path / "other.json"))
    with pytest.raises(ArgumentError, match=r"m.onnx: says itself that its class_names is .*; leave --arch out"):
        image_batches.image_format(engine, other)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda source: shutil.copy(PICTURE, source), "1 of 21 images lie in no folder of a class, such as"),
        (lambda source: (source / "9").rename(source / "10"), "its folder 10 is a number, and .* has classes 0 to 9"),
        (
            lambda source: (source / "9").rename(source / "nine"),
            "its folder 0 is a number, nine is none; .*; or name a labels file",
        ),
    ],
)
def test_folders_that_do_not_decide_the_classes_are_refused_in_one_line(
    spoil: Callable[[Path], object], words: str, demo_onnx: Path, tmp_path: Path
) -> None:
    source = by_class(tmp_path, "0123456789")
    spoil(source)
    with pytest.raises(PipelineError, match=words) as refused:
        evaluate.evaluate(image_batches.ModelChoice(demo_onnx), source)
    assert "\n" not in str(refused.value)


def test_a_flat_folder_without_labels_is_told_both_ways_to_give_them(demo_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="name a labels file with --labels, or a folder that holds a folder per"):
        evaluate.evaluate(image_batches.ModelChoice(demo_onnx), few(tmp_path).images)


def test_folders_of_a_model_without_class_names_are_counted_in_order_where_they_are_as_many_and_that_is_told(
    tmp_path: Path,
) -> None:
    source = by_class(tmp_path, "abcdefghij")
    images, nameless = list_images(source), ClassList("m.onnx", [ClassName("")] * 10)
    tree = tree_of_model(images, source, nameless)
    assert set(tree.numbers.items()) == {(name, number) for number, name in enumerate("abcdefghij")}
    assert tree.remarks == [
        f"{source}: its folders were numbered in the order of their names, since m.onnx does not say what its classes "
        "are called"
    ]
    with pytest.raises(PipelineError, match=r"has 10 folders, m\.onnx has 11 classes without names"):
        tree_of_model(images, source, ClassList("m.onnx", [ClassName("")] * 11))


def test_any_top_k_is_the_same_with_files_in_between_or_without_and_after_an_interruption(
    work: Path, tmp_path: Path
) -> None:
    """A model of ten classes with noise for answers, so that each k gives another score."""
    ks = (1, 2, 3, 7, 10, 11)
    data, model = few_wrong(work, tmp_path), image_batches.ModelChoice(work / "m.onnx")
    found = evaluate.evaluate(model, data.images, data.labels, tmp_path / "p", top_k=ks)
    assert [found.score.right[k] for k in ks] == data.expected(ks)
    files = score_summaries([tmp_path / "p"], data.labels, classes=10, top_k=ks)
    assert (files.score, files.pairs, files.ranks) == (found.score, found.pairs, 11)
    lines = (tmp_path / "p").read_bytes().splitlines(keepends=True)
    (tmp_path / "p.unfinished").write_bytes(b"".join(lines[:17]))
    again = evaluate.evaluate(model, data.images, data.labels, tmp_path / "p", top_k=ks)
    assert (again.kept, again.score, again.pairs) == (16, found.score, found.pairs)
    (tmp_path / "p.unfinished").write_bytes(b"".join(lines[:17]))
    with pytest.raises(PipelineError, match="is of a run with another ranks"):
        evaluate.evaluate(model, data.images, data.labels, tmp_path / "p", top_k=[1, 20])


def few_wrong(work: Path, tmp_path: Path) -> SimpleNamespace:
    """40 of the demo's pictures whose labels are the first, the second, ... class that PyTorch ranks."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    pictures = sorted(VAL.iterdir())[:40]
    for picture in pictures:
        shutil.copy(picture, folder)
    (checkpoint,) = work.glob("*.pth")
    answers = predict(image_batches.ModelChoice(checkpoint), pictures, top=10)
    orders = [[guess.label for guess in answer.guesses] for answer in answers]
    labels = [order[place % 10] for place, order in enumerate(orders)]
    (tmp_path / "l.txt").write_text("".join(f"{path.name} {label}\n" for path, label in zip(pictures, labels)))
    return SimpleNamespace(images=folder, labels=tmp_path / "l.txt", expected=lambda ks: [4 * min(k, 10) for k in ks])


def test_the_command_tells_any_top_k_and_writes_the_matrix_and_the_classes_by_their_names(
    work: Path, tmp_path: Path
) -> None:
    data = few(tmp_path)
    tables = [
        f"--confusion={tmp_path / 'm.csv'}",
        f"--per-class={tmp_path / 'c.json'}",
        f"--json={tmp_path / 'f.json'}",
    ]
    result = run(work, "m.onnx", "--top-k=1,3", *tables, images=data.images, labels=data.labels)
    assert result.returncode == 0, result.stderr
    truth = read_labels(data.labels)
    assert [line.split()[0] for line in result.stdout.splitlines()[2:]] == [
        "top1_acc",
        "top3_acc",
        "top1_correct=6,",
        "top3_correct=6,",
        "tot",
    ]
    figures = json.loads((tmp_path / "f.json").read_text())
    assert {key for key in figures if key.startswith("top")} == {"top1_acc", "top3_acc", "top1_correct", "top3_correct"}
    matrix = [line.split(",") for line in (tmp_path / "m.csv").read_text().splitlines()]
    assert [int(matrix[1 + label][1 + label]) for label in range(10)] == [
        list(truth.values()).count(label) for label in range(10)
    ]
    per_class = json.loads((tmp_path / "c.json").read_text())
    assert [each["support"] for each in per_class] == [list(truth.values()).count(label) for label in range(10)]


@pytest.mark.parametrize("exif", [False, True])
def test_pictures_left_against_their_exif_are_told_once_also_of_those_that_an_earlier_run_did(
    exif: bool, demo_onnx: Path, tmp_path: Path
) -> None:
    data = few(tmp_path)
    for path, orientation in zip(data.pictures, (6, 1, 8)):
        tag = Image.Exif()
        tag[0x0112] = orientation
        with Image.open(path) as image:
            image.save(path, exif=tag)
    model = image_batches.ModelChoice(demo_onnx, batch=1, exif=exif)
    expected = [] if exif else [f"2 of 6 images carry an EXIF orientation, such as {data.pictures[0].name}; they were"]
    for kept in (0, 4):
        evaluated = evaluate.evaluate(model, data.images, data.labels, tmp_path / "p")
        assert evaluated.kept == kept
        assert [remark.partition(" left as")[0] for remark in evaluated.remarks if "EXIF" in remark] == expected
        lines = (tmp_path / "p").read_bytes().splitlines(keepends=True)
        (tmp_path / "p.unfinished").write_bytes(b"".join(lines[:5]))
