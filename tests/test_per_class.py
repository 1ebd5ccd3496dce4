"""The confusion matrix and the figures of each class, against plain counting."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ResNeSt.commands import postprocess
from ResNeSt.common.errors import PipelineError
from ResNeSt.labels.class_names import ClassName
from ResNeSt.score.per_class import HEAD, class_figures, pairs_of, write_confusion, write_per_class
from tests.conftest import PROJECT

NAMES = [ClassName("cat"), ClassName("crane"), ClassName("crane"), ClassName("", "n01440764"), ClassName("")]
TITLES = ["cat", "1 crane", "2 crane", "n01440764", "4"]
# Labels and predictions: class 2 has no image, class 3 is never predicted, class 4 is neither.
SHOWN, FOUND = [0, 0, 0, 1, 1, 3], [0, 0, 1, 1, 2, 0]
PAIRS = pairs_of(zip(SHOWN, ([number] for number in FOUND), [None] * 6))


def rows(path: Path) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def by_hand(labels: list[int], found: list[int], number: int) -> list[float | None]:
    """Accuracy, precision, recall and F1 of a class, as textbooks define them."""
    hits = sum(label == guess == number for label, guess in zip(labels, found))
    missed = sum(label == number != guess for label, guess in zip(labels, found))
    wrong = sum(guess == number != label for label, guess in zip(labels, found))
    recall = hits / (hits + missed) if hits + missed else None
    precision = hits / (hits + wrong) if hits + wrong else None
    f1 = hits / (hits + (missed + wrong) / 2) if hits + missed + wrong else None
    return [recall, precision, recall, f1]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=40))
def test_the_figures_of_each_class_are_those_of_the_textbook_and_nothing_where_they_are_not_defined(
    answers: list[tuple[int, int]],
) -> None:
    labels, found = [label for label, _ in answers], [guess for _, guess in answers]
    for each in class_figures(pairs_of((label, [guess, 9], None) for label, guess in answers), NAMES):
        assert (each.support, each.predicted) == (labels.count(each.number), found.count(each.number))
        expected = by_hand(labels, found, each.number)
        assert [each.accuracy, each.precision, each.recall, each.f1] == [
            None if value is None else pytest.approx(value) for value in expected
        ]


def test_per_class_is_a_csv_with_empty_cells_for_what_is_not_defined_or_json_with_null(tmp_path: Path) -> None:
    write_per_class(tmp_path / "c.csv", PAIRS, NAMES)
    head, *body = rows(tmp_path / "c.csv")
    assert head == list(HEAD)
    assert [row[:5] for row in body] == [
        ["0", "cat", "3", "3", "2"],
        ["1", "crane", "2", "2", "1"],
        ["2", "crane", "0", "1", "0"],
        ["3", "n01440764", "1", "0", "0"],
        ["4", "", "0", "0", "0"],
    ]
    assert body[2][5:] == ["", "0.0", "", "0.0"]
    assert body[3][5:] == ["0.0", "", "0.0", "0.0"]
    assert body[4][5:] == ["", "", "", ""]
    write_per_class(tmp_path / "c.JSON", PAIRS, NAMES)
    told = json.loads((tmp_path / "c.JSON").read_text())
    assert [["" if value is None else str(value) for value in each.values()] for each in told] == body
    assert [list(each) for each in told] == [head] * 5


def test_the_confusion_matrix_has_a_row_a_label_and_a_column_a_prediction_each_with_its_class(tmp_path: Path) -> None:
    write_confusion(tmp_path / "m.csv", PAIRS, NAMES)
    (corner, *titles), *body = rows(tmp_path / "m.csv")
    assert (corner, titles, [row[0] for row in body]) == ("label \\ predicted", TITLES, TITLES)
    counted = [[sum((a, b) == pair for pair in zip(SHOWN, FOUND)) for b in range(5)] for a in range(5)]
    assert [[int(cell) for cell in row[1:]] for row in body] == counted
    write_confusion(tmp_path / "m.json", PAIRS, NAMES)
    told = json.loads((tmp_path / "m.json").read_text())
    assert (told["classes"], told["matrix"]) == (TITLES, counted)


def test_a_matrix_of_classes_without_end_is_refused_and_an_older_file_stays(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("older")
    with pytest.raises(PipelineError, match="answers are of 5,001 classes, expected 5,000 at most"):
        write_confusion(tmp_path / "m.csv", PAIRS, [ClassName("")] * 5001)
    with pytest.raises(PipelineError, match="an answer is class 3, of 3 classes, so classes 0 to 2"):
        write_per_class(tmp_path / "m.csv", PAIRS, NAMES[:3])
    assert (tmp_path / "m.csv").read_text() == "older"


def run_postprocess(monkeypatch: pytest.MonkeyPatch, *flags: object) -> int:
    monkeypatch.setattr(sys, "argv", ["ResNeSt_postprocess.py", *map(str, flags)])
    return postprocess.main()


@pytest.fixture
def predicted(tmp_path: Path) -> list[str]:
    """Flags for three classes of each of six images, of ten."""
    ranks = [(number, (number + 1) % 10, (number + 2) % 10) for number in FOUND]
    lines = ["image,rank,class,probability,synset,name"]
    lines += [
        f"{image}.jpg,{rank},{label},0.5,," for image, row in enumerate(ranks) for rank, label in enumerate(row, 1)
    ]
    (tmp_path / "p.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "l.txt").write_text("".join(f"{image}.jpg {label}\n" for image, label in enumerate(SHOWN)))
    return [f"--results={tmp_path / 'p.csv'}", f"--labels={tmp_path / 'l.txt'}", "--classes=10"]


def test_postprocess_writes_both_and_tells_any_top_k_that_is_known(
    predicted: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [f"--confusion={tmp_path / 'm.csv'}", f"--per-class={tmp_path / 'c.csv'}", f"--json={tmp_path / 'f.json'}"]
    assert run_postprocess(monkeypatch, *predicted, *files, "--top-k=3,2,10,1,3") == 0
    assert capsys.readouterr().out.splitlines() == [
        "top1_acc\t0.5000",
        "top2_acc\t0.5000",
        "top3_acc\t0.5000",
        "top1_correct=3, tot=6, acc=50.000%",
        "top2_correct=3, tot=6, acc=50.000%",
        "top3_correct=3, tot=6, acc=50.000%",
        "top-10 is not known, the file has 3 classes an image; tot is 6 of 6 labelled images",
    ]
    told: dict[str, Any] = json.loads((tmp_path / "f.json").read_text())
    assert {key: value for key, value in told.items() if key.startswith("top")} == {
        **{f"top{k}_acc": 0.5 for k in (1, 2, 3)},
        "top10_acc": None,
        **{f"top{k}_correct": 3 for k in (1, 2, 3)},
        "top10_correct": None,
    }
    assert rows(tmp_path / "m.csv")[1][:4] == ["0", "2", "1", "0"]
    assert rows(tmp_path / "c.csv")[1][:5] == ["0", "", "3", "3", "2"]


@pytest.mark.parametrize("flag", ["--confusion", "--per-class", "--json"])
def test_a_folder_where_a_file_is_to_be_written_is_refused_before_anything_is_read(
    flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PipelineError, match="is a folder; only a plain file is written here"):
        run_postprocess(monkeypatch, "--results=nowhere", "--labels=nowhere", f"{flag}={tmp_path}")


@pytest.mark.parametrize("given", ["", "0", "1,", "a", "1.5", "-3", "1;3"])
def test_a_top_k_that_is_no_list_of_numbers_is_refused(
    given: str, predicted: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_postprocess(monkeypatch, *predicted, f"--top-k={given}")
    assert ended.value.code == 2
    assert "is not a whole number from 1" in capsys.readouterr().err


def test_a_folder_of_class_folders_stands_in_for_a_labels_file_where_their_names_tell_the_classes(
    predicted: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = (PROJECT / "demo/val/digits_val_00000001.JPEG").read_bytes()
    for image, label in enumerate(SHOWN):
        (tmp_path / f"val/{label}").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"val/{label}/{image}.jpg").write_bytes(picture)
    assert run_postprocess(monkeypatch, predicted[0], f"--labels={tmp_path / 'val'}", predicted[2]) == 0
    assert "top1_correct=3, tot=6" in capsys.readouterr().out
    for label in set(SHOWN):
        (tmp_path / f"val/{label}").rename(tmp_path / f"val/class{label}")
    with pytest.raises(PipelineError, match="val: nothing says which class each of its folders is; make a labels file"):
        run_postprocess(monkeypatch, predicted[0], f"--labels={tmp_path / 'val'}", predicted[2])
