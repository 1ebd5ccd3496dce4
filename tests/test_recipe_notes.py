"""Figures of images that were not prepared by the model's own recipe say so, wherever they are told or recorded."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

pytest.importorskip("onnx")
pytest.importorskip("openvino")

from ResNeSt.bench.benchmark import Benchmark, bench
from ResNeSt.compare.pairs import compare
from ResNeSt.convert.conversion import Conversion, convert
from ResNeSt.engines.image_batches import ModelChoice
from ResNeSt.evaluate import evaluate
from ResNeSt.infer.inference import Inference, infer
from ResNeSt.models.model_info import recipe_note
from ResNeSt.predict import predict
from ResNeSt.tensors.format import TensorFormat, TensorSet, write_index
from tests.conftest import picture
from tests.test_classifier import IMAGES, SIZE, card_of_size, network

OWN, OTHER = "ecentercrop-bicubic", "squash-bilinear"
NOTE = f"prepared by {OTHER}, the model's own recipe is {OWN}"
METADATA = {"recipe": OWN, "size": str(SIZE), "mean": "[0.0, 0.0, 0.0]", "std": "[1.0, 1.0, 1.0]"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An ONNX file that names its recipe; beside it tensors of another one, pictures, labels and that one's card."""
    tensors = tmp_path / "tensors"
    tensors.mkdir()
    (tmp_path / "pictures").mkdir()
    for number, image in enumerate(IMAGES):
        image.tofile(tensors / f"img{number}.bin")
        picture(20, 20, seed=number).save(tmp_path / f"pictures/img{number}.png")
    (tmp_path / "labels").write_text("".join(f"img{number}.png {number}\n" for number in range(4)))
    index = TensorSet(TensorFormat(OTHER, SIZE, "float32", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), 4, 4, True)
    write_index(tensors, index)
    card_of_size(tmp_path)
    return network(tmp_path / "m.onnx", metadata={f"resnest.{key}": said for key, said in METADATA.items()})


def test_the_recipe_is_told_unless_it_is_the_model_s_own() -> None:
    assert recipe_note({"recipe": OWN}, OTHER) == NOTE
    assert recipe_note({}, OTHER) == f"prepared by {OTHER}, the model does not say its own"
    assert recipe_note({"recipe": OWN}, OWN) == recipe_note({"recipe": OWN}, None) == ""


def test_bench_records_both_recipes_and_remarks_on_them(model: Path) -> None:
    folder = model.parent
    convert(Conversion(model, [1], "cpu", folder))
    asked = Benchmark([1], "cpu", str(folder / "m"), folder / "tensors", folder / "labels", 1, output=folder / "bench")
    assert NOTE in bench(asked).remarks
    record = json.loads((folder / "bench/bench.json").read_text())
    (row,) = csv.DictReader((folder / "bench/bench.csv").read_text().splitlines())
    assert (record["recipe"], record["model_recipe"]) == (row["recipe"], row["model_recipe"]) == (OTHER, OWN)


def test_infer_evaluate_predict_and_compare_say_it(model: Path) -> None:
    folder = model.parent
    said: dict[str, list[str]] = {"infer": [], "predict": [], "compare": []}
    choice = ModelChoice(model, arch=str(folder / "plain.json"))
    infer(Inference(model, folder / "tensors"), said["infer"].append)
    predict(choice, [folder / "pictures/img0.png"], say=said["predict"].append)
    compare(model, model, folder / "tensors", say=said["compare"].append)
    for command, lines in said.items():
        assert len([line for line in lines if NOTE in line]) == 1, command
    assert NOTE in evaluate(choice, folder / "pictures", folder / "labels").remarks
    assert NOTE not in evaluate(ModelChoice(model), folder / "pictures", folder / "labels").remarks
