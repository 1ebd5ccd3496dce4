"""The deploy form: the same function as the textbook form, in operators that compile well."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from ResNeSt.export.rewrites.dense_splits import DenseBottleneck
from ResNeSt.export.rewrites.deploy import REWRITES, deploy
from ResNeSt.export.rewrites.sigmoid_attention import SigmoidSum
from ResNeSt.models.cards import card, names
from ResNeSt.models.resnest import SplitAttention, create_model
from tests.test_models import relative, seeded

SMALL = [name for name in names() if sum(card(name).architecture.layers) <= 16]
# Float32 rounding, of sums in another order, through 50 layers.
ROUNDING = 2e-6


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(2).standard_normal((2, 3, 64, 64)).astype(np.float32))


def count(model: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in model.modules())


def grouped(model: nn.Module) -> int:
    return sum(isinstance(module, nn.Conv2d) and module.groups > 1 for module in model.modules())


@pytest.mark.parametrize("name", SMALL)
def test_the_deploy_form_gives_the_textbook_form_s_logits(name: str, images: torch.Tensor) -> None:
    model = seeded(create_model(name))
    with torch.inference_mode():
        assert relative(deploy(copy.deepcopy(model))(images), model(images)) <= ROUNDING


@pytest.mark.heavy
@pytest.mark.parametrize("name", [name for name in names() if name not in SMALL])
def test_the_deploy_form_of_a_deep_model_gives_the_textbook_form_s_logits(name: str, images: torch.Tensor) -> None:
    test_the_deploy_form_gives_the_textbook_form_s_logits(name, images)


@pytest.mark.parametrize("applied", range(1, len(REWRITES) + 1), ids=[rewrite.__name__ for rewrite in REWRITES])
@pytest.mark.parametrize("name", ["resnest50_fast_2s1x64d", "resnest50_fast_2s2x40d", "resnest50_fast_4s1x64d"])
def test_each_rewrite_alone_keeps_the_logits(applied: int, name: str, images: torch.Tensor) -> None:
    model = seeded(create_model(name))
    with torch.inference_mode():
        expected = model(images)
        for rewrite in REWRITES[:applied]:
            rewrite(model)
        assert relative(model(images), expected) <= ROUNDING


@pytest.mark.parametrize("name", SMALL)
def test_no_batch_norm_is_left(name: str) -> None:
    assert count(deploy(create_model(name).eval()), nn.BatchNorm2d) == 0


@pytest.mark.parametrize("name", ["resnest50", "resnest50_fast_2s1x64d"])
def test_radix_2_and_cardinality_1_leave_no_grouped_convolution_and_no_softmax(name: str) -> None:
    model = deploy(create_model(name).eval())
    assert count(model, DenseBottleneck) == count(model, SigmoidSum) == 16
    assert count(model, SplitAttention) == 0
    assert grouped(model) == 0


def test_radix_2_with_two_cardinal_groups_becomes_a_sigmoid_and_stays_grouped() -> None:
    model = deploy(create_model("resnest50_fast_2s2x40d").eval())
    assert count(model, SigmoidSum) == 16
    assert count(model, DenseBottleneck) == 0


def test_radix_4_keeps_its_softmax_and_loses_its_grouped_convolutions() -> None:
    model = deploy(create_model("resnest50_fast_4s1x64d").eval())
    assert count(model, DenseBottleneck) == 16
    assert count(model, SigmoidSum) == grouped(model) == 0


@pytest.mark.parametrize("name", ["resnest50_fast_1s1x64d", "resnest50_fast_1s4x24d"])
def test_radix_1_is_left_as_it_is_but_for_batch_norms(name: str) -> None:
    assert count(deploy(create_model(name).eval()), SplitAttention) == 16


def test_the_original_is_not_changed_by_rewriting_a_copy() -> None:
    model = create_model("resnest_demo").eval()
    before = copy.deepcopy(model.state_dict())
    deploy(copy.deepcopy(model))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
