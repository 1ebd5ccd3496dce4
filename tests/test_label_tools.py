"""python -m ResNeSt.labels: from a tree, the development kit or a CSV to labels; folders to trees and back."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from ResNeSt.common.errors import PipelineError
from ResNeSt.labels import folders
from ResNeSt.labels.class_names import ClassList, ClassName, imagenet_classes
from ResNeSt.labels.file import read_labels, write_labels
from ResNeSt.labels.sources import from_csv, from_devkit, read_tree
from tests.conftest import assert_refused, call, picture, tree

IMAGENET = ClassList("ImageNet", imagenet_classes())
SYNSETS = [found.synset for found in imagenet_classes()]
# The first three validation images: numbers in the kit, and the synsets and classes that everyone knows them by.
FIRST = [(490, "n01751748", 65), (361, "n09193705", 970), (171, "n02105855", 230)]


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """A development kit whose numbers are shuffled but for FIRST, with two synsets that are no leaves."""
    scipy_io = pytest.importorskip("scipy.io")
    rng = np.random.default_rng(0)
    known = {number: synset for number, synset, _ in FIRST}
    rest = rng.permutation([synset for synset in SYNSETS if synset not in known.values()]).tolist()
    in_order = [known.get(number) or rest.pop() for number in range(1, 1001)]
    fields = [(field, "O") for field in ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children")]
    inner = [(1001, "n00001740", "entity", "all", 2), (1002, "n00001930", "physical entity", "all", 1)]
    entries = [(number, synset, "words", "gloss", 0) for number, synset in enumerate(in_order, start=1)] + inner
    (tmp_path / "kit/data").mkdir(parents=True)
    scipy_io.savemat(tmp_path / "kit/data/meta.mat", {"synsets": np.array(entries, dtype=fields).reshape(-1, 1)})
    numbers = [number for number, _, _ in FIRST] + rng.integers(1, 1001, 50).tolist()
    (tmp_path / "kit/data/ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{n}\n" for n in numbers))
    return tmp_path / "kit"


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_the_development_kit_s_own_numbers_become_those_of_the_sorted_synsets(
    kit: Path, torchvision: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    imagenet = torchvision.datasets.imagenet
    found = from_devkit(kit)
    assert list(found.items())[:3] == [
        (f"ILSVRC2012_val_{n:08}.JPEG", label) for n, (_, _, label) in enumerate(FIRST, 1)
    ]
    with tarfile.open(kit.parent / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
        archive.add(kit, "ILSVRC2012_devkit_t12")
    monkeypatch.setattr(imagenet, "_verify_archive", lambda *_: None)  # it is not ImageNet's, which has a hash
    imagenet.parse_devkit_archive(str(kit.parent))
    theirs = [SYNSETS.index(synset) for synset in imagenet.load_meta_file(str(kit.parent))[1]]
    assert list(found.values()) == theirs


def test_a_kit_that_is_not_whole_is_refused(kit: Path) -> None:
    truth = kit / "data/ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("490\n1001\n")
    with pytest.raises(PipelineError, match=r"ground_truth.txt: 1001 is none of the 1000 classes"):
        from_devkit(kit)
    (kit / "data/meta.mat").write_bytes(b"no MATLAB file")
    assert_refused(call("-m", "ResNeSt.labels", "devkit", kit, kit / "l.txt"), "meta.mat: not the synsets")
    (kit / "data/meta.mat").unlink()
    assert_refused(call("-m", "ResNeSt.labels", "devkit", kit, kit / "l.txt"), "meta.mat: No such file")


def test_a_tree_of_synsets_has_imagenet_s_numbers_even_if_most_are_missing(tmp_path: Path) -> None:
    root = tree(tmp_path, n01751748=["a.jpg"], n09193705=["b.jpg"], n01440764=["c.jpg"])
    result = call("-m", "ResNeSt.labels", "tree", root, tmp_path / "l.txt")
    assert result.stdout == f"{tmp_path / 'l.txt'}: 3 images of 3 classes, by ImageNet's numbers of the synsets\n"
    assert read_labels(tmp_path / "l.txt") == {"a": 65, "b": 970, "c": 0}


def test_any_other_tree_is_numbered_as_torchvision_s_imagefolder_does(tmp_path: Path, torchvision: ModuleType) -> None:
    root = tree(tmp_path, dog=["d1.jpg", "d2.jpg"], cat=["c1.jpg"], Zebra=["z1.jpg"])
    found = read_tree(root)
    assert dict(zip(found.images, found.labels)) == dict(torchvision.datasets.ImageFolder(str(root)).samples)


def test_any_tree_is_numbered_from_zero_on_request(tmp_path: Path, torchvision: ModuleType) -> None:
    for names in (["n09193705", "n01751748"], ["2", "9", "10"]):
        root = tree(tmp_path / names[0], **{name: [f"{name}.jpg"] for name in names})
        found = read_tree(root, from_zero=True)
        assert dict(zip(found.images, found.labels)) == dict(torchvision.datasets.ImageFolder(str(root)).samples)


def test_an_image_beside_the_class_folders_is_named(tmp_path: Path) -> None:
    picture(8, 8).save(tree(tmp_path, cat=["c.jpg"]) / "loose.jpg")
    with pytest.raises(PipelineError, match=r"loose.jpg: lies in no folder of a class"):
        read_tree(tmp_path)


def test_a_csv_with_synsets_and_boxes_or_with_numbers_is_read(tmp_path: Path) -> None:
    (file := tmp_path / "l.csv").write_text(
        "ImageId,PredictionString\nILSVRC2012_val_1,n01751748 1 2 3 4 n01751748 5 6 7 8 \nmine.png,7\n\n"
    )
    assert from_csv(file) == {"ILSVRC2012_val_1": 65, "mine.png": 7}


@pytest.mark.parametrize("line", ["b.jpg", "b.jpg,", ",3", "b.jpg,n0", "b.jpg,-1", "a.jpg,4"])
def test_a_line_of_a_csv_that_says_no_class_or_says_it_twice_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "l.csv").write_text(f"image,class\na.jpg,3\n{line}\n")
    assert_refused(call("-m", "ResNeSt.labels", "csv", tmp_path / "l.csv", tmp_path / "l.txt"), "l.csv: line 3:")
    assert not (tmp_path / "l.txt").exists()


def test_a_csv_without_a_head_is_refused_and_loses_no_image(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("a.jpg,3\nb.jpg,4\n")
    with pytest.raises(PipelineError, match="line 1 labels an image already; put a head"):
        from_csv(tmp_path / "l.csv")


def test_images_that_cannot_be_told_apart_or_written_in_a_labels_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"l\.txt: line 2: image 'a\.png' was already labelled in line 1"):
        write_labels({"a": 1, "a.png": 2}, tmp_path / "l.txt")
    with pytest.raises(PipelineError, match=r"l\.txt: the file name 'caf\\udce9.jpg 1\\n' is not UTF-8"):
        write_labels({os.fsdecode(b"caf\xe9.jpg"): 1}, tmp_path / "l.txt")
    assert not list(tmp_path.iterdir())


def test_a_folder_is_not_flattened_by_labels_that_lose_what_its_folders_say(tmp_path: Path) -> None:
    root = tree(tmp_path / "val", cat=["a.jpg"], dog=["b.jpg"])
    (tmp_path / "l.txt").write_text("a.jpg 7\nb.jpg 7\n")
    result = call("-m", "ResNeSt.labels", "to-flat", root, tmp_path / "l.txt")
    assert_refused(result, "l.txt: exists and does not give each class folder a class of its own")
    assert files(root) == ["cat/a.jpg", "dog/b.jpg"]


def test_check_names_images_without_a_label_and_labels_without_an_image(tmp_path: Path) -> None:
    root = tree(tmp_path, images=["a.jpg", "b.jpg", "c.jpg"]) / "images"
    write_labels({"a.jpg": 1, "b.jpg": 2, "d.jpg": 2}, tmp_path / "l.txt")
    command = ["-m", "ResNeSt.labels", "check", tmp_path / "l.txt", root, "--json", tmp_path / "c.json"]
    result = call(*command)
    assert result.returncode == 1
    assert "missing: 1 labelled images are not there, such as d\n" in result.stdout
    assert f"extra: 1 images have no label, such as {root / 'c.jpg'}\n" in result.stdout
    assert "note: no image is of class 0" in result.stdout
    found = json.loads((tmp_path / "c.json").read_text())
    assert (found["missing"], found["fewest_images"], found["most_images"]) == (["d"], 1, 2)
    (root / "c.jpg").rename(root / "d.jpg")
    assert call(*command).returncode == 0


def test_a_flat_folder_becomes_synset_folders_and_comes_back_with_the_same_labels(tmp_path: Path) -> None:
    root = tree(tmp_path, val=["a.jpg", "b.jpg", "c.jpg"]) / "val"
    write_labels({"a.jpg": 65, "b.jpg": 970, "c.jpg": 65}, tmp_path / "l.txt")
    assert call("-m", "ResNeSt.labels", "to-tree", tmp_path / "l.txt", root, "--arch=resnest50").returncode == 0
    assert files(root) == ["n01751748/a.jpg", "n01751748/c.jpg", "n09193705/b.jpg"]
    assert call("-m", "ResNeSt.labels", "to-flat", root, tmp_path / "again.txt").returncode == 0
    assert files(root) == ["a.jpg", "b.jpg", "c.jpg"]
    assert sorted(root.iterdir()) == [root / name for name in files(root)]
    assert read_labels(tmp_path / "again.txt") == read_labels(tmp_path / "l.txt")


@pytest.mark.parametrize("back", [False, True], ids=["to tree", "to flat"])
def test_a_move_that_was_stopped_ends_with_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, back: bool
) -> None:
    root = tree(tmp_path, val=["a.jpg", "b.jpg", "c.jpg"]) / "val"
    write_labels({"a.jpg": 65, "b.jpg": 970, "c.jpg": 65}, tmp_path / "l.txt")
    if back:
        folders.to_tree(tmp_path / "l.txt", root, IMAGENET)

    def move() -> int:
        if back:
            return folders.to_flat(root, tmp_path / "again.txt")
        return folders.to_tree(tmp_path / "l.txt", root, IMAGENET)

    rename = os.rename
    done: list[Path] = []

    def stops_after_one(source: Path, target: Path) -> None:
        if done:
            raise KeyboardInterrupt
        rename(source, target)
        if Path(source).suffix == ".jpg":
            done.append(target)

    monkeypatch.setattr(os, "rename", stops_after_one)
    with pytest.raises(KeyboardInterrupt):
        move()
    monkeypatch.undo()
    assert move() == 2
    if not back:
        assert files(root) == ["n01751748/a.jpg", "n01751748/c.jpg", "n09193705/b.jpg"]
    else:
        assert files(root) == ["a.jpg", "b.jpg", "c.jpg"]
        assert read_labels(tmp_path / "again.txt") == {"a": 65, "b": 970, "c": 65}


def test_nothing_moves_where_an_image_would_take_another_s_place_or_has_no_label(tmp_path: Path) -> None:
    root = tree(tmp_path, val=["a.jpg", "b.jpg"]) / "val"
    (tmp_path / "l.txt").write_text("a.jpg 0\n")
    with pytest.raises(PipelineError, match=r"l.txt: has no line for .*b.jpg"):
        folders.to_tree(tmp_path / "l.txt", root, IMAGENET)
    (tmp_path / "l.txt").write_text("a.jpg 0\nb.jpg 1\n")
    (root / SYNSETS[1] / "b.jpg").mkdir(parents=True)
    with pytest.raises(PipelineError, match=r"b\.jpg: is there already"):
        folders.to_tree(tmp_path / "l.txt", root, IMAGENET)
    assert files(root) == ["a.jpg", "b.jpg"]


def test_folder_names_that_alone_would_give_other_class_numbers_are_told(tmp_path: Path) -> None:
    root = tree(tmp_path, val=["a.jpg", "b.jpg"]) / "val"
    (tmp_path / "l.txt").write_text("a.jpg 0\nb.jpg 1\n")
    (tmp_path / "names.txt").write_text("zebra\ncat\n")
    names = ["--names", tmp_path / "names.txt"]
    result = call("-m", "ResNeSt.labels", "to-tree", tmp_path / "l.txt", root, *names)
    assert "without these class names the folders will be numbered otherwise" in result.stdout
    assert files(root) == ["cat/b.jpg", "zebra/a.jpg"]
    assert call("-m", "ResNeSt.labels", "tree", root, tmp_path / "again.txt", *names).returncode == 0
    assert read_labels(tmp_path / "again.txt") == {"a": 0, "b": 1}


def test_a_labels_file_that_exists_is_not_written_over(tmp_path: Path) -> None:
    root = tree(tmp_path / "val", cat=["c.jpg"])
    (tmp_path / "l.txt").write_text("precious 1\n")
    assert_refused(call("-m", "ResNeSt.labels", "tree", root, tmp_path / "l.txt"), "l.txt: exists")
    assert (tmp_path / "l.txt").read_text() == "precious 1\n"


def test_images_of_one_name_in_two_class_folders_keep_their_classes_through_labels_and_back(tmp_path: Path) -> None:
    root = tree(tmp_path / "val", cat=["a.jpg", "b.jpg"], dog=["a.jpg", "a.png"])
    labels = folders.names_and_labels(read_tree(root), root)
    assert labels == {"cat/a.jpg": 0, "b.jpg": 0, "dog/a.jpg": 1, "dog/a.png": 1}
    write_labels(labels, tmp_path / "l.txt")
    assert read_labels(tmp_path / "l.txt") == {"cat__a_jpg": 0, "b": 0, "dog__a_jpg": 1, "dog__a_png": 1}
    fit = folders.check(tmp_path / "l.txt", root)
    assert (fit.images, fit.missing, fit.extra) == (4, [], [])
    (root / "cat/b.jpg").unlink()
    (root / "cat/a.jpg").unlink()  # dog/a.jpg alone is still told from it
    fit = folders.check(tmp_path / "l.txt", root)
    assert (fit.missing, fit.extra) == (["cat__a_jpg", "b"], [])


def test_two_images_are_never_moved_to_one_place(tmp_path: Path) -> None:
    root = tree(tmp_path / "val", cat=["a.jpg"], dog=["a.jpg"])
    (tmp_path / "l.txt").write_text("cat/a.jpg 0\ndog/a.jpg 0\n")
    with pytest.raises(PipelineError, match=r"animal/a\.jpg: is there already"):
        folders.to_tree(tmp_path / "l.txt", root, ClassList("names", [ClassName("animal")]))
    with pytest.raises(PipelineError, match="2 images share their name"):
        folders.to_flat(root, tmp_path / "new.txt")
    assert files(root) == ["cat/a.jpg", "dog/a.jpg"]
