"""Contrasts of arms: known answers, signs, the seed as the unit, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from scipy.special import softmax
from tests.helpers.synthetic import make_outcomes, planted

import bygones
from bygones.analysis.contrast import contrast
from bygones.analysis.effects import effect, per_seed
from bygones.analysis.estimators import by_skewness, sign_flip
from bygones.core.errors import DesignError, UnknownName

A, B, STEP = "reset-moments", "swap-order", 460


@pytest.fixture(scope="module")
def outcomes() -> xr.Dataset:
    return make_outcomes(num_seeds=9, num_inputs=32)


def probabilities_of(outcomes: xr.Dataset, arm: str) -> np.ndarray:
    return softmax(outcomes["logits"].sel(arm=arm, step=STEP).values.astype(float), axis=-1)


def test_a_contrast_against_the_control_is_the_effect(outcomes):
    found, wanted = contrast(outcomes, A, step=STEP), effect(outcomes, A, STEP)
    assert found.estimate == wanted.estimate
    assert (found.floor, found.ceiling) == (wanted.floor, wanted.ceiling)
    assert bygones.contrast is contrast


def test_a_distance_of_two_arms_is_that_of_their_predictions(outcomes):
    found = contrast(outcomes, A, B, step=STEP)
    apart = 0.5 * np.abs(probabilities_of(outcomes, A) - probabilities_of(outcomes, B)).sum(axis=-1)
    np.testing.assert_allclose(found.per_seed.values, apart.mean(axis=-1), rtol=1e-9)
    assert found.estimate == by_skewness(found.per_seed.values)
    assert not found.is_signed
    assert contrast(outcomes, B, A, step=STEP).estimate == found.estimate
    assert "are" in str(found)
    assert "the controls of two seeds" in str(found)


def test_a_score_is_signed_and_turns_with_the_arms(outcomes):
    one = contrast(outcomes, A, B, step=STEP, metric="nll")
    other = contrast(outcomes, B, A, step=STEP, metric="nll")
    assert one.estimate.value == -other.estimate.value != 0.0
    both = [per_seed(outcomes, "nll", arm).sel(step=STEP).values for arm in (A, B)]
    np.testing.assert_allclose(one.per_seed.values, both[0] - both[1], rtol=0, atol=1e-12)
    assert one.is_signed
    assert (one.floor, one.ceiling) == (None, None)


def test_a_difference_of_differences_has_the_planted_answer():
    values = make_outcomes(kind="values", num_seeds=9)
    found = contrast(values, (A, "control"), (B, "control"), step=STEP, metric="rms")
    place = values["step"].values.tolist().index(STEP)
    wanted = planted(A, 9)[:, place] - planted(B, 9)[:, place]
    np.testing.assert_allclose(found.per_seed.values, wanted, rtol=1e-9)
    assert found.estimate == by_skewness(found.per_seed.values)
    assert f"({A} against control) less ({B} against control)" in str(found)
    assert f"p = {found.estimate.p_value:.2g}" in str(found)
    turned = contrast(values, (B, "control"), (A, "control"), step=STEP, metric="rms")
    np.testing.assert_allclose(turned.per_seed.values, -wanted, rtol=1e-9)


def test_since_an_earlier_step_it_is_a_back_flow():
    values = make_outcomes(kind="values", num_seeds=9)
    found = contrast(values, (A, "control"), (B, "control"), step=600, since=310, metric="rms")
    at = {step: values["step"].values.tolist().index(step) for step in (310, 600)}
    grown = [planted(arm, 9)[:, at[600]] - planted(arm, 9)[:, at[310]] for arm in (A, B)]
    np.testing.assert_allclose(found.per_seed.values, grown[0] - grown[1], rtol=1e-8)
    alone = contrast(values, A, step=600, since=310, metric="rms")
    assert alone.is_signed
    np.testing.assert_allclose(alone.per_seed.values, grown[0], rtol=1e-8)
    assert "less the same at step 310" in str(alone)


def test_a_pair_that_diverged_is_left_out_and_counted(outcomes):
    broken = outcomes.copy(deep=True)
    broken["logits"].loc[{"arm": B, "seed": outcomes["seed"][2]}] = np.nan
    found = contrast(broken, A, B, step=STEP)
    assert (found.estimate.num_pairs, found.estimate.num_dropped) == (8, 1)
    assert np.isnan(found.per_seed.values).tolist() == [seed == 2 for seed in range(9)]
    assert "1 pair diverged and left out" in str(found)
    told = found.to_dict()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["per_seed"]["2"] is None


def test_any_estimator_of_pairs_may_be_asked(outcomes):
    found = contrast(outcomes, A, B, step=STEP, metric="nll", estimator=sign_flip)
    assert found.estimate == sign_flip(found.per_seed.values)


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ((A, A), DesignError, "compared with itself"),
        (("control", "control"), DesignError, "compared with itself"),
        (((A, "control"), (A, "control")), DesignError, "compared with itself"),
        (((A, A), (B, "control")), DesignError, "compared with itself"),
        ((A, (B, "control")), DesignError, "two arms, or of two pairs"),
        ((A, "nobody"), UnknownName, "nobody"),
    ],
)
def test_what_means_nothing_is_refused(outcomes, asked, error, words):
    with pytest.raises(error, match=words):
        contrast(outcomes, *asked, step=STEP)


def test_steps_have_to_be_there_and_in_their_order(outcomes):
    with pytest.raises(UnknownName):
        contrast(outcomes, A, step=461)
    with pytest.raises(DesignError, match="at a later step"):
        contrast(outcomes, A, step=310, since=460)
