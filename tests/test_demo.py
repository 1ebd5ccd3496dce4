"""The demo: real pictures, a trained network, and what it answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ResNeSt.common.files import sha256
from ResNeSt.images.recipes import RECIPES, normalisation_table, normalise
from ResNeSt.labels.file import read_labels
from ResNeSt.models.cards import card
from ResNeSt.models.checkpoint import load
from ResNeSt.models.resnest import create_model
from tests.conftest import PROJECT

DEMO = PROJECT / "demo"
SPLITS = {"train": 1401, "val": 396}


def pictures(split: str) -> list[Path]:
    return sorted((DEMO / split).iterdir())


def test_the_demo_stays_under_5_mb() -> None:
    assert sum(path.stat().st_size for path in DEMO.rglob("*") if path.is_file()) < 5_000_000


@pytest.mark.parametrize("split", SPLITS)
def test_every_picture_has_a_label_and_every_label_a_picture(split: str) -> None:
    assert {path.stem for path in pictures(split)} == read_labels(DEMO / f"{split}_label.txt").keys()
    assert len(pictures(split)) == SPLITS[split]


@pytest.mark.parametrize("split", SPLITS)
def test_every_class_is_in_both_splits(split: str) -> None:
    assert set(read_labels(DEMO / f"{split}_label.txt").values()) == set(range(10))


@pytest.mark.parametrize("split", SPLITS)
def test_the_odd_cases_of_real_collections_are_among_them(split: str) -> None:
    odd = {"greyscale": 0, "CMYK": 0, "progressive": 0, "turned": 0, "PNG": 0, "portrait": 0, "landscape": 0}
    for path in pictures(split):
        with Image.open(path) as image:
            odd["greyscale"] += image.mode == "L"
            odd["CMYK"] += image.mode == "CMYK"
            odd["progressive"] += "progressive" in image.info
            odd["turned"] += image.getexif().get(0x0112, 1) != 1
            odd["PNG"] += image.format == "PNG"
            odd["portrait"] += image.height > image.width
            odd["landscape"] += image.width > image.height
    assert all(odd.values()), odd


def test_the_pictures_can_be_rendered_again(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    from demo.render import load_scans, photograph, save, split_by_class

    scans, labels = load_scans()
    indices = split_by_class(labels)["val"]
    for number, path in list(enumerate(pictures("val"), 1))[:12]:
        index = indices[number - 1]
        save(photograph(scans[index], np.random.default_rng(index)), tmp_path / path.name, number)
        with Image.open(path) as bundled, Image.open(tmp_path / path.name) as rendered:
            assert bundled.mode == rendered.mode
            # A level's difference is left to other versions of the JPEG library.
            assert np.abs(np.asarray(bundled, int) - np.asarray(rendered, int)).max() <= 2


def test_the_checkpoint_s_name_and_card_carry_its_hash(demo_checkpoint: Path) -> None:
    recorded = card("resnest_demo").sha256
    assert recorded is not None
    assert sha256(demo_checkpoint).startswith(recorded)
    assert demo_checkpoint.stem == f"resnest_demo-{recorded}"


def test_the_checkpoint_answers_as_training_measured_image_by_image(demo_checkpoint: Path) -> None:
    expected = json.loads((DEMO / "expected.json").read_text())
    found = card("resnest_demo")
    table = normalisation_table(found.mean, found.std)
    tensors = np.empty((len(pictures("val")), 3, found.size, found.size), np.float32)
    for path, tensor in zip(pictures("val"), tensors, strict=True):
        normalise(np.asarray(RECIPES[found.recipe](Image.open(path).convert("RGB"), found.size)), table, tensor)
    images = torch.from_numpy(tensors)
    model = create_model("resnest_demo").eval()
    load(model, demo_checkpoint)
    with torch.inference_mode():
        predicted = model(images).argmax(dim=1).tolist()
    assert dict(zip((path.name for path in pictures("val")), predicted)) == expected["predicted"]
    labels = read_labels(DEMO / "val_label.txt")
    right = sum(labels[path.stem] == value for path, value in zip(pictures("val"), predicted))
    assert right / len(predicted) == expected["top1"]
    assert found.top1 == round(100 * expected["top1"], 2)
