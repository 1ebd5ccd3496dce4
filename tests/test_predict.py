"""Single images to classes: probabilities, names, and the three formats."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from ResNeSt.answers.ranked import rank
from ResNeSt.common.errors import PipelineError
from ResNeSt.engines.image_batches import ImageBatch
from ResNeSt.images.decode import carries_orientation, open_image
from ResNeSt.labels.class_names import imagenet_classes, names_of, read_names
from ResNeSt.score.ranking import softmax
from tests.conftest import PROJECT, assert_refused, call

VAL = PROJECT / "demo/val"
EXPECTED = json.loads((PROJECT / "demo/expected.json").read_text())


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """A folder with five of the demo's pictures."""
    folder = tmp_path / "few"
    folder.mkdir()
    for picture in sorted(VAL.iterdir())[:5]:
        shutil.copy(picture, folder)
    return folder


def predict(model: Path, *flags: object) -> str:
    result = call("-m", "ResNeSt.predict", f"--model={model}", *flags)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_every_picture_gets_the_class_that_the_checkpoint_gave_it(demo_onnx: Path, few: Path) -> None:
    answers = json.loads(predict(demo_onnx, "--format=json", few))
    assert [answer["image"] for answer in answers] == [str(path) for path in sorted(few.iterdir())]
    for answer in answers:
        assert answer["predictions"][0]["class"] == EXPECTED["predicted"][answer["image"].rsplit("/", 1)[1]]


def test_a_model_of_one_batch_size_takes_any_number_of_pictures(demo_onnx: Path, few: Path, tmp_path: Path) -> None:
    assert call("convert.sh", "2", "cpu", f"--onnx={demo_onnx}", f"--output={tmp_path}").returncode == 0
    (model,) = tmp_path.glob("*_bs2.xml")
    assert predict(model, few).count("digits_val_") == 5
    assert_refused(call("-m", "ResNeSt.predict", f"--model={model}", "--batch=3", few), "batch size is 2", code=2)


def test_pictures_given_more_than_once_or_of_one_name_or_no_text_keep_their_answers(demo_onnx: Path, few: Path) -> None:
    first, second, *_ = sorted(few.iterdir())
    for source, name in ((first, b"a.jpg"), (second, b"a.png"), (second, b"caf\xe9.jpg")):
        shutil.copy(source, few / os.fsdecode(name))
    for plain, source in (("a", first), ("b", second)):
        shutil.copy(source, few / plain)
    command = [sys.executable, "-m", "ResNeSt.predict", f"--model={demo_onnx}", "--format=csv", "--batch=2", "--top=1"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    result = subprocess.run([*command, "a", "b", "a", "."], cwd=few, env=environment, capture_output=True, check=True)
    rows = [line.split(b",") for line in result.stdout.splitlines()[1:]]
    answers = [(row[0], int(row[2])) for row in rows]
    known = EXPECTED["predicted"]
    one, two = known[first.name], known[second.name]
    assert answers[:3] == [(b"a", one), (b"b", two), (b"a", one)]
    assert {(b"./a.jpg", one), (b"./a.png", two), (b"./caf\\udce9.jpg", two)} <= set(answers)


def test_probabilities_are_the_softmax_of_the_logits(torchvision: ModuleType) -> None:
    import torch

    logits = np.random.default_rng(0).normal(0, 30, (4, 1000)).astype(np.float32)
    expected = torch.softmax(torch.from_numpy(logits).double(), dim=1).numpy()
    assert np.allclose(softmax(logits), expected, rtol=1e-12)


@pytest.mark.parametrize("probabilities", [False, True])
def test_an_answer_holds_the_softmax_taken_once(probabilities: bool) -> None:
    """Of logits whose powers of e are 1, 2 and 5; what is a probability already stays as it is."""
    logits = np.array([[0, math.log(2), math.log(5)], [math.nan, 0, 0], [math.log(4), 0, math.log(3)]], np.float32)
    batch = ImageBatch(["a", "b", "c", "d"], [None, None, None, "d: broken"], np.empty(0), [False] * 4)
    given = np.exp(logits) / 8 if probabilities else logits
    rows = np.concatenate([given, given[:1]])
    first, odd, third, broken = rank(batch, rows, probabilities, 2)
    assert [*first.labels, *third.labels] == [2, 1, 0, 2]
    assert [*first.probabilities, *third.probabilities] == pytest.approx([5 / 8, 2 / 8, 4 / 8, 3 / 8])
    assert [odd.labels, broken.labels, broken.reason] == [(), (), "d: broken"]
    assert odd.reason == "b: the model gives NaN or infinity for it; check the model"


def test_the_three_formats_say_the_same(demo_onnx: Path, few: Path) -> None:
    (names := few.parent / "names.txt").write_text("".join(f"n{n:08}\tdigit {n}\n" for n in range(10)))
    flags = [f"--names={names}", "--top=3", few]
    told = [
        (answer["image"], guess["class"], guess["probability"], guess["synset"], guess["name"])
        for answer in json.loads(predict(demo_onnx, "--format=json", *flags))
        for guess in answer["predictions"]
    ]
    assert len(told) == 15
    rows = list(csv.DictReader(io.StringIO(predict(demo_onnx, "--format=csv", *flags))))
    assert [row["rank"] for row in rows] == ["1", "2", "3"] * 5
    text = predict(demo_onnx, *flags).splitlines()
    lines = [line for line in text if line.startswith("  ")]
    for (image, label, probability, synset, name), row, line in zip(told, rows, lines, strict=True):
        assert image in text
        assert list(row.values())[0::2] == [image, str(label), synset]
        assert row["name"] == name
        assert float(row["probability"]) == pytest.approx(probability, abs=1e-6)
        assert line == f"  {100 * probability:6.2f} %  {label:4}  {synset}  {name}"


def test_a_broken_picture_is_named_and_the_others_get_their_answer(demo_onnx: Path, few: Path) -> None:
    (few / "broken.png").write_bytes(b"no picture")
    result = call("-m", "ResNeSt.predict", f"--model={demo_onnx}", "--format=json", few)
    assert_refused(result, "few/broken.png: not an image")
    answers = {answer["image"]: answer for answer in json.loads(result.stdout)}
    assert "not an image" in answers.pop(str(few / "broken.png"))["error"]
    assert len(answers) == 5
    assert all(len(answer["predictions"]) == 5 for answer in answers.values())


def test_what_does_not_exist_is_named(demo_onnx: Path) -> None:
    assert_refused(call("-m", "ResNeSt.predict", f"--model={demo_onnx}", "gone.png"), "gone.png: no such image file")


def test_imagenet_s_names_are_in_the_order_of_the_class_numbers(timm: ModuleType) -> None:
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    for number, found in enumerate(imagenet_classes()):
        assert (found.synset, found.name) == (info.index_to_label_name(number), info.index_to_description(number))
    assert number == 999


def test_names_come_from_the_file_given_else_the_model_else_imagenet(tmp_path: Path) -> None:
    (file := tmp_path / "names.txt").write_text("# of mine\ncat\ndog\n")
    of_model = {"class_names": '["one", "two"]'}
    assert [found.name for found in names_of(of_model, 2, file)] == ["cat", "dog"]
    assert [found.name for found in names_of(of_model, 2)] == ["one", "two"]
    assert names_of({}, 1000)[65] == ("sea snake", "n01751748")
    assert [found.name for found in names_of({}, 2)] == ["", ""]


def test_a_file_with_other_than_a_name_for_every_class_is_refused(tmp_path: Path) -> None:
    (file := tmp_path / "names.txt").write_text("cat\n\ndog\n")
    with pytest.raises(PipelineError, match=r"names.txt: holds 2 names, the model has 3 classes"):
        names_of({}, 3, file)
    file.write_text("\n")
    with pytest.raises(PipelineError, match=r"names.txt: holds no names"):
        read_names(file)


def test_pictures_that_carry_an_orientation_are_told_in_one_line_unless_they_are_turned(
    demo_onnx: Path, few: Path
) -> None:
    exif = Image.Exif()
    for path, orientation in zip(sorted(few.iterdir()), (1, 3, 6)):
        exif[0x0112] = orientation
        with Image.open(path) as image:
            image.save(path, exif=exif)
    os.mkfifo(few / "pipe.jpg")
    (few / "notes.txt").touch()
    command = ["-m", "ResNeSt.predict", f"--model={demo_onnx}", few, "--top=1", "--format=json"]
    for flags, told in (([], 1), (["--exif"], 0)):
        result = call(*command, *flags)
        assert [answer["image"] for answer in json.loads(result.stdout) if "error" in answer] == [str(few / "pipe.jpg")]
        assert result.stderr.count("2 of 6 images carry an EXIF orientation") == told
        assert "note: " in result.stderr
        assert "(notes.txt)" in result.stderr
        assert "pipe.jpg: not a plain file" in result.stderr


def test_a_picture_is_turned_by_orientations_2_to_8(tmp_path: Path) -> None:
    path, exif = tmp_path / "a.jpg", Image.Exif()
    for orientation in range(10):
        exif[0x0112] = orientation
        Image.new("RGB", (8, 4)).save(path, exif=exif)
        with open_image(path) as image:
            assert carries_orientation(image) == (2 <= orientation <= 8), orientation
    Image.new("RGB", (8, 4)).save(path)
    with open_image(path) as image:
        assert not carries_orientation(image)
