"""timm's checkpoints, in each of the files that timm writes, load and give timm's logits."""

from __future__ import annotations

import argparse
import dataclasses

import pytest

torch = pytest.importorskip("torch")

from ResNeSt.cards import card  # noqa: E402
from ResNeSt.checkpoint import load  # noqa: E402
from ResNeSt.models.resnest import ResNeSt  # noqa: E402

CLASSES = 7


@pytest.fixture(scope="module")
def trained(timm):
    """timm's smallest, one block a stage, with statistics of its own in every batch norm."""
    torch.manual_seed(0)
    model = timm.create_model("resnest14d", num_classes=CLASSES)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.3)
    return model.eval()


def as_state_dict(model, folder):
    torch.save(model.state_dict(), folder / "c.pth")
    return folder / "c.pth"


def as_safetensors(model, folder):
    from safetensors.torch import save_model

    save_model(model, folder / "model.safetensors")
    return folder / "model.safetensors"


def as_its_trainer_does(model, folder):
    from timm.utils import CheckpointSaver

    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    saver = CheckpointSaver(model, optimizer, args=argparse.Namespace(model="resnest14d"), checkpoint_dir=folder)
    saver.save_checkpoint(epoch=3, metric=81.0)
    return folder / "last.pth.tar"


@pytest.mark.parametrize("save", [as_state_dict, as_safetensors, as_its_trainer_does])
def test_a_checkpoint_of_timm_gives_timm_s_logits(save, trained, tmp_path):
    arch = dataclasses.replace(card("resnest50").architecture, layers=(1, 1, 1, 1))
    model = ResNeSt(arch, CLASSES)
    load(model, save(trained, tmp_path))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, found = trained(images), model.eval()(images)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
