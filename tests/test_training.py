"""Training: the published recipe, the same in many processes as in one, and exact when it goes on after a stop."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

if TYPE_CHECKING:
    import torch
else:
    torch = pytest.importorskip("torch")

from ResNeSt.common.errors import PipelineError
from ResNeSt.models.cards import Architecture, Card, card, read_card, write_card
from ResNeSt.models.resnest import create_model
from ResNeSt.training import augment
from ResNeSt.training.build import SharedDropout, build, parameter_groups
from ResNeSt.training.data import read_samples, training_batches
from ResNeSt.training.distributed import Processes
from ResNeSt.training.loop import Run, Trainer, train
from ResNeSt.training.schedule import peak_rate, rate_at
from ResNeSt.training.settings import Settings
from tests.conftest import PROJECT, assert_refused, call, picture

ALONE = Processes(0, 1, torch.device("cpu"))
TINY = Card(
    name="tiny",
    architecture=Architecture((1, 1, 1, 1), 2, 1, 64, 8, False, planes=(8, 8, 8, 8)),
    recipe="ecentercrop-bicubic",
    size=32,
    classes=3,
)
SHORT = Settings(epochs=3, warmup=1, batch=4, rate=0.1, seed=7)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are faster so, above all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`train` with 12 and `val` with 7 pictures, each with a folder for each of three colours."""
    folder = tmp_path_factory.mktemp("pictures")
    for split, each in (("train", 4), ("val", 2)):
        for number, colour in enumerate(("blue", "green", "red")):
            (folder / split / colour).mkdir(parents=True)
            for index in range(each + (split == "val" and number == 0)):
                made = Image.blend(picture(40, 36, seed=index), Image.new("RGB", (40, 36), colour), 0.6)
                made.save(folder / split / colour / f"{colour}_{index}.png")
    return folder


def tiny_run(pictures: Path, settings: Settings = SHORT, **others: Any) -> Run:
    samples = {split: read_samples(pictures / split, None) for split in ("train", "val")}
    return Run(**{"card": TINY, "settings": settings, **samples, "weights": None, "workers": 1, **others})


def log(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in ("epoch", "loss", "rate", "top1", "top5")} for row in rows]


def tensors(path: Path) -> dict[str, Any]:
    held: dict[str, Any] = torch.load(path, weights_only=True)
    return held


# The recipe


def test_the_defaults_are_the_published_recipe() -> None:
    made = Settings()
    assert (made.epochs, made.warmup, made.batch, made.rate, made.momentum) == (270, 5, 64, 0.025, 0.9)
    assert (made.decay, made.smoothing, made.dropout, made.augment) == (1e-4, 0.1, 0.2, "auto")


def test_the_rate_rises_in_the_warm_up_and_falls_as_half_a_cosine_to_nothing() -> None:
    made = Settings(epochs=15, warmup=5)
    peak = peak_rate(made, devices=8)
    assert peak == pytest.approx(0.025 * 8)
    rates = [rate_at(step, 10, made, peak) for step in range(150)]
    assert rates[:50] == pytest.approx([peak * (step + 1) / 50 for step in range(50)])
    assert rates[50:] == pytest.approx([peak * (1 + math.cos(math.pi * step / 100)) / 2 for step in range(100)])


def test_a_larger_batch_a_device_raises_the_rate_with_it() -> None:
    assert peak_rate(Settings(batch=128), 2) == pytest.approx(4 * 0.025)


def test_weight_decay_spares_batch_norm_and_biases() -> None:
    model = create_model(TINY)
    decayed, spared = parameter_groups(model, 1e-4)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert (decayed["weight_decay"], spared["weight_decay"]) == (1e-4, 0)
    assert len(decayed["params"]) + len(spared["params"]) == len(names)
    modules = dict(model.named_modules())
    for group, plain in ((decayed, True), (spared, False)):
        for name in (names[id(parameter)] for parameter in group["params"]):
            owner, _, kind = name.rpartition(".")
            of_batch_norm = isinstance(modules[owner], torch.nn.BatchNorm2d)
            assert (kind == "weight" and not of_batch_norm) is plain


def test_fresh_blocks_begin_as_the_identity() -> None:
    model, _ = build(TINY, None, seed=0)
    assert all(not block.bn3.weight.any() for block in [*model.layer1, *model.layer4])
    x = torch.rand(2, 32, 4, 4)
    block: Any = model.layer2[0]
    assert torch.equal(block.eval()(x), torch.relu(block.downsample(x)))


def test_dropout_zeroes_its_share_before_the_classifier_in_training_alone() -> None:
    dropout, layer = SharedDropout(0.25, 0, ALONE), torch.nn.Linear(1000, 1)
    dropout.begin(3)
    found = dropout(layer, (torch.ones(64, 1000),))
    assert sorted(torch.unique(found).tolist()) == pytest.approx([0, 1 / 0.75])
    assert (found == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert dropout(layer.eval(), (torch.ones(64, 1000),)).min() == 1


LEVELS = {"ShearX": 0.3, "Rotate": 30.0, "Color": 0.9, "Contrast": 0.9, "Sharpness": 0.9}  # greatest, of signed ones


@pytest.mark.parametrize("name", sorted(augment.OPERATIONS))
def test_augmentations_are_torchvision_s(name: str, torchvision: ModuleType) -> None:
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.autoaugment import AutoAugment, AutoAugmentPolicy, _apply_op

    space = AutoAugment(AutoAugmentPolicy.IMAGENET)._augmentation_space(10, (64, 64))[name]
    image = picture(64, 64)
    for level in range(10):
        for sign in (1, -1) if name in LEVELS else (1,):
            strength = float(space[0][level]) if space[0].ndim else 0.0
            expected = _apply_op(image, name, sign * strength, InterpolationMode.NEAREST, [128] * 3)
            found = augment.OPERATIONS[name](image, sign * level / 9)
            difference = np.abs(np.asarray(found, np.int16) - np.asarray(expected)).max(axis=2)
            if name in {"ShearX", "Rotate"}:  # a pixel may be taken from one side of an edge or the other
                assert (difference > 0).mean() <= 0.03
            else:  # its strengths are float32, so a value may be rounded to the next one
                assert difference.max() <= (1 if name in LEVELS else 0)


def test_the_policy_is_torchvision_s(torchvision: ModuleType) -> None:
    from torchvision.transforms.autoaugment import AutoAugment, AutoAugmentPolicy

    theirs = AutoAugment(AutoAugmentPolicy.IMAGENET).policies
    assert sorted(map(str, augment.POLICY)) == sorted(map(str, theirs))


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 10**6))
def test_a_random_crop_lies_in_the_picture_and_keeps_to_its_share(width: int, height: int, seed: int) -> None:
    left, top, right, bottom = augment.random_box(width, height, 0.08, Random(seed))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    if min(width, height) > 100 and max(width, height) < 2 * min(width, height):
        assert 0.07 < (right - left) * (bottom - top) / (width * height) <= 1
        assert 0.73 < (right - left) / (bottom - top) < 1.36


def test_every_epoch_shows_each_picture_once_changed_in_a_new_way(pictures: Path) -> None:
    samples = read_samples(pictures / "train", None)
    first, again, second = (list(training_batches(samples, TINY, SHORT, epoch, 0, 1, workers=2)) for epoch in (1, 1, 2))
    assert [len(labels) for _, labels in first] == [4, 4, 4]
    assert sorted(torch.cat([labels for _, labels in first]).tolist()) == sorted(samples.labels)
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for (a, _), (b, _) in zip(first, second, strict=True))


# One process or many


def torchrun(processes: int, *arguments: object) -> None:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--standalone"]
    command = [sys.executable, *launcher, str(PROJECT / "resnest_train.py"), *map(str, arguments)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr


@pytest.mark.heavy
def test_two_processes_learn_as_one_with_the_same_global_batch(pictures: Path, tmp_path: Path) -> None:
    write_card(TINY, tmp_path / "tiny.json")
    common: list[object] = [f"--model={tmp_path / 'tiny.json'}"]
    common += [f"--train={pictures / 'train'}", f"--val={pictures / 'val'}"]
    common += ["--epochs=4", "--warmup=1", "--rate=0.2", "--sync-bn"]
    torchrun(2, *common, "--batch=2", f"--output={tmp_path / 'two'}")
    settings = Settings(epochs=4, warmup=1, batch=4, rate=0.2)
    train(tiny_run(pictures, settings), tmp_path / "one", ALONE, tensorboard=False)
    for mine, theirs in zip(log(tmp_path / "two"), log(tmp_path / "one"), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3)
    two, alone = tensors(tmp_path / "two/last.pth")["model"], tensors(tmp_path / "one/last.pth")["model"]
    assert all(torch.allclose(two[name].float(), alone[name].float(), rtol=0.02, atol=2e-3) for name in alone)
    fresh = build(TINY, None, seed=0)[0].state_dict()
    assert not torch.allclose(fresh["fc.weight"], alone["fc.weight"], rtol=0.02, atol=2e-3)


# Stopped and gone on


def test_a_run_that_was_stopped_ends_bit_for_bit_as_an_uninterrupted_one(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny_run(pictures)
    train(run, tmp_path / "whole", ALONE, tensorboard=False)
    learn = Trainer._step

    def stops(self: Trainer, step: int, *batch: torch.Tensor) -> torch.Tensor:
        if step == 4:  # in the middle of the second epoch
            raise KeyboardInterrupt
        return learn(self, step, *batch)

    monkeypatch.setattr(Trainer, "_step", stops)
    with pytest.raises(KeyboardInterrupt):
        train(run, tmp_path / "stopped", ALONE, tensorboard=False)
    monkeypatch.undo()
    assert len(log(tmp_path / "stopped")) == 1
    torch.rand(3)  # the random state of the process is another one
    train(run, tmp_path / "stopped", ALONE, tensorboard=False)
    assert log(tmp_path / "stopped") == log(tmp_path / "whole")
    for name in ("last.pth", "best.pth"):
        expected, found = tensors(tmp_path / "whole" / name), tensors(tmp_path / "stopped" / name)
        for key, value in expected.get("model", expected).items():
            assert torch.equal(value, found.get("model", found)[key]), key
    momenta = [
        [state["momentum_buffer"] for state in tensors(tmp_path / folder / "last.pth")["optimizer"]["state"].values()]
        for folder in ("whole", "stopped")
    ]
    assert all(torch.equal(a, b) for a, b in zip(*momenta, strict=True))


def test_a_run_does_not_go_on_with_the_checkpoint_of_another(pictures: Path, tmp_path: Path) -> None:
    train(tiny_run(pictures, Settings(epochs=2, warmup=1, batch=4)), tmp_path, ALONE, tensorboard=False)
    other = tiny_run(pictures, Settings(epochs=2, warmup=1, batch=4, smoothing=0.2))
    with pytest.raises(PipelineError, match=r"last.pth: is of a run with another smoothing \(0.1, not 0.2\)"):
        train(other, tmp_path, ALONE, tensorboard=False)
    (tmp_path / "last.pth").write_bytes(b"half")
    with pytest.raises(PipelineError, match=r"last.pth: not a checkpoint of a training run"):
        train(other, tmp_path, ALONE, tensorboard=False)


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_epoch_before(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = Trainer._step
    bad = torch.tensor([math.nan])
    monkeypatch.setattr(Trainer, "_step", lambda self, step, *batch: bad if step == 4 else learn(self, step, *batch))
    with pytest.raises(PipelineError, match="epoch 2: the loss is nan, so training has diverged"):
        train(tiny_run(pictures), tmp_path, ALONE, tensorboard=False)
    assert len(tensors(tmp_path / "last.pth")["history"]) == 1


# Data and results


def test_folders_and_a_labels_file_say_the_same(pictures: Path, tmp_path: Path) -> None:
    by_folder = read_samples(pictures / "train", None)
    (labels := tmp_path / "l.txt").write_text(
        "".join(f"{Path(p).name} {n}\n" for p, n in zip(by_folder.images, by_folder.labels, strict=True))
    )
    by_file = read_samples(pictures / "train", labels)
    assert (by_file.images, by_file.labels, by_file.classes) == (by_folder.images, by_folder.labels, 3)
    assert (by_folder.class_names, by_file.class_names) == (("blue", "green", "red"), None)


def test_a_folder_that_training_does_not_know_and_too_few_pictures_are_named(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "val/violet").mkdir(parents=True)
    picture(8, 8).save(tmp_path / "val/violet/v.png")
    flags = [f"--train={pictures / 'train'}", f"--output={tmp_path / 'out'}", "--model=resnest_demo"]
    result = call("resnest_train.py", *flags, f"--val={tmp_path / 'val'}")
    assert_refused(result, "val: its folder violet is none of the 3 classes")
    result = call("resnest_train.py", *flags, f"--val={pictures / 'val'}", "--batch=13")
    assert_refused(result, "12 training images, one step takes 13 on each of 1; lower --batch")


def test_class_numbers_of_a_file_and_of_folders_are_not_mixed(pictures: Path, tmp_path: Path) -> None:
    (labels := tmp_path / "l.txt").write_text("blue_0.png 2\n")
    flags = [f"--train={pictures / 'train'}", f"--train-labels={labels}", f"--val={pictures / 'val'}"]
    result = call("resnest_train.py", *flags, f"--output={tmp_path / 'out'}", "--model=resnest_demo")
    assert_refused(result, "--train-labels takes --val-labels, too", code=2)


def test_an_own_card_keeps_its_class_names_with_a_labels_file(pictures: Path, tmp_path: Path) -> None:
    write_card(dataclasses.replace(TINY, class_names=("azure", "lime", "ruby")), tmp_path / "tiny.json")
    flags = [f"--model={tmp_path / 'tiny.json'}", f"--output={tmp_path}", "--epochs=1", "--warmup=0", "--batch=2"]
    for split in ("train", "val"):
        samples = read_samples(pictures / split, None)
        lines = [f"{Path(path).name} {label}\n" for path, label in zip(samples.images, samples.labels, strict=True)]
        (tmp_path / f"{split}.txt").write_text("".join(lines))
        flags += [f"--{split}={pictures / split}", f"--{split}-labels={tmp_path / split}.txt"]
    assert call("resnest_train.py", *flags).returncode == 0
    assert read_card(tmp_path / "best.json").class_names == ("azure", "lime", "ruby")


def test_processes_that_find_different_checkpoints_do_not_start(pictures: Path, tmp_path: Path) -> None:
    class Apart(Processes):
        def total(self, values: torch.Tensor) -> torch.Tensor:
            return values + 2  # as where another process had two epochs behind it

    with pytest.raises(PipelineError, match="the processes do not find the same one"):
        Trainer(tiny_run(pictures), tmp_path, Apart(0, 1, torch.device("cpu")))


@pytest.mark.heavy
def test_a_fine_tuned_checkpoint_goes_through_the_stages_with_its_own_classes(
    pictures: Path, demo_checkpoint: Path, tmp_path: Path
) -> None:
    flags = [f"--train={pictures / 'train'}", f"--val={pictures / 'val'}", "--model=resnest_demo", "--size=64"]
    flags += [f"--weights={demo_checkpoint}", "--epochs=8", "--warmup=1", "--batch=4", "--rate=0.3", "--augment=crop"]
    result = call("resnest_train.py", *flags, "--tensorboard", f"--output={tmp_path}")
    assert result.returncode == 0, result.stderr
    assert "but a fresh classifier: its own has 10 classes, not 3" in result.stdout
    rows = log(tmp_path)
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert read_card(tmp_path / "best.json").class_names == ("blue", "green", "red")
    _holds_the_log(tmp_path / "tensorboard", rows)

    onnx = tmp_path / "colours.onnx"
    assert call("resnest_pth2onnx.py", f"--source={tmp_path / 'best.pth'}", f"--target={onnx}").returncode == 0
    assert call("convert.sh", "2", "cpu", f"--onnx={onnx}", f"--output-dir={tmp_path}").returncode == 0
    command = ["-m", "ResNeSt.predict", f"--model={tmp_path / 'colours_bs2.xml'}", "--format=json", pictures / "val"]
    answers = json.loads(call(*command).stdout)
    right = [Path(answer["image"]).parent.name == answer["predictions"][0]["name"] for answer in answers]
    assert 100 * sum(right) / len(right) == pytest.approx(max(row["top1"] for row in rows))


def _holds_the_log(folder: Path, rows: list[dict[str, Any]]) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    for curve in ("loss", "rate", "top1", "top5"):
        points = [(event.step, event.value) for event in events.Scalars(curve)]
        assert points == [(row["epoch"], pytest.approx(row[curve], rel=1e-6)) for row in rows]


def test_a_checkpoint_of_as_many_classes_keeps_its_classifier(demo_checkpoint: Path) -> None:
    model, origin = build(card("resnest_demo"), demo_checkpoint, seed=0)
    assert origin == f"weights of {demo_checkpoint}"
    assert torch.equal(model.fc.weight, tensors(demo_checkpoint)["fc.weight"])


def test_a_checkpoint_of_a_network_that_pools_in_another_way_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"x.ckpt: its network pools in another way"):
        build(TINY, tmp_path / "x.ckpt", seed=0)
