"""Numbers within the resolution of the arithmetic are called that, and are no finding."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import xarray as xr
from tests.helpers.synthetic import make_outcomes

from bygones.analysis.effect import Effect
from bygones.analysis.effects import all_effects, effect
from bygones.analysis.estimators import Estimate
from bygones.analysis.metrics import METRICS
from bygones.analysis.multiplicity import adjust, family_of
from bygones.analysis.resolution import UNITS, resolution
from bygones.publish.report import write_report
from bygones.publish.verdicts import format_effect_share, format_share, readings

EPS = float(np.finfo(np.float32).eps)


def rounded_only(dtype: type[np.floating] = np.float32) -> xr.Dataset:
    """Outcomes in which every run of every seed is the same function, but for the last bit."""
    whole = make_outcomes(num_seeds=8, num_inputs=32)
    same = whole["logits"].values[:1, :1].astype(np.float64)
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, size=whole["logits"].shape)
    outputs = (same * (1.0 + EPS * noise)).astype(dtype)
    sham = whole["arm"].values.tolist().index("sham")
    outputs[:, sham] = outputs[:, 0]
    return whole.assign(logits=(whole["logits"].dims, outputs))


def test_the_resolution_of_two_classes_is_that_of_its_formula():
    z = np.array([[[3.0, -1.0], [0.5, 0.2]]], dtype=np.float32)
    step = UNITS * EPS * np.array([3.0, 0.5])
    exact = 1.0 / (1.0 + np.exp(-(z[0, :, 0] - z[0, :, 1]).astype(float)))
    moved = 1.0 / (1.0 + np.exp(-((z[0, :, 0] - z[0, :, 1]).astype(float) + 2 * step)))
    found = resolution(z, METRICS["tv"], None)
    assert found == pytest.approx(np.mean(np.abs(moved - exact)), rel=1e-3)
    assert found is not None
    assert 1e-9 < found < 1e-6


def test_it_is_that_of_the_observed_type():
    z = np.random.default_rng(0).standard_normal((3, 10, 4))
    single, double = (
        resolution(z.astype(t), METRICS["rms"], None) for t in (np.float32, np.float64)
    )
    assert single is not None
    assert double is not None
    assert single / double == pytest.approx(2.0**29, rel=0.01)
    assert resolution(np.ones((2, 3, 4), dtype=np.int64), METRICS["rms"], None) is None
    assert resolution(np.full((2, 3, 4), np.nan), METRICS["rms"], None) is None


@pytest.fixture(scope="module")
def rounding() -> list[Effect]:
    return all_effects(rounded_only(), ["tv", "nll"])


def test_rounding_has_no_share_and_is_told_from_nothing(rounding):
    for found in rounding:
        assert found.is_rounding, found.estimate
        assert found.beyond_floor is False
        assert found.beyond_null is False
        assert found.fraction is None
        assert "within the resolution of the arithmetic" in str(found)
        assert "of which this is" not in str(found)
        if found.metric == "tv":
            assert "so there is no share of it" in str(found)


def test_rounding_is_no_finding_of_a_family_and_has_a_verdict_of_its_own(rounding):
    headline = [found for found in rounding if found.metric == "tv"]
    adjusted = adjust(headline, family_of(headline))
    assert not adjusted.found
    notes = {one.note for one in adjusted.comparisons}
    assert notes == {"within the resolution of the arithmetic"}
    assert {reading.kind for reading in readings(headline, "tv")} == {"rounding"}
    assert format_effect_share(headline[0]) == "within rounding"


def test_the_page_of_such_a_study_gives_no_percentage(tmp_path):
    page = write_report(rounded_only(), tmp_path).read_text()
    answer = page.split('<dl class="summary">')[1].split("</section>")[0]
    assert "Within the resolution of the arithmetic" in answer
    assert "another seed changes no more than the resolution of the arithmetic" in answer
    assert "% [" not in answer


def test_the_same_numbers_observed_in_double_precision_are_real():
    found = effect(rounded_only(np.float64), "reset-moments", 600)
    assert not found.is_rounding
    assert found.fraction is not None


def test_an_effect_that_has_decayed_to_rounding_is_gone_and_not_a_share():
    found = all_effects(make_outcomes(), ["tv"])
    decayed = [e for e in found if e.arm == "reset-batchnorm" and e.horizon == 160]
    assert decayed[0].is_rounding
    assert "of which this is" not in str(decayed[0])
    (reading,) = [r for r in readings(found, "tv") if r.arm == "reset-batchnorm"]
    assert reading.kind == "gone"


# ------------------------------------------------------------------ large shares


def test_shares_above_ten_are_factors():
    outcomes = make_outcomes(kind="values")
    control = outcomes["values"].sel(arm="control")
    far = control + 500.0 * (outcomes["values"] - control)
    outcomes["values"] = far.transpose(*outcomes["values"].dims)
    found = effect(outcomes, "reset-moments", 460, "rms")
    assert found.fraction is not None
    assert found.fraction.value > 10.0
    assert f"of which this is {found.fraction.number} times [95% CI" in str(found)
    assert "×" in format_share(found.fraction)
    assert "%" not in format_share(found.fraction)
    assert math.isfinite(found.fraction.high)


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (Estimate(0.007, 0.0001, 40.0, 0.95, 4, "jackknife"), "0.7% [95% CI 0.01%, 40 times]"),
        (Estimate(2.83, 0.3, 50.0, 0.95, 4, "jackknife"), "280% [95% CI 30%, 50 times]"),
    ],
)
def test_a_small_share_with_a_high_end_keeps_its_digits(share: Estimate, said: str):
    """Rounded to the width of its interval, 0.7% was printed as "0 times"."""
    found = effect(make_outcomes(kind="values"), "reset-moments", 460, "rms")
    assert f"of which this is {said}" in str(dataclasses.replace(found, fraction=share))
