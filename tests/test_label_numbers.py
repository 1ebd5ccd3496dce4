"""Which class number a folder or a label stands for, and what is said where that is not sure."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ResNeSt import evaluate as evaluation
from ResNeSt import pipeline
from ResNeSt.common.errors import PipelineError
from ResNeSt.engines.engine import TensorSpec
from ResNeSt.engines.image_batches import ModelChoice
from ResNeSt.engines.null import NullEngine
from ResNeSt.evaluate import Evaluated, evaluate
from ResNeSt.labels import folders
from ResNeSt.labels.__main__ import main
from ResNeSt.labels.carried import read_truth
from ResNeSt.labels.class_names import ClassList, ClassName, class_list, imagenet_classes, names_of, read_names
from ResNeSt.labels.file import read_labels, write_labels
from ResNeSt.labels.numbering import number_folders
from ResNeSt.labels.sources import check_folders, from_csv, read_tree
from ResNeSt.models.cards import card, write_card
from ResNeSt.score.label_numbers import one_answer, remarks, remarks_on
from ResNeSt.score.score import check_labels, score_summaries
from ResNeSt.tensors.format import TensorFormat
from tests.conftest import assert_refused, call, picture, tree

CATS = ClassList("a card", [ClassName("cat"), ClassName("dog"), ClassName("fish")])
SYNSETS = [found.synset for found in imagenet_classes()]


def numbers(*names: str, known: ClassList | None = None) -> dict[str, int]:
    return number_folders(names, "val", known).numbers


def refusal(*names: str, known: ClassList | None = None) -> str:
    with pytest.raises(PipelineError) as caught:
        numbers(*names, known=known)
    return str(caught.value)


# Folders that are numbers


def test_folders_that_are_all_numbers_mean_these_numbers() -> None:
    assert numbers("2", "9", "10") == {"2": 2, "9": 9, "10": 10}
    assert numbers("007", "0", "12") == {"007": 7, "0": 0, "12": 12}
    assert numbers(*map(str, range(1000))) == {str(number): number for number in range(1000)}


def test_gaps_between_the_numbers_of_folders_stay_and_are_told() -> None:
    found = number_folders(["0", "2", "5"], "val")
    assert [name.name for name in found.classes] == ["0", "1", "2", "3", "4", "5"]
    assert found.remarks("val") == ["val: no folder for 3 of the classes 0 to 5, such as 1"]


def test_folders_that_count_from_1_are_told() -> None:
    (told,) = number_folders(["1", "2", "3"], "val").remarks("val")
    assert "count from 1" not in number_folders(["3", "5"], "val").remarks("val")[0]
    assert told == (
        "val: no folder for 1 of the classes 0 to 3, such as 0; classes count from 0, do these folders count from 1?"
    )


@pytest.mark.parametrize("odd", ["-1", "100000", "20240131", "9" * 5000])
def test_a_folder_that_is_no_possible_class_number_is_refused_by_name(odd: str) -> None:
    assert refusal("0", odd).startswith(
        f"val: its folder {odd[:20]} is a number, and class numbers here are 0 to 99999;"
    )


def test_two_folders_of_one_number_are_refused_by_name() -> None:
    assert "folders 7 and 007 are both class 7" in refusal("7", "007")


def test_numbers_beside_other_names_are_refused_unless_a_list_of_names_has_them() -> None:
    assert "its folder 10 is a number, unknown is none" in refusal("10", "2", "unknown")
    known = ClassList("names.txt", [ClassName("unknown"), ClassName("10"), ClassName("2")])
    assert numbers("10", "2", "unknown", known=known) == {"unknown": 0, "10": 1, "2": 2}


def test_synsets_beside_other_names_are_refused_unless_they_are_to_be_counted_by_order() -> None:
    """Else `unknown` or `0_junk` would shift the numbers of all classes behind it."""
    assert "its folder n01440764 is a synset of ImageNet, junk is none; move it elsewhere" in refusal(
        "n01440764", "junk", "n01443537"
    )
    assert number_folders(["n01440764", "junk"], "val", from_zero=True).numbers == {"junk": 0, "n01440764": 1}
    assert numbers("n09999999", "junk") == {"junk": 0, "n09999999": 1}


def test_a_number_beyond_the_model_s_classes_is_refused_and_1_to_n_recognised() -> None:
    ten = class_list("resnest_demo", None, 10)
    assert numbers("3", "9", known=ten) == {"3": 3, "9": 9}
    assert "resnest_demo has classes 0 to 9; rename it" in refusal("3", "11", known=ten)
    assert "classes 0 to 9; the folders seem to count from 1" in refusal(*map(str, range(1, 11)), known=ten)


# A list of class names


def test_a_list_of_class_names_decides_where_there_is_one() -> None:
    assert numbers("cat", "fish", known=CATS) == {"cat": 0, "fish": 2}
    assert numbers("0", "2", known=CATS) == {"0": 0, "2": 2}
    tens = ClassList("names.txt", [ClassName("20"), ClassName("10"), ClassName("0")])
    assert numbers("10", "20", known=tens) == {"10": 1, "20": 0}


def test_a_folder_that_is_not_in_the_list_or_twice_is_refused_by_name() -> None:
    assert "its folder bird is none of the 3 classes of a card" in refusal("bird", "cat", known=CATS)
    assert "its folder crane is 2 of the 1000 classes" in refusal("crane", known=class_list("resnest50", None, 1000))


def test_names_with_accents_are_found_however_the_system_writes_them() -> None:
    apart = unicodedata.normalize("NFD", "café")
    assert numbers(apart, known=ClassList("a card", [ClassName("bar"), ClassName("café")])) == {apart: 1}


def test_a_subset_of_imagenet_keeps_imagenet_s_numbers() -> None:
    assert numbers("n02102040", "n01440764") == {"n02102040": 217, "n01440764": 0}
    assert numbers("n02102040", known=class_list("resnest50", None, 1000)) == {"n02102040": 217}


def test_classes_without_names_do_not_number_a_part_of_the_folders() -> None:
    assert "has 2 folders, mine has 3 classes without names" in refusal("a", "c", known=class_list("mine", None, 3))
    assert numbers("c", "b", "a", known=class_list("mine", None, 3)) == {"a": 0, "b": 1, "c": 2}


def test_the_folder_above_the_class_folders_is_told(tmp_path: Path) -> None:
    root = tree(tmp_path / "data/val", cat=["a.png"], dog=["b.png"])
    (told,) = read_tree(root.parent).remarks
    assert "all images lie two folders down or deeper, such as val/cat/a.png" in told
    picture(8, 8).save(root / "c.png")
    assert read_tree(root.parent).remarks == []


def test_an_empty_class_folder_is_a_class_and_is_named(tmp_path: Path) -> None:
    root = tree(tmp_path / "val", ape=[], bee=["b.png"], cow=["c.png"], **{".cache": ["hidden.png"]})
    found = read_tree(root)
    assert (found.labels, found.numbers) == ([1, 2], {"ape": 0, "bee": 1, "cow": 2})
    assert found.remarks == [f"{root}: 1 class folders have no images, such as ape; each is a class all the same"]


def test_a_part_of_the_classes_is_numbered_as_in_training_by_names_card_and_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tree(tmp_path / "val", cat=["c.png"], fish=["f.png"])
    monkeypatch.chdir(tmp_path)
    own = dataclasses.replace(card("resnest_demo"), classes=3, class_names=("cat", "dog", "fish"))
    write_card(own, tmp_path / "mine.json")
    (tmp_path / "mine.pth").write_bytes(b"")
    (tmp_path / "names.txt").write_text("cat\ndog\nfish\n")
    info = {"classes": "3", "class_names": '["cat", "dog", "fish"]'}
    for model, record in (("m.xml", {"info": info}), ("foreign.xml", {"info": {"classes": 1.5}})):
        (tmp_path / model).write_text("")
        (tmp_path / f"{model}.json").write_text(json.dumps(record))
    flags = ("--names=names.txt", "--names=mine.json", "--arch=mine.json", "--model=mine.pth", "--model=m.xml")
    for number, flag in enumerate(flags):
        monkeypatch.setattr(sys, "argv", ["labels", "tree", "val", f"{number}.txt", flag])
        assert main() == 0
        assert read_labels(f"{number}.txt") == {"c": 0, "f": 2}
    assert "note" not in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["labels", "tree", "val", "alone.txt"])
    main()
    assert "note: a model of other folders counts otherwise" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["labels", "tree", "val", "none.txt", "--model=foreign.xml"])
    with pytest.raises(PipelineError, match=r"foreign\.xml: does not say what its classes are; give them with --names"):
        main()


def test_labels_that_contradict_the_folder_of_their_images_are_refused(tmp_path: Path) -> None:
    root = tree(tmp_path / "val", cat=["c.png"], fish=["f.png"], other=["o.png"])
    images = [str(root / "cat/c.png"), str(root / "fish/f.png"), str(root / "other/o.png")]
    check_folders("l.txt", {"c": 0, "f": 2, "o": 1}, images, root, CATS)
    with pytest.raises(PipelineError, match=r"l.txt: 1 images have another class .* while fish is class 2 of a card"):
        check_folders("l.txt", {"c": 0, "f": 1, "o": 1}, images, root, CATS)


class Always(NullEngine):
    """Answers class 1 of three, called cat, dog and fish, for every picture."""

    def __init__(self) -> None:
        self.title = "always"
        self.info = {"class_names": '["cat", "dog", "fish"]'}
        self.input, self.sizes = TensorSpec("x", (4, 3, 8, 8), "float32"), (4,)
        self.probabilities, self.instances = False, 1

    def run(self, batch: np.ndarray) -> np.ndarray:
        return np.tile(np.array([0, 1, 0], np.float32), (len(batch), 1))


def evaluated(root: Path, monkeypatch: pytest.MonkeyPatch, **labels: int) -> Evaluated:
    """The pictures of a folder as `Always` answers, against these labels."""
    (root.parent / "l.txt").write_text("".join(f"{name}.png {label}\n" for name, label in labels.items()))
    monkeypatch.setattr(evaluation, "open_for_images", lambda model, images: Always())
    made = TensorFormat("ecentercrop-bicubic", 8, "float32", (0.0,) * 3, (1.0,) * 3)
    monkeypatch.setattr(evaluation, "image_format", lambda engine, model: made)
    (root.parent / "m.om").touch()
    return evaluate(ModelChoice(root.parent / "m.om"), root, root.parent / "l.txt")


def test_evaluation_refuses_labels_that_contradict_the_model_s_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(tmp_path / "val", cat=["a.png"], fish=["b.png"])
    assert evaluated(root, monkeypatch, a=0, b=2).score.total == 2
    with pytest.raises(PipelineError, match=r"b\.png, class 1, while fish is class 2 of .*m\.om"):
        evaluated(root, monkeypatch, a=0, b=1)


def test_evaluation_and_scoring_tell_that_labels_count_from_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["a", "b", "c", "d"]
    root = tree(tmp_path, val=[f"{name}.png" for name in names]) / "val"
    told = "0 of 4 images are right at first guess; were every label one less 4 would be right"
    assert told in " ".join(evaluated(root, monkeypatch, **dict.fromkeys(names, 2)).remarks)
    assert "count from" not in " ".join(evaluated(root, monkeypatch, **dict.fromkeys(names, 1)).remarks)
    (tmp_path / "out").mkdir()
    for name in names:
        (tmp_path / f"out/{name}_0.txt").write_text("0 1 0 \n")
    entries = {name: {"infiles": [f"{name}.bin"], "outfiles": [f"out/{name}_0.txt"]} for name in names}
    (tmp_path / "out_summary.json").write_text(json.dumps({"filesinfo": entries, "throughput": 1.0}))
    (tmp_path / "l.txt").write_text("".join(f"{name}.png 2\n" for name in names))
    flags = [f"--result_path={tmp_path / 'out_summary.json'}", f"--gt_path={tmp_path / 'l.txt'}"]
    result = call("ResNeSt_postprocess.py", *flags, f"--json={tmp_path / 's.json'}")
    assert f"note: {tmp_path / 'l.txt'}: {told}" in result.stdout
    assert told in json.loads((tmp_path / "s.json").read_text())["notes"][0]


def test_what_must_be_known_of_class_folders_that_outputs_are_scored_by_is_told(tmp_path: Path) -> None:
    root = tree(tmp_path / "val", cat=["a.png"], dog=["b.png"])
    truth, notes = read_truth(root, ClassList("m.om", [ClassName("")] * 2))
    assert (truth, len(notes)) == ({"a": 0, "b": 1}, 1)
    assert "numbered in the order of their names, since m.om does not say what its classes are called" in notes[0]
    for folder, number in (("cat", "1"), ("dog", "2")):
        (root / folder).rename(root / number)
    (tmp_path / "out").mkdir()
    for name in "ab":
        (tmp_path / f"out/{name}_0.txt").write_text("0 1 0 \n")
    told = remarks_on(score_summaries([tmp_path / "out"], root), root)
    assert "do these folders count from 1?" in told[0]


# Names of classes


def test_names_with_imagenet_s_synsets_in_another_order_are_put_into_imagenet_s(tmp_path: Path) -> None:
    (file := tmp_path / "names.txt").write_text("".join(f"{synset}\tword {synset}\n" for synset in SYNSETS[::-1]))
    assert [name.name for name in names_of({}, 1000, file)] == [f"word {synset}" for synset in SYNSETS]
    lines = [f"{synset} word\n" for synset in [*SYNSETS[1:3], SYNSETS[0], *SYNSETS[3:-1]]] + ["n99999999 own\n"]
    file.write_text("".join(lines))
    with pytest.raises(PipelineError, match=f"its class 0 is {SYNSETS[1]}, which is class 1 of the model"):
        names_of({}, 1000, file)


def test_the_model_s_own_names_in_another_order_are_put_into_the_model_s(tmp_path: Path) -> None:
    (file := tmp_path / "names.txt").write_text("dog\ncat\n")
    assert [name.name for name in names_of({"class_names": '["cat", "dog"]'}, 2, file)] == ["cat", "dog"]
    file.write_text("Hund\nKatze\n")
    assert [name.name for name in names_of({"class_names": '["cat", "dog"]'}, 2, file)] == ["Hund", "Katze"]


@pytest.mark.parametrize("names", ['["cat"', '"cat"', '["cat", 3]', '["cat"]'])
def test_class_names_in_a_model_that_are_no_list_of_its_classes_are_refused(names: str) -> None:
    with pytest.raises(PipelineError, match="class_names"):
        names_of({"class_names": names}, 2)


def test_synsets_are_read_before_a_blank_a_tab_or_alone_and_odd_line_ends_shift_no_name(tmp_path: Path) -> None:
    (file := tmp_path / "names.txt").write_text("n01440764 tench\nn01443537\nn01484850\tshark\nsea\u2028side\x85\n")
    assert read_names(file) == [
        ("tench", "n01440764"),
        ("", "n01443537"),
        ("shark", "n01484850"),
        ("sea\u2028side", ""),
    ]


# Out of folders and back


def test_a_tree_with_any_names_of_classes_comes_back_as_it_was(tmp_path: Path) -> None:
    odd = ["apple pie", "#bike", " two  blanks ", "tab\there", "café", "10", "line\nbreak", os.fsdecode(b"caf\xe9")]
    root = tree(tmp_path / "val", **{name: [f"{number}.png"] for number, name in enumerate(odd) if name != "10"})
    (root / "empty").mkdir()
    before = {path: path.read_bytes() if path.is_file() else b"" for path in root.rglob("*")}
    assert folders.to_flat(root, tmp_path / "l.txt") == 7
    assert sorted(path.name for path in root.iterdir()) == [f"{number}.png" for number in (0, 1, 2, 3, 4, 6, 7)]
    assert folders.to_tree(tmp_path / "l.txt", root) == 7
    assert {path: path.read_bytes() if path.is_file() else b"" for path in root.rglob("*")} == before


def test_a_tree_of_numbers_comes_back_with_its_zeros(tmp_path: Path) -> None:
    root = tree(tmp_path / "val", **{"007": ["a.png"], "10": ["b.png"]})
    folders.to_flat(root, tmp_path / "l.txt")
    assert read_labels(tmp_path / "l.txt") == {"a": 7, "b": 10}
    folders.to_tree(tmp_path / "l.txt", root)
    assert sorted(path.name for path in root.iterdir()) == ["007", "10"]


def test_names_of_folders_are_not_taken_from_a_record_of_other_labels(tmp_path: Path) -> None:
    root = tree(tmp_path / "val", cat=["a.png"], dog=["b.png"])
    folders.to_flat(root, tmp_path / "l.txt")
    (tmp_path / "l.txt").write_text("a.png 1\nb.png 0\n")
    with pytest.raises(PipelineError, match="the names of class folders are of another state of"):
        folders.to_tree(tmp_path / "l.txt", root)
    for record in (["cat"], {"folders": {"cat": "0"}}, {"folders": {"../cat": 0}}, {"folders": {"": 0}}):
        (tmp_path / "l.txt.classes.json").write_text(json.dumps(record))
        with pytest.raises(PipelineError, match="not the names of class folders; delete it"):
            folders.to_tree(tmp_path / "l.txt", root)


def test_imagenet_s_synsets_are_not_given_to_classes_that_nothing_says_are_imagenet_s(tmp_path: Path) -> None:
    root = tree(tmp_path, val=["a.png", "b.png"]) / "val"
    write_labels({"a.png": 0, "b.png": 1}, tmp_path / "l.txt")
    result = call("-m", "ResNeSt.labels", "to-tree", tmp_path / "l.txt", root)
    assert_refused(result, "l.txt: nothing says what its classes are called; give their names with --names")
    for name, synset in (("ILSVRC2012_val_00000001.png", SYNSETS[65]), (f"{SYNSETS[65]}_12.png", SYNSETS[65])):
        flat = tree(tmp_path / name, val=[name]) / "val"
        write_labels({name: 65}, tmp_path / f"{name}.txt")
        folders.to_tree(tmp_path / f"{name}.txt", flat)
        assert [path.name for path in flat.iterdir()] == [synset]


def linked_folder(root: Path) -> str:
    tree(root.parent / "elsewhere", store=["x.png"])
    (root / "linked").symlink_to(root.parent / "elsewhere/store")
    return "linked: is a link or a file"


def relative_link(root: Path) -> str:
    (root / "cat/z.png").symlink_to("../../a.png")
    return "z.png: a link to ../../a.png leads nowhere once moved"


def taken_place(root: Path) -> str:
    (root / "a.png").mkdir()
    return "a.png: is there already"


def deep_image(root: Path) -> str:
    (root / "cat/deep").mkdir()
    picture(8, 8).save(root / "cat/deep/d.png")
    return "d.png: lies deeper than in a class folder"


@pytest.mark.parametrize("trap", [linked_folder, relative_link, taken_place, deep_image])
def test_nothing_is_moved_where_something_could_not_be(trap: Callable[[Path], str], tmp_path: Path) -> None:
    root = tree(tmp_path / "val", cat=["a.png"], dog=["b.png"])
    picture(8, 8).save(tmp_path / "a.png")
    words = trap(root)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(PipelineError, match=words):
        folders.to_flat(root, tmp_path / "l.txt")
    assert sorted(tmp_path.rglob("*")) == before


def test_two_classes_of_one_name_do_not_become_one_folder(tmp_path: Path) -> None:
    root = tmp_path / "val"
    root.mkdir()
    for name in ("a.png", "b.png"):
        picture(8, 8).save(root / name)
    (labels := tmp_path / "l.txt").write_text("a.png 0\nb.png 2\n")
    alike = ClassList("names.txt", [ClassName("cat"), ClassName("dog"), ClassName("cat")])
    with pytest.raises(PipelineError, match="classes 0 and 2 are both called cat"):
        folders.to_tree(labels, root, alike)
    assert sorted(path.name for path in root.iterdir()) == ["a.png", "b.png"]


def test_what_is_not_moved_out_of_class_folders_is_told(tmp_path: Path) -> None:
    root = tree(tmp_path / "val", cat=["a.png"])
    (root / "cat/a.heif2").touch()
    said: list[str] = []
    folders.to_flat(root, tmp_path / "l.txt", say=said.append)
    assert len(said) == 1
    assert "cat/a.heif2" in said[0]


def test_a_link_by_a_whole_path_is_moved_as_a_link(tmp_path: Path) -> None:
    root = tree(tmp_path / "val", cat=["a.png"])
    picture(8, 8).save(tmp_path / "kept.png")
    (root / "cat/b.png").symlink_to(tmp_path / "kept.png")
    folders.to_flat(root, tmp_path / "l.txt")
    assert (os.readlink(root / "b.png"), (tmp_path / "kept.png").is_file()) == (str(tmp_path / "kept.png"), True)


def test_another_file_system_is_found_before_the_first_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path / "val", cat=["a.png"], dog=["b.png"])
    rename = os.rename

    def across(source: os.PathLike[str], target: os.PathLike[str]) -> None:
        if "dog" in str(source):
            raise OSError(18, "Invalid cross-device link")
        rename(source, target)

    monkeypatch.setattr(os, "rename", across)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(PipelineError, match=r"dog: its images cannot be moved to .* nothing was moved"):
        folders.to_flat(root, tmp_path / "l.txt")
    assert sorted(tmp_path.rglob("*")) == before


def test_the_folders_that_a_stopped_run_emptied_go_with_the_same_command(tmp_path: Path) -> None:
    root = tree(tmp_path / "val", cat=["a.png"], dog=["b.png"])
    folders.to_flat(root, tmp_path / "l.txt")
    (root / "cat").mkdir()  # as a run leaves it that is killed between its last move and the next step
    assert folders.to_flat(root, tmp_path / "l.txt") == 0
    assert sorted(path.name for path in root.iterdir()) == ["a.png", "b.png"]


# Labels


def test_names_of_labels_end_at_the_last_blank_or_tab_and_at_no_other_white_space(tmp_path: Path) -> None:
    (file := tmp_path / "l.txt").write_text("shot at 9\u202fAM.png 3\nx\u00a0y.png\t4\n", encoding="utf-8")
    assert read_labels(file) == {"shot at 9\u202fAM": 3, "x\u00a0y": 4}
    file.write_text("a.png\u00a03\n", encoding="utf-8")
    with pytest.raises(PipelineError, match=r"line 1: found .* expected a file name, a blank and a class number"):
        read_labels(file)


@pytest.mark.parametrize("line", ['"a.png" 3', "a.png, 3", "'a.png'\t3", "a.png; 3", "a.png,3", "my a.png, 3"])
def test_a_line_of_a_csv_among_labels_is_told_what_it_is(line: str, tmp_path: Path) -> None:
    (file := tmp_path / "l.txt").write_text(line + "\n")
    with pytest.raises(PipelineError, match=r"make a labels file of a CSV by `python -m ResNeSt\.labels csv`"):
        read_labels(file)


def test_of_an_image_that_is_labelled_twice_both_classes_are_told(tmp_path: Path) -> None:
    (file := tmp_path / "l.txt").write_text("a.png 3\nb.png 1\na.png 4\n")
    with pytest.raises(PipelineError, match="already labelled in line 1 as class 3, here 4"):
        read_labels(file)


def test_a_csv_takes_names_of_classes_and_no_number_with_more_behind_it(tmp_path: Path) -> None:
    (file := tmp_path / "l.csv").write_text('image,class\n"a, b.png",fish\nc.png,0\n')
    assert from_csv(file, CATS) == {"a, b.png": 2, "c.png": 0}
    for odd in ("3 cats", "3.0", "9" * 5000, "crane"):
        file.write_text(f"image,class\na.png,{odd}\n")
        with pytest.raises(PipelineError, match="line 2: found"):
            from_csv(file)


# Labels that count from 1


def test_labels_of_which_the_model_lacks_the_last_are_said_to_count_from_1() -> None:
    with pytest.raises(PipelineError, match="they seem to count from 1, so take 1 from each"):
        check_labels({"a": 1, "b": 10}, 10, "l.txt")
    for labels in ({"a": 0, "b": 10}, {"a": 1, "b": 11}, {"a": 1, "b": 990}):
        with pytest.raises(PipelineError, match="take this model's labels"):
            check_labels(labels, 10, "l.txt")


def test_answers_tell_labels_that_count_from_1_though_the_last_class_does_not_occur() -> None:
    given = [3, 65, 400, 7, 20]
    (told,) = remarks("l.txt", given, 1000, Counter({-1: 4, 30: 1}))
    assert told == (
        "l.txt: 0 of 5 images are right at first guess; were every label one less 4 would be right: they seem to count "
        "from 1, and classes count from 0"
    )


def test_answers_tell_a_model_with_a_class_before_the_first() -> None:
    (told,) = remarks("l.txt", [0, 5, 9], 1001, Counter({1: 3}))
    assert "were every label one more 3 would be right" in told


@pytest.mark.parametrize(
    ("given", "differences"),
    [([65, 970, 230], {0: 3}), ([1, 2, 3, 4], {0: 4}), ([0, 5], {-1: 2}), ([40, 50, 60], {7: 3}), ([5, 6, 7], {-1: 2})],
    ids=["a small subset", "right as they are", "0 occurs", "a poor model", "too few"],
)
def test_labels_that_need_not_count_from_1_are_not_said_to(given: list[int], differences: dict[int, int]) -> None:
    assert remarks("l.txt", given, 1000, Counter(differences)) == []


def test_labels_without_0_are_told_where_they_are_many_or_the_lowest_is_1() -> None:
    told = "no image is of class 0 in l.txt, the lowest {}; classes count from 0, so if these count from 1, all of "
    assert remarks("l.txt", [1, 5], 10, Counter())[0].startswith(told.format(1))
    assert remarks("l.txt", [2, 5] * 15, 10, Counter())[0].startswith(told.format(2))
    assert remarks("l.txt", [2, 5] * 14, 10, Counter()) == []


def test_the_pipeline_refuses_labels_that_contradict_the_card_before_it_starts(tmp_path: Path) -> None:
    root = tree(tmp_path / "val", cat=["a.png"], fish=["b.png"])
    own = dataclasses.replace(card("resnest_demo"), classes=3, class_names=("cat", "dog", "fish"))
    write_card(own, tmp_path / "mine.json")
    write_labels({"a.png": 0, "b.png": 1}, tmp_path / "l.txt")
    flags = [f"--images={root}", f"--labels={tmp_path / 'l.txt'}", f"--model={tmp_path / 'mine.json'}"]
    with pytest.raises(PipelineError, match=r"b\.png, class 1, while fish is class 2 of .*mine\.json"):
        pipeline._plan(pipeline.make_parser().parse_args([*flags, "--weights=m.pth", f"--output={tmp_path / 'work'}"]))
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("given", "differences", "said"),
    [
        ([1, 8], {-1: 3, 5: 9}, "one less 3 would"),  # a quarter of all
        ([1, 8], {-1: 3, 5: 10}, ""),
        ([1, 8], {-1: 2, 5: 1}, ""),  # fewer may do so by chance
        ([1, 8], {-1: 6, 0: 3}, "one less 6 would"),  # twice as many
        ([1, 8], {-1: 5, 0: 3}, ""),
        ([0, 8], {-1: 9}, ""),  # one less than 0 is no class
        ([1, 8], {1: 3, 5: 9}, "one more 3 would"),
        ([0, 8], {1: 9}, "one more 9 would"),
        ([0, 9], {1: 9}, ""),  # one more than 9 is no class of ten
    ],
)
def test_labels_are_told_to_be_one_off_from_a_quarter_and_twice_the_right_ones_on(
    given: list[int], differences: dict[int, int], said: str
) -> None:
    told = [line for line in remarks("l.txt", given, 10, differences) if "were every label" in line]
    assert [line.partition("were every label ")[2][: len(said)] for line in told] == ([said] if said else [])


def test_of_a_thousand_classes_alone_the_names_are_imagenet_s(tmp_path: Path) -> None:
    assert [bool(names_of({}, classes)[0].name) for classes in (999, 1000, 1001)] == [False, True, False]
    (tmp_path / "names").write_text("a\nb\nc\n")
    with pytest.raises(PipelineError, match="holds 3 names, the model has 2 classes"):
        names_of({}, 2, tmp_path / "names")


@pytest.mark.parametrize(
    ("pairs", "told"),
    [
        ({(0, 4): 6, (1, 4): 6}, True),
        ({(0, 4): 6, (1, 4): 6, (1, 3): 1}, False),
        ({(4, 4): 60}, False),
        ({(0, 4): 2, (1, 4): 2}, False),
    ],
)
def test_a_model_that_gives_all_images_of_several_classes_one_answer_is_told(
    pairs: dict[tuple[int, int], int], told: bool
) -> None:
    lines = one_answer(pairs)
    assert bool(lines) == told
    assert all("class 4 for each of the 12 images, which are of 2 classes" in line for line in lines)
