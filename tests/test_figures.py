"""The arithmetic of ranking and agreement, against figures worked out by hand or in plain Python."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ResNeSt.compare.agreement import Agreement, Flip, Tolerance, agreement, ratio
from ResNeSt.score.outputs import NotFiniteError
from ResNeSt.score.ranking import softmax, top_k_predictions


@given(arrays(np.float32, (3, 9), elements=st.integers(-3, 3).map(float)), st.integers(1, 12))
def test_ranking_is_a_stable_sort_by_falling_logit(logits: np.ndarray, k: int) -> None:
    by_hand = [[label for _, label in sorted(zip((-row).tolist(), range(9)))][:k] for row in logits]
    ranked = top_k_predictions(logits, k)
    assert ranked.tolist() == by_hand
    assert ranked.dtype == np.int64


def test_five_classes_are_ranked_unless_asked_for_others_and_no_image_gives_no_rows() -> None:
    assert top_k_predictions(np.arange(8.0)[None]).tolist() == [[7, 6, 5, 4, 3]]
    assert top_k_predictions(np.zeros((0, 8))).shape == (0, 5)


def test_softmax_is_the_share_of_each_power_of_e() -> None:
    logits = [[0.5, -1.0, 2.0], [0.0, 0.0, math.log(2.0)]]
    shares = [[math.exp(value) / sum(map(math.exp, row)) for value in row] for row in logits]
    found = softmax(np.array(logits, np.float32))
    assert found.dtype == np.float64
    assert found == pytest.approx(np.array(shares), abs=1e-7)
    assert softmax(np.array(logits[1])) == pytest.approx([0.25, 0.25, 0.5])


def test_softmax_takes_logits_of_any_size() -> None:
    assert softmax(np.array([2000.0, 2000.0, -2000.0], np.float32)) == pytest.approx([0.5, 0.5, 0.0])


EXPECTED = np.array([[3.0, 4.0], [0.0, -8.0], [6.0, 1.0]], np.float32)
FOUND = np.array([[4.0, 3.0], [0.0, -5.0], [6.0, 3.0]], np.float32)


def test_agreement_is_what_a_pencil_gives() -> None:
    measured = agreement(["a", "b", "c"], FOUND, EXPECTED)
    assert (measured.images, measured.same_top1, measured.same_top5) == (3, 2, 3)
    assert measured.top1 == pytest.approx(2 / 3)
    assert measured.top5 == 1
    # differences 1, -1 | 0, 3 | 0, 2; expected logits 3, 4 | 0, -8 | 6, 1
    assert measured.squared_difference == pytest.approx(1 + 1 + 9 + 4)
    assert measured.squared_expected == pytest.approx(9 + 16 + 64 + 36 + 1)
    assert measured.distance == pytest.approx(math.sqrt(15 / 126))
    assert (measured.largest_difference, measured.largest_expected) == (3, 8)
    assert measured.difference == 3 / 8
    cosines = [24 / 25, 1.0, 39 / math.sqrt(45 * 37)]
    assert measured.cosine == pytest.approx(sum(cosines) / 3)
    assert measured.flips == (Flip("a", expected=1, found=0, expected_margin=1.0, found_margin=1.0),)


def test_margins_are_each_side_s_own_class_less_the_other_s() -> None:
    flip = agreement(["a"], np.array([[1.0, 9.0, 0.0]]), np.array([[5.0, 3.0, 1.0]])).flips[0]
    assert flip == Flip("a", expected=0, found=1, expected_margin=2.0, found_margin=8.0)


def test_a_difference_counts_whatever_its_sign() -> None:
    zeros, negative = np.zeros((1, 3)), np.array([[0.0, -7.0, 2.0]])
    assert agreement(["a"], negative, zeros).largest_difference == 7
    assert agreement(["a"], zeros, negative).largest_difference == 7
    assert agreement(["a"], negative, negative).largest_expected == 7


def test_the_five_best_agree_in_whatever_order_and_no_sixth() -> None:
    expected = np.array([[9.0, 8, 7, 6, 5, 4, 0]])
    assert agreement(["a"], np.array([[5.0, 6, 7, 8, 9, 4, 0]]), expected).same_top5 == 1
    assert agreement(["a"], np.array([[9.0, 8, 7, 6, 4, 5, 0]]), expected).same_top5 == 0
    swapped = agreement(["a"], expected, np.array([[9.0, 8, 7, 6, 4, 5, 0]]))
    assert swapped.same_top5 == 0
    assert Agreement(images=8, same_top5=6).top5 == 0.75


def test_an_image_of_zeros_has_no_direction_and_raises_nothing() -> None:
    zeros = agreement(["a"], np.zeros((1, 3)), np.zeros((1, 3)))
    assert (zeros.cosine, zeros.distance, zeros.difference, zeros.top1) == (0, 0, 0, 1)
    assert ratio(0.5, 0.0) == 0.5


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_no_numbers_agree_with_nothing(bad: float) -> None:
    broken = FOUND.copy()
    broken[2, 1] = bad
    for sides in ((broken, EXPECTED), (EXPECTED, broken)):
        with pytest.raises(NotFiniteError):
            agreement(["a", "b", "c"], *sides)


def test_of_no_image_all_figures_are_0_and_add_nothing() -> None:
    assert set(dataclasses.asdict(Agreement()).values()) == {0, ()}
    small = Agreement(images=1, cosines=0.5, largest_difference=0.25, largest_expected=0.5)
    assert Agreement() + small == small + Agreement() == small
    with pytest.raises(dataclasses.FrozenInstanceError):
        small.images = 2  # type: ignore[misc]


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_agreements_of_parts_add_up_to_that_of_the_whole(order: slice) -> None:
    random = np.random.default_rng(0)
    expected = random.standard_normal((20, 7)).astype(np.float32)
    found = expected + 0.5 * random.standard_normal((20, 7)).astype(np.float32)
    found[3, 2] += 4  # the largest of all lie in one part, be it first or last
    expected[3, 5] = -9
    names, expected, found = [f"img_{number}" for number in range(20)][order], expected[order], found[order]
    parts = [
        agreement(names[start : start + 6], found[start : start + 6], expected[start : start + 6])
        for start in range(0, 20, 6)
    ]
    whole, total = agreement(names, found, expected), sum(parts, Agreement())
    assert 0 < len(whole.flips) == 20 - whole.same_top1
    assert total.flips == whole.flips
    assert total.figures() == pytest.approx(whole.figures())
    assert whole.distance == pytest.approx(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    assert total.largest_expected == np.abs(expected).max()


def test_equal_logits_agree_and_of_equal_classes_the_lower_ranks_higher() -> None:
    logits = np.array([[3.0, 3.0, 1.0], [0.0, 2.0, 1.0]], np.float32)
    same = agreement(["a", "b"], logits, logits)
    assert (same.top1, same.top5, same.difference) == (1, 1, 0)
    assert same.cosine == pytest.approx(1)
    assert agreement(["a"], np.array([[2.0, 3.0, 1.0]]), logits[:1]).flips[0].expected_margin == 0


def test_figures_for_a_file_are_named_and_hold_no_flips() -> None:
    figures = agreement(["a", "b", "c"], FOUND, EXPECTED).figures()
    assert list(figures) == [
        *("images", "same_top1", "same_top5", "cosine", "distance", "largest_difference", "difference")
    ]
    assert (figures["images"], figures["same_top1"], figures["same_top5"]) == (3, 2, 3)
    assert (figures["largest_difference"], figures["difference"]) == (3, 3 / 8)


MEASURED = Agreement(images=8, same_top1=6, largest_difference=1.0, largest_expected=4.0)


@pytest.mark.parametrize(
    ("tolerance", "passes"),
    [
        (Tolerance(0.75), True),
        (Tolerance(0.7501), False),
        (Tolerance(0.75, 0.25), True),
        (Tolerance(0.5, 0.3), True),
        (Tolerance(0.75, 0.2499), False),
        (Tolerance(0.0, 0.0), False),
        (Tolerance(0.0), True),
    ],
)
def test_what_just_reaches_a_tolerance_is_within_it(tolerance: Tolerance, passes: bool) -> None:
    assert (tolerance.complaint(MEASURED) is None) == passes


def test_what_is_out_of_tolerance_is_said_in_figures() -> None:
    few, far = Tolerance(0.8, 0.1).complaint(MEASURED), Tolerance(0.75, 0.1).complaint(MEASURED)
    assert few == "the same top-1 for 75.00 % of 8 images, at least 80 % are expected"
    assert far == "differs by 2.5e-01 of the largest logit, at most 1.0e-01 is expected"


def test_a_figure_that_is_no_number_is_out_of_tolerance() -> None:
    unknown = Agreement(images=8, same_top1=8, largest_difference=math.nan, largest_expected=1.0)
    assert Tolerance(1.0, 0.5).complaint(unknown) is not None
    assert Tolerance(math.nan).complaint(MEASURED) is not None


def test_a_tolerance_is_told_to_compare_as_flags() -> None:
    assert Tolerance(0.99).flags() == ["--min-agreement=0.99"]
    assert Tolerance(0.5, 0.125).flags() == ["--min-agreement=0.5", "--max-difference=0.125"]
