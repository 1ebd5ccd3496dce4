"""Training: the published recipe, the same in many processes as in one, and exact when it goes on after a stop."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import re
import resource
import shutil
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

from ResNeSt.commands.export import main as export_main
from ResNeSt.commands.train import _parse, _settings, main
from ResNeSt.common.errors import ArgumentError, PipelineError
from ResNeSt.common.progress import silent
from ResNeSt.convert.conversion import Conversion, convert
from ResNeSt.engines.image_batches import ModelChoice
from ResNeSt.labels.class_names import class_list
from ResNeSt.models.cards import Architecture, Card, card, read_card, write_card
from ResNeSt.models.resnest import create_model
from ResNeSt.predict import predict
from ResNeSt.training import augment
from ResNeSt.training.build import DropBlock, SharedDropout, build, parameter_groups
from ResNeSt.training.data import Samples, read_samples, training_batches
from ResNeSt.training.distributed import Processes, joined, told_to_torchrun
from ResNeSt.training.loop import Run, Trainer, train
from ResNeSt.training.meter import Meter
from ResNeSt.training.mixup import share_of_first
from ResNeSt.training.saved import write_tensors
from ResNeSt.training.schedule import peak_rate, rate_at
from ResNeSt.training.settings import PRESETS, Settings
from tests.conftest import PROJECT, call, picture

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
    assert (made.epochs, made.warmup_epochs, made.batch, made.rate, made.momentum) == (270, 5, 64, 0.025, 0.9)
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
    dropout.begin(4)
    assert not torch.equal(dropout(layer, (torch.ones(64, 1000),)), found)
    dropout.begin(3)
    assert torch.equal(dropout(layer, (torch.ones(64, 1000),)), found)
    assert dropout(layer.eval(), (torch.ones(64, 1000),)).min() == 1


MOVED = {"Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"}
SIGNED = {*MOVED, "Brightness", "Color", "Contrast", "Sharpness"}


@pytest.mark.parametrize("name", sorted(augment.OPERATIONS))
def test_augmentations_are_torchvision_s(name: str, torchvision: ModuleType) -> None:
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.autoaugment import AutoAugment, AutoAugmentPolicy, RandAugment, _apply_op

    image = picture(64, 64)
    spaces = [(AutoAugment(AutoAugmentPolicy.IMAGENET), 10, range(10)), (RandAugment(), 31, (12, 30))]
    used = [(owner._augmentation_space(bins, (64, 64)), bins, levels) for owner, bins, levels in spaces]
    for space, bins, levels in used:
        for level in levels if name in space else ():
            for sign in (1, -1) if name in SIGNED else (1,):
                strength = float(space[name][0][level]) if space[name][0].ndim else 0.0
                expected = _apply_op(image, name, sign * strength, InterpolationMode.NEAREST, [128] * 3)
                found = augment.OPERATIONS[name](image, sign * level / (bins - 1))
                difference = np.abs(np.asarray(found, np.int16) - np.asarray(expected)).max(axis=2)
                if name in MOVED:  # a pixel may be taken from one side of an edge or the other
                    assert (difference > 0).mean() <= 0.03
                else:  # its strengths are float32, so a value may be rounded to the next one
                    assert difference.max() <= (1 if name in SIGNED else 0)


def test_the_policy_and_what_rand_augment_draws_from_are_torchvision_s(torchvision: ModuleType) -> None:
    from torchvision.transforms.autoaugment import AutoAugment, AutoAugmentPolicy, RandAugment

    theirs = AutoAugment(AutoAugmentPolicy.IMAGENET).policies
    assert sorted(map(str, augment.POLICY)) == sorted(map(str, theirs))
    assert set(augment.RANDOM) == set(RandAugment()._augmentation_space(31, (64, 64)))


def test_rand_augment_applies_two_operations_at_two_fifths_of_their_strength(monkeypatch: pytest.MonkeyPatch) -> None:
    applied: list[tuple[str, float]] = []

    def noted(name: str) -> Any:
        def apply(image: Image.Image, strength: float) -> Image.Image:
            applied.append((name, strength))
            return image

        return apply

    monkeypatch.setattr(augment, "OPERATIONS", {name: noted(name) for name in augment.OPERATIONS})
    draw = Random(0)
    for _ in range(300):
        augment.rand_augment(picture(8, 8), draw)
    assert len(applied) == 600
    assert {name for name, _ in applied} == set(augment.RANDOM)
    assert {strength for _, strength in applied} == {0.4, -0.4}


def test_jitter_is_torchvision_s_in_a_random_order(torchvision: ModuleType) -> None:
    from torchvision.transforms import functional

    image, orders = picture(64, 64), set()
    for seed in range(20):
        again, expected = Random(seed), image
        steps = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)
        for adjust in (order := again.sample(steps, 3)):
            expected = adjust(expected, again.uniform(0.6, 1.4))
        orders.add(tuple(order))
        assert augment.jittered(image, 0.4, Random(seed)) == expected
    assert len(orders) > 3


def test_lighting_varies_as_imagenet_s_colours_do() -> None:
    draw = Random(0)
    found = np.array([augment.lighting(0.1, draw) for _ in range(20000)])
    # Of the three directions together: V diag((0.1 l)^2) V^T of the official trainers' numbers, by hand for R, G, B.
    directions = np.array([[-0.5675, -0.5808, -0.5836], [0.7192, -0.0045, -0.6948], [0.4009, -0.8140, 0.4203]])
    expected = sum(
        (0.1 * length) ** 2 * np.outer(way, way)
        for length, way in zip((0.2175, 0.0188, 0.0045), directions, strict=True)
    )
    assert np.allclose(np.cov(found.T), expected, rtol=0.05, atol=2e-6)
    assert np.abs(found.mean(axis=0)).max() < 5e-4


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 10**6))
def test_a_random_crop_lies_in_the_picture_and_keeps_to_its_share(width: int, height: int, seed: int) -> None:
    left, top, right, bottom = augment.random_box(width, height, 0.08, Random(seed))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    if min(width, height) > 100 and max(width, height) < 2 * min(width, height):
        assert 0.07 < (right - left) * (bottom - top) / (width * height) <= 1
        assert 0.73 < (right - left) / (bottom - top) < 1.36


def batches_of(samples: Samples, epoch: int = 1, workers: int = 1, **settings: Any) -> list[torch.Tensor]:
    """The one batch of an epoch: float32 (pictures, 3, 32, 32), and its labels."""
    asked = Settings(**{"batch": len(samples.images), "seed": 7, **settings})
    ((images, labels),) = training_batches(samples, TINY, asked, epoch, 0, 1, workers)
    return [images, labels]


def copies(path: Path, count: int) -> Samples:
    return Samples(path.parent, [str(path)] * count, [0] * count, ("any",))


def test_every_epoch_shows_each_picture_once_in_an_order_of_its_own(pictures: Path) -> None:
    samples = read_samples(pictures / "train", None)
    shown = [batches_of(samples, epoch, augment="none") for epoch in (1, 1, 2)]
    sums = [images.sum(dim=(1, 2, 3), dtype=torch.float64).tolist() for images, _ in shown]
    assert len(set(sums[0])) == len(samples.images)
    assert sums[0] == sums[1] != sums[2]
    assert sorted(sums[0]) == sorted(sums[2])
    for _, labels in shown:
        assert sorted(labels.tolist()) == sorted(samples.labels)
    whole = list(training_batches(samples, TINY, SHORT, 1, 0, 1, workers=2))
    assert [len(labels) for _, labels in whole] == [4, 4, 4]


@pytest.mark.parametrize("changes", [{"augment": "crop"}, {"augment": "rand", "jitter": 0.4, "augment_whole": True}])
def test_every_epoch_changes_each_picture_in_a_way_of_its_own(changes: dict[str, Any], pictures: Path) -> None:
    samples = copies(pictures / "train/red/red_1.png", 3)
    first, again, second = (batches_of(samples, epoch, 2, **changes)[0] for epoch in (1, 1, 2))
    assert torch.equal(first, again)
    shown = [*first, *second]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(shown, 2))
    other = batches_of(samples, 1, seed=8, **changes)[0]
    assert not any(torch.equal(a, b) for a in first for b in other)


def test_pictures_are_mirrored_unless_told_otherwise(tmp_path: Path) -> None:
    picture(32, 32).save(tmp_path / "a.png")  # a square: its largest part of the ratio 1 is all of it
    samples = copies(tmp_path / "a.png", 24)
    plain, _ = batches_of(samples, augment="crop", min_area=1.0, flip=False)
    either, _ = batches_of(samples, augment="crop", min_area=1.0)
    assert all(torch.equal(image, plain[0]) for image in plain)
    mirrored = [torch.equal(image, plain[0].flip(2)) for image in either]
    assert all(torch.equal(image, plain[0]) or there for image, there in zip(either, mirrored, strict=True))
    assert 6 <= sum(mirrored) <= 18


def test_lighting_shifts_each_colour_of_a_picture_alike(pictures: Path) -> None:
    samples = copies(pictures / "train/red/red_1.png", 3)
    plain, lit = (batches_of(samples, augment="crop", lighting=deviation)[0] for deviation in (0.0, 0.1))
    shifts = (lit - plain) * torch.tensor(TINY.std)[:, None, None]
    assert torch.allclose(shifts, shifts[:, :, :1, :1].expand_as(shifts), atol=1e-6)
    assert len(set(shifts[:, 0, 0, 0].tolist())) == 3
    assert 0 < shifts.abs().max() < 0.1


@pytest.mark.parametrize(("whole", "size"), [(True, (40, 36)), (False, (32, 32))])
def test_a_picture_is_changed_once_before_the_crop_or_after(
    whole: bool, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []

    def noted(image: Image.Image, _: Random) -> Image.Image:
        seen.append(image.size)
        return image

    monkeypatch.setitem(augment.CHANGES, "auto", noted)
    augment.random_picture(picture(40, 36), 32, Settings(augment_whole=whole), Random(0))
    assert seen == [size]


def test_each_way_of_changing_pictures_is_carried_out(pictures: Path) -> None:
    samples = copies(pictures / "train/red/red_1.png", 4)
    whole = {"augment": "rand", "augment_whole": True}
    ways: list[dict[str, Any]] = [
        {"augment": "crop"},
        {"augment": "crop", "jitter": 0.4},
        {},
        {"augment": "rand"},
        whole,
    ]
    shown = [batches_of(samples, **way)[0] for way in ways]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(shown, 2))


@pytest.mark.parametrize("mixup", [0.0, 0.2])
def test_the_loss_is_that_of_smoothed_and_mixed_labels(mixup: float, pictures: Path, tmp_path: Path) -> None:
    settings = Settings(epochs=1, batch=12, dropout=0, smoothing=0.3, mixup=mixup, seed=7)
    run = tiny_run(pictures, settings)
    train(run, tmp_path, ALONE, tensorboard=False)
    images, labels = batches_of(run.train)
    share = share_of_first(settings, 0)
    assert (share == 1) is (mixup == 0)
    truth = torch.eye(3)[labels]
    truth = (share * truth + (1 - share) * truth.flip(0)) * 0.7 + 0.3 / 3
    model, _ = build(TINY, None, seed=7)
    with torch.no_grad():
        logits = model.train()(share * images + (1 - share) * images.flip(0))
    expected = -(truth * logits.log_softmax(dim=1)).sum(dim=1).mean()
    assert log(tmp_path)[0]["loss"] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    "changes", [{}, {"nesterov": True}, {"clip": 0.25}, {"decay": 0.5}, {"rate": 0.5, "mixup": 0.3}]
)
def test_a_step_is_that_of_plain_arithmetic(changes: dict[str, Any], pictures: Path, tmp_path: Path) -> None:
    settings = Settings(
        **{"epochs": 1, "batch": 12, "dropout": 0.0, "smoothing": 0.0, "decay": 0.0, "seed": 7, **changes}
    )
    run = tiny_run(pictures, settings)
    train(run, tmp_path, ALONE, tensorboard=False)
    images, labels = batches_of(run.train, mixup=settings.mixup)
    share = share_of_first(settings, 0)
    model, _ = build(TINY, None, seed=7)
    logits = model.train()(share * images + (1 - share) * images.flip(0)).log_softmax(dim=1)
    truth = torch.eye(3)[labels]
    torch.autograd.backward(-(logits * (share * truth + (1 - share) * truth.flip(0))).sum(dim=1).mean())
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    norm = math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients.values()))
    part = min(1, settings.clip / norm) if settings.clip else 1
    assert (part < 1) is (settings.clip > 0)
    found = tensors(tmp_path / "last.pth")["model"]
    for name, decay in (("fc.weight", settings.decay), ("fc.bias", 0), ("conv1.0.weight", settings.decay)):
        before = model.state_dict()[name]
        change = part * gradients[name] + decay * before
        rate = settings.rate * 12 / 64 * (1.9 if settings.nesterov else 1)
        assert torch.allclose(found[name], before - rate * change, rtol=1e-4, atol=1e-7), name


def test_drop_block_and_dropout_change_what_is_learnt(pictures: Path, tmp_path: Path) -> None:
    plain = Settings(epochs=1, batch=4, dropout=0.0, rate=0.5)
    losses, ways = set(), [plain, dataclasses.replace(plain, dropblock=0.5), dataclasses.replace(plain, dropout=0.5)]
    for number, settings in enumerate(ways):
        train(tiny_run(pictures, settings), tmp_path / str(number), ALONE, tensorboard=False)
        losses.add(log(tmp_path / str(number))[0]["loss"])
    assert len(losses) == 3


def test_mixup_draws_from_the_beta_distribution_for_every_step_anew() -> None:
    settings = Settings(mixup=0.2)
    shares = np.array([share_of_first(settings, step) for step in range(5000)])
    assert shares.mean() == pytest.approx(0.5, abs=0.02)
    assert shares.var() == pytest.approx(1 / (4 * (2 * 0.2 + 1)), rel=0.05)
    assert share_of_first(settings, 3) == shares[3] != share_of_first(Settings(mixup=0.2, seed=1), 3)


def test_drop_block_is_torchvision_s(torchvision: ModuleType) -> None:
    from torchvision.ops import drop_block2d

    block, norm, x = DropBlock(0.2, 3, ALONE), torch.nn.BatchNorm2d(8), torch.rand(4, 8, 7, 9)
    block.begin(5, 0.5)  # half of training is over, so half of the share
    found = block(norm, (), x)
    torch.manual_seed(3 * 1_000_003 + 5)
    assert torch.allclose(found, drop_block2d(x, 0.1, 3))
    assert 0.03 < (found == 0).float().mean() < 0.2
    assert torch.equal(block(norm.eval(), (), x), x)
    assert block(norm.train(), (), torch.ones(2, 8, 1, 1)).shape == (2, 8, 1, 1)


def test_drop_block_works_in_the_last_two_stages_and_in_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = create_model(TINY)
    block, seen = DropBlock(0.5, 0, ALONE), []
    monkeypatch.setattr(DropBlock, "__call__", lambda self, module, inputs, output: seen.append(module))
    block.hook(model)
    model(torch.rand(2, 3, 32, 32))
    stages: Any = (model.layer3, model.layer4)
    expected = [norm for stage in stages for norm in (stage[0].bn1, stage[0].conv2.bn0, stage[0].bn3)]
    assert list(map(id, seen)) == list(map(id, expected))


def parsed(monkeypatch: pytest.MonkeyPatch, *flags: str) -> Settings:
    monkeypatch.setattr(sys, "argv", ["resnest_train.py", "--train=a", "--val=b", "--output=c", *flags])
    return _settings(_parse())


def test_one_flag_names_the_paper_s_recipe_and_others_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parsed(monkeypatch) == Settings()
    paper: dict[str, Any] = {
        "nesterov": True,
        "augment_whole": True,
        "jitter": 0.4,
        "lighting": 0.1,
        "mixup": 0.2,
        "dropblock": 0.1,
    }
    assert parsed(monkeypatch, "--preset=paper") == Settings(**paper)
    changed = parsed(monkeypatch, "--preset=paper", "--mixup=0", "--no-augment-whole", "--augment=rand", "--no-flip")
    assert changed == Settings(**{**paper, "mixup": 0, "augment_whole": False, "augment": "rand", "flip": False})


@pytest.mark.parametrize(("epochs", "warmup"), [(1, 0), (3, 0), (8, 2), (20, 5), (270, 5)])
def test_the_warm_up_that_nobody_typed_fits_any_number_of_epochs(epochs: int, warmup: int) -> None:
    assert Settings(epochs=epochs).warmup_epochs == warmup


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"epochs": 0}, "--epochs 0: expected 1 or more"),
        ({"epochs": 5, "warmup": 5}, "--warmup-epochs 5: expected 0 or more, and fewer than --epochs 5"),
        ({"rate": math.nan}, "--rate nan"),
        ({"decay": math.nan}, "--decay nan: expected a number of at least 0"),
        ({"dropblock": 1.0}, "--dropblock 1.0: expected a number of at least 0 and below 1"),
        ({"augment": "none", "jitter": 0.1}, "take another --augment than none"),
        ({"augment": "all"}, "--augment all"),
        ({"nesterov": True, "momentum": 0.0}, "--nesterov takes a --momentum above 0"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        Settings(**wrong)


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
    common += ["--epochs=4", "--warmup-epochs=1", "--rate=0.2", "--sync-bn"]
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


@pytest.mark.parametrize("recipe", ["default", "paper"])
def test_a_run_that_was_stopped_ends_bit_for_bit_as_an_uninterrupted_one(
    recipe: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny_run(pictures, dataclasses.replace(SHORT, **PRESETS[recipe]))
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
    monkeypatch.setattr(Trainer, "_evaluate", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # what the second epoch has learnt is saved by then
        train(run, tmp_path / "stopped", ALONE, tensorboard=False)
    monkeypatch.undo()
    assert [len(row) for row in tensors(tmp_path / "stopped/last.pth")["history"]] == [7, 5]
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
    said: list[str] = []
    train(run, tmp_path / "whole", ALONE, tensorboard=False, say=said.append)
    assert len(said) == 1
    assert said[0].endswith("nothing is left to do")


def test_a_full_disk_is_named_and_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    write_tensors({"a": torch.zeros(3)}, tmp_path / "last.pth")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(OSError, match=r"File too large: .*last.pth"):
            write_tensors({"a": torch.zeros(100_000)}, tmp_path / "last.pth")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(tensors(tmp_path / "last.pth")["a"]) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["last.pth"]


ONE = Settings(epochs=1, batch=4, seed=7)


def test_a_run_does_not_go_on_with_the_checkpoint_of_another(pictures: Path, tmp_path: Path) -> None:
    train(tiny_run(pictures, ONE), tmp_path, ALONE, tensorboard=False)
    other = tiny_run(pictures, dataclasses.replace(ONE, smoothing=0.2))
    with pytest.raises(PipelineError, match=r"last.pth: is of a run with another smoothing \(0.1, not 0.2\); repeat"):
        train(other, tmp_path, ALONE, tensorboard=False)
    whole = (tmp_path / "last.pth").read_bytes()
    damaged = bytes([*whole[: len(whole) // 2], whole[len(whole) // 2] ^ 1, *whole[len(whole) // 2 + 1 :]])
    for content, words in ((damaged, "cut short or damaged"), (whole[:999], "damaged"), (b"half", "is text that beg")):
        (tmp_path / "last.pth").write_bytes(content)
        with pytest.raises(PipelineError, match=rf"last.pth: .*{words}.*, or name another --output"):
            train(tiny_run(pictures, ONE), tmp_path, ALONE, tensorboard=False)
    torch.save({}, tmp_path / "last.pth")
    with pytest.raises(PipelineError, match=r"last.pth: not a checkpoint of a training run"):
        train(other, tmp_path, ALONE, tensorboard=False)


@pytest.mark.parametrize("name", ["best.pth", "best.json", "log.jsonl"])
def test_what_no_checkpoint_says_is_of_this_run_is_not_overwritten(name: str, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(PipelineError, match=rf"{name}: would be overwritten, and no last\.pth says"):
        train(tiny_run(pictures, ONE), tmp_path, ALONE, tensorboard=False)
    assert (tmp_path / name).read_text() == "mine"


def test_a_run_goes_on_only_from_the_weights_it_began_with(pictures: Path, tmp_path: Path) -> None:
    start = tmp_path / "start.pth"
    torch.save(build(TINY, None, seed=1)[0].state_dict(), start)
    run = tiny_run(pictures, ONE, weights=start)
    train(run, tmp_path / "out", ALONE, tensorboard=False)
    start.rename(tmp_path / "moved.pth")
    train(dataclasses.replace(run, weights=tmp_path / "moved.pth"), tmp_path / "out", ALONE, tensorboard=False)
    torch.save(build(TINY, None, seed=2)[0].state_dict(), start)
    with pytest.raises(PipelineError, match=r"is of a run with other weights to start from; repeat"):
        train(run, tmp_path / "out", ALONE, tensorboard=False)


@pytest.mark.parametrize(("split", "words"), [("train", "to learn from"), ("val", "to be judged by")])
def test_a_run_goes_on_only_with_the_pictures_it_began_with(
    split: str, words: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(pictures, tmp_path / "a")
    train(tiny_run(tmp_path / "a", ONE), tmp_path / "out", ALONE, tensorboard=False)
    said: list[str] = []
    with monkeypatch.context() as reading:
        reading.setattr("ResNeSt.training.pictures.decode", None)  # none is read again
        train(tiny_run(tmp_path / "a", ONE), tmp_path / "out", ALONE, tensorboard=False, say=said.append)
    assert len(said) == 1
    shutil.copytree(tmp_path / "a", tmp_path / "b")  # the same pictures elsewhere, with other dates
    os.utime(tmp_path / "b/train/red/red_0.png", ns=(1, 1))
    train(tiny_run(tmp_path / "b", ONE), tmp_path / "out", ALONE, tensorboard=False)
    changed, times = tmp_path / "b" / split / "red/red_0.png", (tmp_path / "b" / split / "red/red_0.png").stat()
    content = (tmp_path / "b" / split / "red/red_1.png").read_bytes()
    changed.write_bytes(content)
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(PipelineError, match=rf"is of a run with other pictures {words}; repeat"):
        train(tiny_run(tmp_path / "b", ONE), tmp_path / "out", ALONE, tensorboard=False)


def test_a_run_goes_on_only_with_the_classes_that_its_pictures_had(pictures: Path, tmp_path: Path) -> None:
    run = tiny_run(pictures, ONE)
    train(run, tmp_path, ALONE, tensorboard=False)
    swapped = dataclasses.replace(run.train, labels=run.train.labels[::-1])
    with pytest.raises(PipelineError, match=r"is of a run with other pictures to learn from"):
        train(dataclasses.replace(run, train=swapped), tmp_path, ALONE, tensorboard=False)


def test_pictures_that_changed_places_at_one_size_and_date_are_other_pictures(pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures, tmp_path / "a")
    one, other = (tmp_path / "a/train" / name for name in ("red/red_0.png", "blue/blue_0.png"))
    size = max(one.stat().st_size, other.stat().st_size)
    for path in (one, other):
        path.write_bytes(path.read_bytes().ljust(size, b"\0"))
        os.utime(path, ns=(1, 1))
    train(tiny_run(tmp_path / "a", ONE), tmp_path / "out", ALONE, tensorboard=False)
    one.rename(tmp_path / "aside")
    other.rename(one)
    (tmp_path / "aside").rename(other)
    with pytest.raises(PipelineError, match=r"is of a run with other pictures to learn from"):
        train(tiny_run(tmp_path / "a", ONE), tmp_path / "out", ALONE, tensorboard=False)


@pytest.mark.parametrize("split", ["train", "val"])
def test_broken_pictures_are_named_before_the_first_epoch(split: str, pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures, tmp_path / "a")
    cut = sorted((tmp_path / "a" / split).rglob("*.png"))[-1]
    cut.write_bytes(cut.read_bytes()[:-900])
    (tmp_path / "a" / split / "blue/x.jpg").write_bytes(b"no picture")
    (tmp_path / "a" / split / "blue/y.jpg").symlink_to("y.jpg")
    count = len(list((tmp_path / "a" / split).rglob("*.*")))
    words = rf"{split}: 3 of {count} pictures cannot .*/x.jpg: not an image.*; .*/y.jpg.*; .*{cut.name}: cannot be"
    with pytest.raises(PipelineError, match=words):
        train(tiny_run(tmp_path / "a"), tmp_path / "out", ALONE, tensorboard=False)
    assert not list((tmp_path / "out").iterdir())


def test_more_epochs_than_a_finished_run_had_are_another_run_that_can_start_from_it(
    pictures: Path, tmp_path: Path
) -> None:
    train(tiny_run(pictures, ONE), tmp_path / "out", ALONE, tensorboard=False)
    longer = tiny_run(pictures, dataclasses.replace(ONE, epochs=2))
    advice = r"is of a run with --epochs 1 --warmup-epochs 0, .*another --output, and --weights \S+last.pth"
    with pytest.raises(PipelineError, match=advice):
        train(longer, tmp_path / "out", ALONE, tensorboard=False)
    said: list[str] = []
    onward = dataclasses.replace(longer, weights=tmp_path / "out/last.pth")
    train(onward, tmp_path / "other", ALONE, tensorboard=False, say=said.append)
    assert f"weights of {tmp_path / 'out/last.pth'}" in "".join(said)


@pytest.mark.parametrize(("step", "words"), [(1, "nothing has been saved"), (4, "last.pth is of the epoch before")])
def test_a_loss_that_is_no_number_ends_the_run_and_says_what_is_left(
    step: int, words: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn, bad = Trainer._step, torch.tensor([math.nan])
    monkeypatch.setattr(Trainer, "_step", lambda self, at, *batch: bad if at == step else learn(self, at, *batch))
    with pytest.raises(
        PipelineError, match=rf"epoch {1 + step // 3}: the loss is nan, so training has diverged; .*{words}"
    ):
        train(tiny_run(pictures), tmp_path, ALONE, tensorboard=False)
    assert (tmp_path / "last.pth").exists() is (step == 4)


def test_a_long_epoch_says_how_far_it_is(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ResNeSt.training.meter.LINE_SECONDS", 0)
    said: list[str] = []
    train(tiny_run(pictures, ONE), tmp_path, ALONE, tensorboard=False, say=said.append)
    steps = [line for line in said if line.startswith("epoch 1, step ")]
    assert len(steps) == 3
    assert re.fullmatch(r"epoch 1, step 2 of 3: loss \d\.\d{4}, rate 1\.17e-03, \d+ img/s, 00:00 left", steps[1])


def test_the_time_left_is_that_of_the_steps_left_at_the_speed_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds, said = iter([100.0, 110.0, 160.0]), list[str]()
    monkeypatch.setattr("ResNeSt.training.meter.time.monotonic", lambda: next(seconds))
    with Meter(3, 10, 300, said.append, bars_off=True) as meter:
        meter.step(torch.tensor(0.5), 0.1)  # 10 s after the first look: too early for another
        meter.step(torch.tensor(0.25), 0.1)
    assert said == ["epoch 3, step 2 of 10: loss 0.2500, rate 1.00e-01, 10 img/s, 04:00 left"]


def test_torchrun_ends_with_the_line_of_the_process_that_failed_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    with pytest.raises(PipelineError), told_to_torchrun():
        raise PipelineError("a.pth: what is wrong")
    report = str(ChildFailedError("resnest_train.py", {0: ProcessFailure(0, 1, 1, str(tmp_path / "error.json"))}))
    assert "error: a.pth: what is wrong" in report.splitlines()[-2]


# Data and results


def test_folders_and_a_labels_file_say_the_same(pictures: Path, tmp_path: Path) -> None:
    by_folder = read_samples(pictures / "train", None)
    (labels := tmp_path / "l.txt").write_text(
        "".join(f"{Path(p).name} {n}\n" for p, n in zip(by_folder.images, by_folder.labels, strict=True))
    )
    by_file = read_samples(pictures / "train", labels)
    assert (by_file.images, by_file.labels, by_file.classes) == (by_folder.images, by_folder.labels, 3)
    assert (by_folder.class_names, by_file.class_names) == (("blue", "green", "red"), None)


def trained(monkeypatch: pytest.MonkeyPatch, *flags: object) -> None:
    """Runs the command line in this process."""
    monkeypatch.setattr(sys, "argv", ["resnest_train.py", *map(str, flags)])
    main()


def test_a_folder_that_training_does_not_know_and_too_few_pictures_are_named(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "val/violet").mkdir(parents=True)
    picture(8, 8).save(tmp_path / "val/violet/v.png")
    flags = [f"--train={pictures / 'train'}", f"--output={tmp_path / 'out'}", "--model=resnest_demo"]
    with pytest.raises(PipelineError, match="val: its folder violet is none of the 3 classes"):
        trained(monkeypatch, *flags, f"--val={tmp_path / 'val'}")
    with pytest.raises(PipelineError, match="12 training images, one step takes 13 on each of 1; lower --batch"):
        trained(monkeypatch, *flags, f"--val={pictures / 'val'}", "--batch=13")


def test_pictures_of_one_class_are_not_learnt_to_100_percent(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the folder above the class folders is given."""
    shutil.copytree(pictures / "train", tmp_path / "data/train")
    flags = [f"--train={tmp_path / 'data'}", f"--val={tmp_path / 'data'}", f"--output={tmp_path / 'out'}"]
    with pytest.raises(PipelineError, match="all 12 training pictures are of one class; expected two or more"):
        trained(monkeypatch, *flags, "--model=resnest_demo")


def test_empty_folders_are_classes_and_numbers_mean_themselves_in_training_as_in_labels(tmp_path: Path) -> None:
    for name in ("train/ape", "train/bee", "numbers/2", "numbers/10", "val/010", "other/a"):
        (tmp_path / name).mkdir(parents=True)
        if name != "train/ape":
            picture(8, 8).save(tmp_path / name / f"{Path(name).name}.png")
    samples = read_samples(tmp_path / "train", None)
    assert (samples.labels, samples.class_names) == ([1], ("ape", "bee"))
    assert "1 class folders have no images, such as ape; each is a class all the same" in samples.remarks[-1]
    samples = read_samples(tmp_path / "numbers", None)
    assert (samples.labels, samples.classes) == ([2, 10], 11)
    known = class_list("the training pictures", samples.class_names, samples.classes)
    assert read_samples(tmp_path / "val", None, known).labels == [10]
    with pytest.raises(PipelineError, match="its folder a is none of the 11 classes of the training pictures"):
        read_samples(tmp_path / "other", None, known)


def test_labels_of_no_picture_from_1_or_beyond_any_classifier_are_told_or_refused(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    picture(8, 8).save(tmp_path / "train/a.png")
    (labels := tmp_path / "l.txt").write_text("a.png 1\ngone.png 2\nlost.png 3\n")
    from_one, missing = read_samples(tmp_path / "train", labels).remarks
    assert "the lowest 1; classes count from 0" in from_one
    assert missing == f"{labels}: 2 labelled images are not in {tmp_path / 'train'}, such as gone"
    labels.write_text("a.png 999999999\n")
    with pytest.raises(PipelineError, match="has class 999999999, class numbers here are 0 to 99999"):
        read_samples(tmp_path / "train", labels)


def test_class_numbers_of_a_file_and_of_folders_are_not_mixed(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (labels := tmp_path / "l.txt").write_text("blue_0.png 2\n")
    flags = [f"--train={pictures / 'train'}", f"--train-labels={labels}", f"--val={pictures / 'val'}"]
    with pytest.raises(ArgumentError, match="--train-labels takes --val-labels, too"):
        trained(monkeypatch, *flags, f"--output={tmp_path / 'out'}", "--model=resnest_demo")


def test_an_own_card_keeps_its_class_names_with_a_labels_file(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_card(dataclasses.replace(TINY, class_names=("azure", "lime", "ruby")), tmp_path / "tiny.json")
    flags = [f"--model={tmp_path / 'tiny.json'}", f"--output={tmp_path}", "--epochs=1", "--batch=2"]
    for split in ("train", "val"):
        samples = read_samples(pictures / split, None)
        lines = [f"{Path(path).name} {label}\n" for path, label in zip(samples.images, samples.labels, strict=True)]
        (tmp_path / f"{split}.txt").write_text("".join(lines))
        flags += [f"--{split}={pictures / split}", f"--{split}-labels={tmp_path / split}.txt"]
    trained(monkeypatch, *flags)
    assert read_card(tmp_path / "best.json").class_names == ("azure", "lime", "ruby")


def test_processes_that_find_different_checkpoints_do_not_start(pictures: Path, tmp_path: Path) -> None:
    class Apart(Processes):
        def all_of(self, mine: Any) -> list[Any]:
            return [mine, 2]  # as where another process had two epochs behind it

    with pytest.raises(PipelineError, match="the processes do not find the same one"):
        Trainer(tiny_run(pictures), tmp_path, Apart(0, 1, torch.device("cpu")), silent)


@pytest.mark.heavy
def test_a_fine_tuned_checkpoint_goes_through_the_stages_with_its_own_classes(
    pictures: Path, demo_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = [f"--train={pictures / 'train'}", f"--val={pictures / 'val'}", "--model=resnest_demo", "--size=64"]
    flags += [
        f"--weights={demo_checkpoint}",
        "--epochs=8",
        "--warmup-epochs=1",
        "--batch=4",
        "--rate=0.3",
    ]
    result = call("resnest_train.py", *flags, "--augment=crop", "--tensorboard", f"--output={tmp_path}")
    assert result.returncode == 0, result.stderr
    assert "but a fresh classifier: its own has 10 classes, not 3" in result.stdout
    rows = log(tmp_path)
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert read_card(tmp_path / "best.json").class_names == ("blue", "green", "red")
    _holds_the_log(tmp_path / "tensorboard", rows)

    best, onnx = tmp_path / "best.pth", tmp_path / "colours.onnx"
    monkeypatch.setattr(sys, "argv", ["resnest_pth2onnx.py", f"--source={best}", f"--target={onnx}"])
    export_main()
    (model,) = convert(Conversion(onnx, [2], "cpu", output=tmp_path))
    answers = list(predict(ModelChoice(model.path), sorted((pictures / "val").rglob("*.png"))))
    right = [Path(answer.image).parent.name == answer.guesses[0].name for answer in answers]
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


def test_classes_of_other_names_or_another_order_get_a_fresh_classifier_and_it_is_said(demo_checkpoint: Path) -> None:
    weight = tensors(demo_checkpoint)["fc.weight"]
    names, numbers = tuple("hgfjedcbai"), tuple("0123456789")

    def kept(own: tuple[str, ...] | None, of_weights: tuple[str, ...] | None) -> bool:
        named = dataclasses.replace(card("resnest_demo"), class_names=own)
        model, origin = build(named, demo_checkpoint, seed=0, weights_names=of_weights)
        fresh = "but a fresh classifier: nothing says that its own has these classes in this order" in origin
        assert fresh != torch.equal(model.fc.weight, weight)
        return not fresh

    assert all(kept(*pair) for pair in [(names, names), (None, names), (numbers, names), (numbers, None)])
    assert not any(kept(*pair) for pair in [(tuple(sorted(names)), names), (names, None)])


def test_a_checkpoint_without_a_classifier_gets_a_fresh_one_and_it_is_said(
    demo_checkpoint: Path, tmp_path: Path
) -> None:
    held = {name: value for name, value in tensors(demo_checkpoint).items() if not name.startswith("fc.")}
    torch.save({"state_dict": {f"backbone.{name}": value for name, value in held.items()}}, tmp_path / "b.pth")
    model, origin = build(card("resnest_demo"), tmp_path / "b.pth", seed=0)
    assert origin.endswith("b.pth (state_dict.backbone), but a fresh classifier: it has none")
    assert torch.equal(model.state_dict()["conv1.0.weight"], held["conv1.0.weight"])
    torch.save({**held, "fc.bias": torch.zeros(10)}, tmp_path / "half.pth")
    with pytest.raises(PipelineError, match=r"1 entries missing \(fc\.weight\)"):
        build(card("resnest_demo"), tmp_path / "half.pth", seed=0)


@pytest.mark.parametrize("variables", [{"RANK": "1"}, {"WORLD_SIZE": "2"}, {"RANK": "5", "WORLD_SIZE": "2"}])
def test_a_process_that_is_none_of_the_processes_is_refused(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rank that a scheduler left would train in silence, and save nothing."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ArgumentError, match=r"RANK=.* and WORLD_SIZE=\d in the environment"), joined("cpu"):
        pass
