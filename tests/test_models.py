"""The networks are the published ones."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import pytest
import torch

from ResNeSt.common.errors import ArgumentError
from ResNeSt.models.cards import card, names
from ResNeSt.models.resnest import create_model

TIMM_NAMES = {
    "resnest50": "resnest50d",
    "resnest101": "resnest101e",
    "resnest200": "resnest200e",
    "resnest269": "resnest269e",
    "resnest50_fast_1s4x24d": "resnest50d_1s4x24d",
    "resnest50_fast_4s2x40d": "resnest50d_4s2x40d",
}
Network = TypeVar("Network", bound=torch.nn.Module)
OFFICIAL = [name for name in names() if card(name).url]


def seeded(model: Network) -> Network:
    """Weights that keep every layer's output in range, batch-norm statistics included."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            torch.nn.init.uniform_(module.weight, 0.3, 0.6)
            torch.nn.init.normal_(module.bias, 0, 0.1)
            torch.nn.init.normal_(module.running_mean, 0, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("name", OFFICIAL)
def test_a_model_has_as_many_parameters_as_its_card_says(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name)
    assert sum(value.numel() for value in model.parameters()) == card(name).parameters


@pytest.mark.parametrize("name", names())
def test_a_model_takes_as_many_multiply_adds_as_its_card_says(name: str) -> None:
    total = 0

    def count(layer: Any, _: object, output: torch.Tensor) -> None:
        nonlocal total
        total += output[0].numel() * layer.weight[0].numel()

    with torch.device("meta"):
        model = create_model(name).eval()
        for layer in model.modules():
            if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)):
                layer.register_forward_hook(count)
        model(torch.zeros(1, 3, card(name).size, card(name).size))
    assert total == card(name).multiply_adds


@pytest.mark.heavy
@pytest.mark.parametrize("name", OFFICIAL)
def test_a_model_gives_the_official_source_s_logits(name: str, shared: Path) -> None:
    spec = importlib.util.spec_from_file_location("fill_weights", shared / "golden/models/fill_weights.py")
    assert spec is not None
    assert spec.loader is not None
    golden = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(golden)
    about = json.loads((shared / "golden/models/expected.json").read_text())[name]
    expected = np.load(shared / "golden/models/expected_logits.npz")[name]
    with torch.inference_mode():
        images = torch.from_numpy(golden.probe(about["probe_batch"], about["input_size"]))
        found = golden.fill(create_model(name))(images).numpy()
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_parameter_names_and_shapes_are_those_of_the_official_checkpoints(shared: Path) -> None:
    expected = json.loads((shared / "golden/models/resnest50_state_dict.json").read_text())
    assert {name: list(value.shape) for name, value in create_model("resnest50").state_dict().items()} == expected


@pytest.mark.heavy
@pytest.mark.parametrize(("ours", "theirs"), TIMM_NAMES.items())
def test_a_model_equals_timm_s_with_the_same_weights(ours: str, theirs: str, timm: ModuleType) -> None:
    model = seeded(create_model(ours))
    other = timm.create_model(theirs)
    other.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert relative(model(images), other.eval()(images)) <= 1e-5


def test_another_number_of_classes_is_an_option() -> None:
    assert create_model("resnest_demo", num_classes=7).eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 7)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ArgumentError, match=r"unknown model 'resnet50'; known: resnest50, resnest101"):
        create_model("resnet50")
