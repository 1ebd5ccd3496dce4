"""The check of an exported file: wrongly exported and ill-conditioned are two verdicts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ResNeSt.common.errors import PipelineError
from ResNeSt.export.same_logits import Logits, check_same, nudged

SHAPE = (3, 8, 8)
WEIGHTS = np.random.default_rng(0).standard_normal((3 * 8 * 8, 10))


def network(dtype: type, offset: float = 0.0, order: int = 1) -> Logits:
    """A linear network, computed in `dtype`; `offset` is added to what it sums and taken off again, so that float32
    loses digits; `order` -1 sums the other way round, as another runtime does.
    """

    def logits(images: np.ndarray) -> np.ndarray:
        products: np.ndarray = images.reshape(len(images), -1, 1).astype(dtype) * WEIGHTS.astype(dtype)
        return np.asarray((products[:, ::order] + dtype(offset)).cumsum(axis=1)[:, -1] - dtype(offset * len(WEIGHTS)))

    return logits


def check(actual: Logits, expected: Logits, exact: Logits) -> tuple[float, str]:
    return check_same(Path("m.onnx"), actual, expected, exact, SHAPE, (1, 3), ("A", "B"), "the weights")


def test_networks_that_differ_by_rounding_pass_without_a_word() -> None:
    difference, note = check(network(np.float32, order=-1), network(np.float32), network(np.float64))
    assert (0 < difference < 1e-5, note) == (True, "")


def amplified(logits: Logits) -> Logits:
    return lambda images: np.sin(3e3 * logits(images))


@pytest.mark.parametrize("exact", ["in float64", "from images a step away"])
def test_an_ill_conditioned_network_passes_and_is_told_of(exact: str) -> None:
    theirs = amplified(network(np.float32))
    more_exact = amplified(network(np.float64)) if exact == "in float64" else nudged(theirs)
    difference, note = check(amplified(network(np.float32, order=-1)), theirs, more_exact)
    assert difference > 1e-4
    assert note.startswith("the network is ill-conditioned: rounding alone moves B's logits by ")


def test_a_wrong_export_is_refused_however_ill_conditioned_the_network_is() -> None:
    def wrong(images: np.ndarray) -> np.ndarray:
        return network(np.float64)(images) * np.linspace(0.9, 1, 10)

    with pytest.raises(PipelineError, match=r"m\.onnx: not written: wrongly exported: on noise A and B differ by"):
        check(wrong, network(np.float32), network(np.float64))
    with pytest.raises(PipelineError, match="wrongly exported"):
        check(wrong, network(np.float32, offset=1e3), network(np.float64, offset=1e3))


def test_logits_that_are_not_finite_are_a_verdict_of_their_own() -> None:
    def broken(images: np.ndarray) -> np.ndarray:
        return network(np.float32)(images) * np.nan

    with pytest.raises(PipelineError, match="A or B gives logits that are not finite; are the weights finite"):
        check(broken, network(np.float32), network(np.float64))
