"""Weight cards: the published ones, and those of the user's own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.formats import onnx_header
from ResNeSt.models.cards import card, find_card, names, read_card, write_card
from tests.conftest import PROJECT, assert_refused, call

OWN = {
    "architecture": "resnest_demo",
    "size": 64,
    "recipe": "resize-bilinear",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "class_names": ["cat", "dog", "bird"],
}


def saved(folder: Path, fields: object, name: str = "pets.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(fields))
    return path


def test_the_cards_are_listed_with_parameters_multiply_adds_size_accuracy_and_licence() -> None:
    result = call("-m", "ResNeSt.models")
    assert result.returncode == 0, result.stderr
    rows = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines()[2:]}
    assert list(rows) == names()
    assert rows["resnest269"] == ["110.93", "77.35", "416", "84.54", "ecentercrop-bicubic", "0cc87c48", "Apache-2.0"]


def test_one_card_is_told_whole_with_the_accuracy_of_every_recipe_and_its_source() -> None:
    printed = call("-m", "ResNeSt.models", "resnest50").stdout
    assert "weights_step1/resnest50-528c19ca.pth" in printed
    assert "resize-bicubic: top-1 81.11 %, top-5 95.36 %, Open Model Zoo" in printed


def test_the_cards_come_as_json() -> None:
    told = json.loads(call("-m", "ResNeSt.models", "--json").stdout)
    assert [found["name"] for found in told] == names()


def test_the_cards_are_listed_without_torch() -> None:
    program = (
        "import runpy, sys; sys.modules['torch'] = None; sys.argv = ['models']; "
        "runpy.run_module('ResNeSt.models', run_name='__main__')"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert result.stdout.startswith("model "), result.stderr


def test_a_hash_that_names_the_file_starts_the_whole_hash() -> None:
    for name in names():
        found = card(name)
        if found.url:
            assert found.sha256 is not None
            assert found.sha256.startswith(found.url.rsplit("-", 1)[1].removesuffix(".pth"))


def test_a_card_file_changes_what_it_names_and_leaves_the_rest_to_the_published_card(tmp_path: Path) -> None:
    found = card(str(saved(tmp_path, OWN)))
    assert (found.name, found.size, found.recipe, found.classes) == ("pets", 64, "resize-bilinear", 3)
    assert found.class_names == ("cat", "dog", "bird")
    assert found.architecture == card("resnest_demo").architecture
    assert found.url is None
    assert found.top1 is None


def test_a_written_card_reads_back(tmp_path: Path) -> None:
    found = read_card(saved(tmp_path, OWN))
    (tmp_path / "again").mkdir()
    write_card(found, tmp_path / "again/pets.json")
    assert read_card(tmp_path / "again/pets.json") == found


def test_the_card_beside_a_checkpoint_goes_before_its_file_name(tmp_path: Path) -> None:
    saved(tmp_path, OWN, "resnest50-mine.json")
    for name in ("resnest50-mine.pth", "resnest50-mine.pth.tar"):
        found = find_card(tmp_path / name)
        assert found is not None
        assert found.classes == 3
    assert find_card(tmp_path / "resnest101-mine.pth") == card("resnest101")


SHAPE = {"layers": [1, 1, 1, 1], "radix": 2, "cardinality": 1, "width": 64, "stem_width": 8, "avd_first": False}


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"classes": 3}, "architecture"),
        ({**OWN, "colour": 1}, "colour"),
        ({**OWN, "architecture": "resnet50"}, "resnet50"),
        ({**OWN, "recipe": "stretch"}, "stretch"),
        ({**OWN, "size": 0}, "size 0"),
        ({**OWN, "architecture": 5}, "not a card"),
        ({**OWN, "architecture": {**SHAPE, "layers": [3, 4, 6]}}, "four layers"),
        ({**OWN, "architecture": {**SHAPE, "radix": 0}}, "whole numbers above 0"),
        ({**OWN, "architecture": {**SHAPE, "avd_first": "false"}}, "expected true or false"),
        ({**OWN, "class_names": "cat"}, "class_names is 'cat', expected a list"),
        ({**OWN, "std": [1, 1, 0]}, "std above 0"),
        ({**OWN, "classes": 4}, "3 class_names, expected 4"),
        ([1], "list"),
    ],
)
def test_a_card_that_cannot_be_is_refused_with_the_reason(tmp_path: Path, fields: object, word: str) -> None:
    with pytest.raises(PipelineError, match=word) as caught:
        read_card(saved(tmp_path, fields))
    assert "pets.json: not a card" in str(caught.value)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ArgumentError, match=r"unknown model 'resnet50'; known: resnest50, resnest101"):
        card("resnet50")


def test_the_four_stages_run_a_user_s_own_card_images_labels_and_weights(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from ResNeSt.models.resnest import create_model

    torch.manual_seed(0)
    path = saved(tmp_path, OWN)
    torch.save(create_model(read_card(path)).state_dict(), tmp_path / "pets.pth")
    images = tmp_path / "images"
    images.mkdir()
    labels = []
    for number, source in enumerate(sorted((PROJECT / "demo/val").iterdir())[:6]):
        shutil.copy(source, images)
        labels.append(f"{source.name} {number % 3}\n")
    (tmp_path / "labels.txt").write_text("".join(labels))
    flags = ["--images=images", "--labels=labels.txt", "--model=pets.json", "--weights=pets.pth", "--output=here"]
    result = call("-m", "ResNeSt.pipeline", *flags, "--batch=2", "--loop=2", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert {stage["total"] for stage in json.loads((tmp_path / "here/summary.json").read_text())["stages"]} == {6}
    info = onnx_header.read(tmp_path / "here/pets.onnx").metadata
    assert json.loads(info["resnest.class_names"]) == ["cat", "dog", "bird"]
    assert (info["resnest.size"], info["resnest.recipe"]) == ("64", "resize-bilinear")


def test_run_with_an_own_card_and_no_weights_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, OWN)
    demo, labels = PROJECT / "demo", tmp_path / "labels.txt"
    named = (line.split()[0] for line in (demo / "val_label.txt").read_text().splitlines())
    labels.write_text("".join(f"{name} 0\n" for name in named))
    flags = [f"--images={demo / 'val'}", f"--labels={labels}", "--model=pets.json"]
    refused = call("-m", "ResNeSt.pipeline", *flags, cwd=tmp_path)
    assert_refused(refused, "pets: has no published weight file", code=2)


def test_a_card_that_windows_wrote_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text('{"architecture": "resnest50"}', encoding="utf-8-sig")
    assert card(str(tmp_path / "mine.json")).classes == 1000
