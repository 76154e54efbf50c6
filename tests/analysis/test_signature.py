"""Signatures: met, not met and cannot tell are told apart by intervals, and a shorter study cannot tell."""

from __future__ import annotations

import numpy as np
import pytest
from tests.helpers.synthetic import make_outcomes

from bygones.analysis.estimators import Estimate
from bygones.analysis.signature import (
    Signature,
    all_of,
    effect_at,
    is_above,
    is_below,
    is_share_above,
    score_per_seed,
    share_of,
)

PUBLISHED = Signature("a nudge grows", "it reaches another seed", "Somebody 2020")


def interval(low: float, high: float) -> Estimate:
    return Estimate(0.5 * (low + high), low, high, 0.95, 8, "paired t")


@pytest.mark.parametrize(("ends", "above"), [((1, 2), True), ((-2, -1), False), ((-1, 1), None)])
def test_an_interval_that_meets_the_bound_cannot_tell(ends, above):
    assert is_above(interval(*ends), 0.0) is above
    assert is_below(interval(*ends), 0.0) is (None if above is None else not above)
    assert is_above(interval(float("nan"), float("nan")), 0.0) is None


def test_a_share_is_above_below_or_cannot_be_told_by_its_interval_and_its_upper_limit():
    """Planted: BatchNorm's reset is large at the fork and gone after 300 steps; the order's grows."""
    outcomes = make_outcomes()
    assert is_share_above(effect_at(outcomes, "reset-batchnorm", 0), 0.01) is True
    assert is_share_above(effect_at(outcomes, "reset-batchnorm", 300), 0.01) is False
    order = effect_at(outcomes, "swap-order", 300)
    assert order.fraction is not None
    assert is_share_above(order, order.fraction.value) is None
    assert "%" in share_of(order)


def test_one_seed_has_no_share_and_tells_nothing():
    found = effect_at(make_outcomes(num_seeds=1), "reset-batchnorm", 0)
    assert share_of(found) == "no share"
    assert is_share_above(found, 0.01) is None


def test_a_signature_at_a_horizon_that_was_not_observed_cannot_be_told():
    outcomes = make_outcomes()
    assert PUBLISHED.unless_followed(outcomes, 0, 300) is None
    untold = PUBLISHED.unless_followed(outcomes, 0, 2000)
    assert untold is not None
    assert (untold.verdict, untold.met) == ("cannot tell", None)
    assert "not observed 2000 steps after the fork (the last time was 300)" in str(untold)


def test_all_parts_have_to_hold():
    assert all_of() is True
    assert all_of(True, None, False) is False


def test_a_score_is_that_of_the_arm_itself():
    """Not a difference: the control's accuracy plus the effect is the arm's."""
    outcomes = make_outcomes()
    levels = [
        score_per_seed(outcomes, arm, 0, "accuracy") for arm in ("control", "reset-batchnorm")
    ]
    effect = effect_at(outcomes, "reset-batchnorm", 0, "accuracy").estimate
    assert levels[0].shape == (8,)
    np.testing.assert_allclose(np.mean(levels[1] - levels[0]), effect.value)
