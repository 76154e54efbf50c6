"""That nothing happened can be a finding: planted nulls pass, planted effects do not."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats
from tests.helpers.synthetic import make_outcomes

from bygones.analysis.equivalence import equivalent_effect, tost
from bygones.analysis.estimators import paired_t
from bygones.core.errors import DesignError

PAIRS = np.random.default_rng(0).normal(0.02, 0.1, size=16)


# ------------------------------------------------------------------ the two tests


def test_both_p_values_are_those_of_one_sided_t_tests():
    found = tost(PAIRS, 0.08)
    above: Any = stats.ttest_1samp(PAIRS, -0.08, alternative="greater")
    below: Any = stats.ttest_1samp(PAIRS, 0.08, alternative="less")
    assert found.p_lower == pytest.approx(above.pvalue)
    assert found.p_upper == pytest.approx(below.pvalue)
    assert found.p_value == max(found.p_lower, found.p_upper)


@pytest.mark.parametrize("margin", [0.01, 0.03, 0.05, 0.06, 0.07, 0.08, 0.1, 0.3])
@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1])
def test_equivalent_is_the_interval_inside_the_margin(margin, alpha):
    found = tost(PAIRS, margin, alpha=alpha)
    inside = -margin < found.estimate.low and found.estimate.high < margin
    assert found.equivalent is inside
    assert found.estimate == paired_t(PAIRS, level=1 - 2 * alpha)


def share_called_equivalent(effect: float, margin: float, num_pairs: int, seed: int) -> float:
    rng = np.random.default_rng(seed)
    studies = rng.normal(effect, 1.0, size=(2_000, num_pairs))
    return float(np.mean([tost(study, margin).equivalent for study in studies]))


def test_an_effect_of_the_margin_is_called_equivalent_in_one_of_twenty():
    assert 0.035 <= share_called_equivalent(1.0, 1.0, 16, seed=1) <= 0.065
    assert 0.035 <= share_called_equivalent(-1.0, 1.0, 16, seed=2) <= 0.065


def test_no_effect_is_called_equivalent_and_including_zero_would_not_do():
    assert share_called_equivalent(0.0, 1.0, 16, seed=3) > 0.95
    # With 5 pairs an interval that includes 0 is no finding: an effect of the margin has it often.
    studies = np.random.default_rng(4).normal(1.0, 1.0, size=(1_000, 5))
    assert np.mean([paired_t(study).covers(0.0) for study in studies]) > 0.4
    assert share_called_equivalent(1.0, 1.0, 5, seed=4) < 0.065


# ------------------------------------------------------------------ planted in outcomes


def test_a_planted_null_passes_and_a_planted_effect_does_not():
    outcomes = make_outcomes(num_seeds=16)
    null = equivalent_effect(outcomes, "swap-order", 600, 0.005, "logit_rms", over_null=True)
    assert null.equivalent
    assert str(null).startswith("equivalent within ±0.005")
    moved = equivalent_effect(outcomes, "reset-moments", 460, 0.005, "logit_rms", over_null=True)
    assert not moved.equivalent
    assert str(moved).startswith("not shown to be within ±0.005")
    assert moved.p_lower < 1e-6  # above -margin it is, without doubt
    assert moved.p_upper > 0.99


def test_the_sham_passes_whatever_the_margin_if_there_are_pairs_enough():
    sham = equivalent_effect(make_outcomes(num_seeds=8), "sham", 600, 1e-9, "tv")
    assert sham.equivalent
    assert sham.p_value == 0.5**8
    assert not equivalent_effect(make_outcomes(num_seeds=4), "sham", 600, 1e-9, "tv").equivalent


def test_a_distance_and_a_score_have_their_own_readings():
    outcomes = make_outcomes(num_seeds=16)
    assert equivalent_effect(outcomes, "reset-moments", 300, 1e-6, "tv").equivalent
    assert equivalent_effect(outcomes, "reset-moments", 460, 0.05, "accuracy").equivalent
    assert not equivalent_effect(outcomes, "reset-batchnorm", 301, 0.01, "nll").equivalent


# ------------------------------------------------------------------ degenerate


@pytest.mark.parametrize("pairs", [[], [0.0], [np.nan, 0.0], [np.nan, np.inf]], ids=str)
def test_too_few_pairs_show_nothing(pairs):
    found = tost(pairs, 1.0)
    assert (found.p_value, found.equivalent) == (1.0, False)
    assert str(found).startswith("cannot tell whether it is within ±1: needs 2 pairs, has ")
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("number", "shown"), [(0.0, True), (0.5, True), (1.0, False), (-2.0, False)]
)
def test_pairs_all_alike(number, shown):
    found = tost(np.full(6, number), 1.0)
    assert found.equivalent is shown
    assert found.p_value == (0.5**6 if shown else 1.0)


def test_diverged_pairs_are_left_out_and_said():
    found = tost([*PAIRS, np.nan, np.inf], 0.08)
    assert found.p_value == tost(PAIRS, 0.08).p_value
    assert "2 not finite and left out" in str(found)


def test_tiny_numbers_are_numbers():
    found, tiny = tost(PAIRS, 0.08), tost(1e-200 * PAIRS, 0.08e-200)
    assert tiny.p_value == pytest.approx(found.p_value)


@pytest.mark.parametrize("margin", [0.0, -1.0, math.nan, math.inf])
def test_a_margin_has_to_be_one(margin):
    with pytest.raises(DesignError, match="margin of equivalence"):
        tost(PAIRS, margin)


def test_what_does_not_exist_is_answered():
    outcomes = make_outcomes()
    with pytest.raises(DesignError, match="no matched null"):
        equivalent_effect(outcomes, "sham", 600, 0.1, over_null=True)
    with pytest.raises(DesignError, match="at step 7"):
        equivalent_effect(outcomes, "sham", 7, 0.1)
