"""What is scored besides a client's summary: folders and lists of outputs, and files of predicted classes."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.compare.pairs import compare
from ResNeSt.engines.image_batches import ModelChoice
from ResNeSt.evaluate import evaluate
from ResNeSt.labels.class_names import imagenet_classes
from ResNeSt.labels.file import read_labels
from ResNeSt.models.cards import card, write_card
from ResNeSt.predict import FORMATS, predict
from ResNeSt.score.predictions import CSV_HEAD
from ResNeSt.score.score import Score, score_summaries
from tests.conftest import PROJECT, call

CLASSES = 8
IMAGES = [f"ILSVRC2012_val_{number:08}" for number in range(1, 7)]
LOGITS = np.random.default_rng(5).integers(-900, 900, (len(IMAGES), CLASSES)).astype(np.float32) / 64
ORDERS = np.argsort(-LOGITS, axis=1)
TRUTH = {name: int(order[place % 3 * 3]) for place, (name, order) in enumerate(zip(IMAGES, ORDERS))}
EXPECTED = Score({1: 2, 5: 4}, 6)

SYNSETS = [each.synset for each in imagenet_classes()[7::100]]

WRITERS: dict[str, Callable[[Path, np.ndarray], object]] = {
    ".bin": lambda path, row: path.write_bytes(row.tobytes()),
    ".npy": lambda path, row: np.save(path, row[None]),
    ".npz": lambda path, row: np.savez(path, output1=row[None]),
    ".txt": lambda path, row: path.write_text(" ".join(map(str, row)) + "\n"),
}


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.txt"
    path.write_text("".join(f"{name}.JPEG {label}\n" for name, label in TRUTH.items()))
    return path


def outputs(folder: Path, suffix: str, ending: str = "") -> Path:
    folder.mkdir()
    for name, row in zip(IMAGES, LOGITS):
        WRITERS[suffix](folder / f"{name}{ending}{suffix}", row)
    return folder


@pytest.mark.parametrize("ending", ["", "_0"])
@pytest.mark.parametrize("suffix", WRITERS)
def test_a_folder_of_outputs_is_scored_by_their_names(tmp_path: Path, labels: Path, suffix: str, ending: str) -> None:
    folder = outputs(tmp_path / "out", suffix, ending)
    (folder / "readme.md").write_text("not an output")
    assert score_summaries([folder], labels).score == EXPECTED
    (folder / f"{IMAGES[0]}{ending}{suffix}").unlink()
    WRITERS[suffix](folder / f"other{ending}{suffix}", LOGITS[0])
    problems = score_summaries([folder], labels).problems
    assert problems["missing"] == IMAGES[:1]
    assert problems["extra"] == [f"{folder}/other{ending}{suffix}"]


def test_two_outputs_of_an_image_are_named(tmp_path: Path, labels: Path) -> None:
    folder = outputs(tmp_path / "out", ".npz")
    WRITERS[".npy"](folder / f"{IMAGES[0]}.npy", LOGITS[1])
    (duplicate,) = score_summaries([folder], labels).problems["duplicate"]
    assert duplicate == f"{folder}/{IMAGES[0]}.npz: the first is {folder}/{IMAGES[0]}.npy"


@pytest.mark.parametrize("name", ["list.txt", "list.LST"])
@pytest.mark.parametrize("where", ["here", "beside the list", "anywhere"])
def test_a_list_names_the_outputs(
    tmp_path: Path, labels: Path, monkeypatch: pytest.MonkeyPatch, name: str, where: str
) -> None:
    folder = outputs(tmp_path / "out", ".npz")
    start = {"here": "out/", "beside the list": "", "anywhere": f"{folder}/"}[where]
    file = (folder if where == "beside the list" else tmp_path) / name
    file.write_bytes(b"\xef\xbb\xbf" + "\r\n\n".join(f"{start}{image}.npz" for image in IMAGES).encode())
    monkeypatch.chdir(tmp_path)
    assert score_summaries([file], labels).score == EXPECTED


def test_a_list_of_something_else_is_refused_by_its_line(tmp_path: Path, labels: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text("a.npz\n0.25 0.75\n")
    with pytest.raises(PipelineError, match=r"list\.txt: line 2: found '0\.25 0\.75', expected the path"):
        score_summaries([file], labels)
    file.write_text("\n")
    with pytest.raises(PipelineError, match="holds no outputs"):
        score_summaries([file], labels)
    file.write_text("none.npz\n")
    with pytest.raises(PipelineError, match="none of the 1 results"):
        score_summaries([file], labels)


def test_a_folder_of_several_devices_is_refused_with_their_summaries(tmp_path: Path, labels: Path) -> None:
    names = ["device0_0_summary.json", "device1_1_summary.json"]
    for name in names:
        (tmp_path / "dev").mkdir(exist_ok=True)
        (tmp_path / "dev" / name).touch()
    given = " ".join(f"--results {tmp_path}/dev/{name}" for name in names)
    with pytest.raises(PipelineError, match=f"dev: holds no outputs, .*; give a summary in it: {given}$"):
        score_summaries([tmp_path / "dev"], labels)


@pytest.mark.parametrize(
    ("arrays", "word"),
    [
        ({"a": LOGITS[0], "b": LOGITS[0]}, "2 arrays"),
        ({"a": LOGITS[:2]}, "of shape"),
        ({"a": np.arange(CLASSES)}, "floating-point"),
    ],
)
def test_an_npz_that_is_no_output_of_one_image_is_named(
    tmp_path: Path, labels: Path, arrays: dict[str, np.ndarray], word: str
) -> None:
    folder = outputs(tmp_path / "out", ".npz")
    np.savez(folder / f"{IMAGES[0]}.npz", **arrays)  # type: ignore[arg-type]
    (problem,) = score_summaries([folder], labels).problems["unreadable"]
    assert word in problem


def test_compare_reads_npz_outputs(tmp_path: Path) -> None:
    found = compare(outputs(tmp_path / "a", ".npz", "_0"), outputs(tmp_path / "b", ".npy", "_0"))
    assert (found.images, found.same_top1, found.difference) == (6, 6, 0)


def lines(path: Path, problem: str = "") -> Path:
    """As evaluate writes them; the second image has a `problem`."""
    records = [
        {"image": f"val/{name}.JPEG", "classes": order[:5].tolist(), "problem": "", "reason": ""}
        for name, order in zip(IMAGES, ORDERS)
    ]
    if problem:
        records[1].update(classes=[], problem=problem, reason=f"{IMAGES[1]}: why")
    head = {"model": {}, "images": len(records), "pictures": "0"}
    path.write_text("".join(json.dumps(record) + "\n" for record in [head, *records]))
    return path


def answers(path: Path, top: int, where: str = "/some/where/") -> Path:
    """As predict writes them."""
    rows = [(f"{where}{name}.JPEG", order[:top].tolist()) for name, order in zip(IMAGES, ORDERS)]
    if path.suffix == ".json":
        told = [
            {"image": image, "predictions": [{"class": label, "probability": 0.5} for label in classes]}
            for image, classes in rows
        ]
        path.write_text(json.dumps(told, indent=1))
    else:
        cells = [[image, rank, label, 0.5, "", ""] for image, classes in rows for rank, label in enumerate(classes, 1)]
        path.write_text("".join(",".join(map(str, row)) + "\n" for row in [CSV_HEAD, *cells]))
    return path


def test_predictions_are_scored_by_the_names_of_their_images(tmp_path: Path, labels: Path) -> None:
    for path in (lines(tmp_path / "p"), answers(tmp_path / "p.json", 5), answers(tmp_path / "p.csv", 6, "x/")):
        result = score_summaries([path], labels)
        assert (result.score, result.ranks) == (EXPECTED, 5)
        assert not any(result.problems.values())


@pytest.mark.parametrize("name", ["p.json", "p.csv"])
@pytest.mark.parametrize("top", [1, 3])
def test_of_fewer_than_five_classes_an_image_top_5_is_not_told(
    tmp_path: Path, labels: Path, name: str, top: int
) -> None:
    result = score_summaries([answers(tmp_path / name, top)], labels)
    assert (result.ranks, result.score.top1) == (top, EXPECTED.top1)


@pytest.mark.parametrize(("problem", "kind"), [("broken", "unreadable"), ("not-finite", "not-finite")])
def test_images_that_evaluate_could_not_answer_are_named(tmp_path: Path, labels: Path, problem: str, kind: str) -> None:
    result = score_summaries([lines(tmp_path / "p", problem)], labels)
    assert (result.score.total, result.problems[kind]) == (5, [f"{IMAGES[1]}: why"])


def test_images_without_a_label_or_a_prediction_are_named(tmp_path: Path, labels: Path) -> None:
    text = labels.read_text().replace(f"{IMAGES[0]}.JPEG", "other.JPEG")
    labels.write_text(text)
    problems = score_summaries([answers(tmp_path / "p.csv", 5)], labels).problems
    assert (problems["missing"], problems["extra"]) == (["other"], [f"{tmp_path}/p.csv: /some/where/{IMAGES[0]}.JPEG"])


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda text: text[:-20], "copy it again"),
        (lambda text: text.rsplit("\n", 2)[0] + "\n", "holds 5 of 6 images"),
        (lambda text: text.replace('"classes": [', '"classes": [-1, ', 1), "entry 2 is no prediction"),
        (lambda text: text.replace('"image": ', '"picture": ', 1), "entry 2 is no prediction"),
        (lambda text: text.replace("[", "{", 1), "entry 2 is no prediction"),
    ],
)
def test_damaged_predictions_are_refused_by_their_entry(
    tmp_path: Path, labels: Path, change: Callable[[str], str], word: str
) -> None:
    path = lines(tmp_path / "p")
    path.write_text(change(path.read_text()))
    with pytest.raises(PipelineError, match=word):
        score_summaries([path], labels)


@pytest.mark.parametrize(
    "row", ["x.jpg,1,1.5,0.5,,", "x.jpg,2,1,0.5,,", "x.jpg,1,1,0.5", "x.jpg", "x.jpg,1,-1,0.5,,", "x.jpg,1,1,much,,"]
)
def test_a_row_that_is_no_prediction_is_refused(tmp_path: Path, labels: Path, row: str) -> None:
    path = answers(tmp_path / "p.csv", 5)
    path.write_text(path.read_text() + row + "\n")
    with pytest.raises(PipelineError, match="entry 7 is no prediction"):
        score_summaries([path], labels)


def test_what_a_stopped_run_left_is_not_scored(tmp_path: Path, labels: Path) -> None:
    with pytest.raises(PipelineError, match="was stopped"):
        score_summaries([lines(tmp_path / "p.unfinished")], labels)


def test_predictions_are_scored_alone(tmp_path: Path, labels: Path) -> None:
    with pytest.raises(ArgumentError, match="by itself"):
        score_summaries([outputs(tmp_path / "out", ".npz"), lines(tmp_path / "p")], labels)


def test_what_evaluate_and_predict_write_scores_as_evaluate_says(tmp_path: Path, demo_onnx: Path) -> None:
    truth = read_labels(PROJECT / "demo/val_label.txt")
    pictures = sorted((PROJECT / "demo/val").iterdir())[100:112]
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"{path.name} {truth[path.stem]}\n" for path in pictures))
    model = ModelChoice(demo_onnx, batch=4)
    evaluated = evaluate(model, PROJECT / "demo/val", labels, tmp_path / "p", allowed=["extra"])
    files = [tmp_path / "p"]
    for kind in ("json", "csv"):
        text = io.StringIO()
        FORMATS[kind](predict(model, pictures), text)
        files.append(tmp_path / f"p.{kind}")
        files[-1].write_text(text.getvalue())
    assert [score_summaries([file], labels).score for file in files] == [evaluated.score] * 3
    result = call("ResNeSt_postprocess.py", f"--result_path={files[2]}", f"--gt_path={labels}")
    assert result.returncode == 0, result.stderr
    assert f"top5_correct={evaluated.score.top5}, tot=12" in result.stdout


@pytest.mark.parametrize("folder", ["", "images/", "../mine/images/", "/data/mine/"])
@pytest.mark.parametrize("places", [["n1/1.jpg", "n2/1.jpg"], ["n1/1.jpg"]])
def test_predictions_are_joined_by_their_folders_wherever_these_lie(
    folder: str, places: list[str], tmp_path: Path
) -> None:
    truth, csv = tmp_path / "labels.txt", tmp_path / "answers.csv"
    truth.write_text("n1/1.jpg 3\nn2/1.jpg 4\n")
    rows = [f"{folder}{place},1,{3 + number},0.9,,\n" for number, place in enumerate(places)]
    csv.write_text(",".join(CSV_HEAD) + "\n" + "".join(rows))
    result = score_summaries([csv], truth)
    assert result.score.top1 == result.score.total == len(places)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (",".join(CSV_HEAD) + "\n", "not whole, it holds 0 images"),
        (",".join(CSV_HEAD) + "\na.jpg,1,3,0.5,,\na.jpg,2,4,0.5,,\nb.jpg,1,3,0.5,,\n", "b.jpg with 1 classes"),
        (";".join(CSV_HEAD) + "\na.jpg;1;3;0,5;;\n", "begins 'image;rank;"),
        ("", "begins ''"),
    ],
)
def test_a_csv_that_is_cut_or_was_saved_in_another_form_says_so(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("a.jpg 3\nb.jpg 3\n")
    (tmp_path / "answers.csv").write_text(text)
    with pytest.raises(PipelineError, match=words):
        score_summaries([tmp_path / "answers.csv"], tmp_path / "labels.txt")


def by_folders(tmp_path: Path, names: list[str]) -> Path:
    """Two pictures of each digit, in the folder that `names` calls it."""
    truth = read_labels(PROJECT / "demo/val_label.txt")
    for path in sorted((PROJECT / "demo/val").iterdir())[:20]:
        (tmp_path / "val" / names[truth[path.stem]]).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "val" / names[truth[path.stem]])
    return tmp_path / "val"


def test_predictions_score_by_class_folders_as_evaluate_does_whatever_the_model_calls_its_classes(
    demo_checkpoint: Path, tmp_path: Path
) -> None:
    """Folders 1 to 10 in the order of text, and ten of ImageNet's synsets: not the numbers that they seem to be."""
    for kind, names in {"text": sorted(map(str, range(1, 11))), "synsets": SYNSETS}.items():
        source = by_folders(tmp_path / kind, names)
        own_card = tmp_path / f"{kind}.json"
        write_card(dataclasses.replace(card("resnest_demo"), class_names=tuple(names)), own_card)
        evaluated = evaluate(
            ModelChoice(demo_checkpoint, arch=str(own_card)), source, predictions=tmp_path / kind / "p"
        )
        result = score_summaries([tmp_path / kind / "p"], source)
        assert (result.score, result.classes) == (evaluated.score, 10)
        assert result.score.top1_acc > 0.9
        assert result.class_names == list(evaluated.class_names)
        assert not result.remarks


def test_by_what_class_folders_count_is_told_where_the_predictions_do_not_say_what_the_classes_are(
    tmp_path: Path,
) -> None:
    source = by_folders(tmp_path, list(map(str, range(10))))
    rows = [f"{path},1,3,0.5,," for path in sorted(source.rglob("*.JPEG"))]
    (tmp_path / "p.csv").write_text("\n".join(["image,rank,class,probability,synset,name", *rows]) + "\n")
    (told,) = score_summaries([tmp_path / "p.csv"], source).remarks
    assert "val: classes by the numbers that the folders are called by, since nothing tells" in told


def test_an_answer_beyond_the_classes_that_are_given_is_refused(tmp_path: Path, labels: Path) -> None:
    labels.write_text(re.sub(r" \d+$", " 0", labels.read_text(), flags=re.M))
    with pytest.raises(PipelineError, match=r"p: an answer is class \d+, the model has 1 classes"):
        score_summaries([lines(tmp_path / "p")], labels, classes=1)
