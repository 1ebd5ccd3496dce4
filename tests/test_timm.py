"""timm's checkpoints, in each of the files that timm writes, load and give timm's logits."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch
else:
    torch = pytest.importorskip("torch")

from ResNeSt.models.cards import card
from ResNeSt.models.checkpoint import load, read_state
from ResNeSt.models.resnest import ResNeSt, create_model

CLASSES = 7


@pytest.fixture(scope="module")
def trained(timm: ModuleType) -> torch.nn.Module:
    """timm's smallest, one block a stage, with statistics of its own in every batch norm."""
    torch.manual_seed(0)
    model: torch.nn.Module = timm.create_model("resnest14d", num_classes=CLASSES)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.3)
    return model.eval()


def as_state_dict(model: torch.nn.Module, folder: Path) -> Path:
    torch.save(model.state_dict(), folder / "c.pth")
    return folder / "c.pth"


def as_safetensors(model: torch.nn.Module, folder: Path) -> Path:
    from safetensors.torch import save_model

    save_model(model, str(folder / "model.safetensors"))
    return folder / "model.safetensors"


def as_its_trainer_does(model: torch.nn.Module, folder: Path) -> Path:
    utils = pytest.importorskip("timm.utils")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    saver = utils.CheckpointSaver(model, optimizer, args=argparse.Namespace(model="resnest14d"), checkpoint_dir=folder)
    saver.save_checkpoint(epoch=3, metric=81.0)
    return folder / "last.pth.tar"


@pytest.mark.parametrize("save", [as_state_dict, as_safetensors, as_its_trainer_does])
def test_a_checkpoint_of_timm_gives_timm_s_logits(
    save: Callable[[torch.nn.Module, Path], Path], trained: torch.nn.Module, tmp_path: Path
) -> None:
    arch = dataclasses.replace(card("resnest50").architecture, layers=(1, 1, 1, 1))
    model = ResNeSt(arch, CLASSES)
    load(model, save(trained, tmp_path))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, found = trained(images), model.eval()(images)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def under(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": value for name, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda raw, ema: {"state_dict": raw, "state_dict_ema": ema},
        lambda raw, ema: {"state_dict": under("module.", raw), "state_dict_ema": under("_orig_mod.module.", ema)},
        lambda raw, ema: {"model": raw, "model_ema": ema, "optimizer": {"state": {}}},
        lambda raw, ema: {"state_dict": under("_orig_mod.", raw), "state_dict_ema": None, "epoch": 3},
    ],
)
def test_the_moving_average_is_taken_where_timm_takes_it(
    wrap: Callable[..., dict[str, Any]], timm: ModuleType, tmp_path: Path
) -> None:
    raw = create_model("resnest_demo").state_dict()
    held = wrap(raw, {name: value + 1 for name, value in raw.items()})
    torch.save(held, tmp_path / "c.pth")
    averaged = held.get("state_dict_ema", held.get("model_ema")) is not None
    for ema in (None, True, False) if averaged else (None, False):
        expected = timm.models.load_state_dict(str(tmp_path / "c.pth"), use_ema=ema is not False)
        found = read_state(tmp_path / "c.pth", ema)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
