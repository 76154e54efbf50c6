"""Seeds planned against what simulated studies with so many then do; and what pairing is worth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats
from tests.helpers.synthetic import make_outcomes

from bygones.analysis.effects import all_effects, per_seed
from bygones.analysis.estimators import confidence_sequence, half_width_in_spreads, paired_t
from bygones.analysis.pairing import PairingGain, pairing_gains, price_of_pairing
from bygones.analysis.power import (
    detectable_effect,
    half_width,
    pairs_for_effect,
    pairs_for_half_width,
    power,
    seeds_needed,
    spread_of_pairs,
)
from bygones.analysis.statsmodels_bridge import power_of_t
from bygones.core.errors import DesignError

# ------------------------------------------------------------------ half-widths


@pytest.mark.parametrize("target", [0.1, 0.3, 0.9, 5.0, 20.0])
def test_the_fewest_pairs_that_are_narrow_enough(target):
    n = pairs_for_half_width(target, 1.0)
    assert half_width(n, 1.0) <= target
    assert n == 2 or half_width(n - 1, 1.0) > target


def test_half_width_is_that_of_paired_t():
    pairs = np.random.default_rng(0).normal(size=9)
    found = paired_t(pairs)
    assert half_width(9, pairs.std(ddof=1)) == pytest.approx(found.high - found.value)


@pytest.mark.parametrize(("assurance", "low", "high"), [(None, 0.4, 0.65), (0.8, 0.78, 0.9)])
def test_planned_studies_are_as_narrow_as_planned(assurance, low, high):
    n = pairs_for_half_width(0.4, 1.0, assurance=assurance)
    studies = np.random.default_rng(1).normal(size=(2_000, n))
    narrow = np.mean([paired_t(s).high - paired_t(s).value <= 0.4 for s in studies])
    assert low <= narrow <= high


def test_planning_for_a_confidence_sequence():
    n = pairs_for_half_width(0.4, 1.0, anytime=True)
    assert n > 2 * pairs_for_half_width(0.4, 1.0)  # the price of looking
    pairs = np.random.default_rng(2).normal(size=n)
    pairs = (pairs - pairs.mean()) / pairs.std(ddof=1)
    found, fewer = confidence_sequence(pairs), half_width_in_spreads(n - 1)
    assert found.high - found.value <= 0.4 < fewer * math.sqrt((n - 2) / (n - 1))


# ------------------------------------------------------------------ power


def noncentral(effect: float, n: int, alpha: float) -> float:
    """The power by integrating over the sample's spread, which statsmodels does not do."""
    t = stats.t.ppf(1 - alpha / 2, n - 1)

    def at(s):
        centre = math.sqrt(n) * effect
        told = stats.norm.cdf(centre - t * s) + stats.norm.cdf(-centre - t * s)
        return told * stats.chi.pdf(s * math.sqrt(n - 1), n - 1) * math.sqrt(n - 1)

    return integrate.quad(at, 0, 8, limit=200)[0]


@pytest.mark.parametrize(("effect", "n"), [(0.5, 8), (1.0, 5), (0.2, 40), (3.0, 3)])
def test_power_is_the_closed_form(effect, n):
    assert power(n, effect, 1.0) == pytest.approx(noncentral(effect, n, 0.05), abs=1e-6)
    assert power(n, -2 * effect, 2.0) == power(n, effect, 1.0)


def test_power_is_what_studies_have():
    for n, effect in ((8, 1.0), (16, 0.6)):
        studies = np.random.default_rng(n).normal(effect, 1.0, size=(4_000, n))
        told = np.mean([not paired_t(study).covers(0.0) for study in studies])
        assert told == pytest.approx(power(n, effect, 1.0), abs=0.025)
        # A normal quantile instead of t's would promise more than there is.
        naive = stats.norm.sf(1.96 - math.sqrt(n) * effect)
        assert naive - told > 0.04


@pytest.mark.parametrize("effect", [20.0, 30.0, 100.0, 1e6])
@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_power_far_from_zero_is_a_number(effect, n):
    # scipy's noncentral t gives NaN for some of these.
    assert power_of_t(effect, n, 0.05) == pytest.approx(noncentral(effect, n, 0.05), abs=1e-4)


@pytest.mark.parametrize("target", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("effect", [0.2, 1.0, 7.0, -1.0])
def test_pairs_for_an_effect_and_back(effect, target):
    n = pairs_for_effect(effect, 1.0, power=target)
    assert power(n, effect, 1.0) >= target
    assert n == 2 or power(n - 1, effect, 1.0) < target
    least = detectable_effect(n, 1.0, power=target)
    assert least <= abs(effect)
    assert power(n, least, 1.0) == pytest.approx(target, abs=1e-6)
    assert detectable_effect(n, 3.0, power=target) == pytest.approx(3.0 * least)


# ------------------------------------------------------------------ from a pilot


def test_a_pilots_variances_and_correlation_are_a_spread():
    rng = np.random.default_rng(3)
    control = rng.normal(size=500)
    treated = 0.9 * control + 0.3 * rng.normal(size=500)
    spread = spread_of_pairs(
        treated.std(ddof=1), control.std(ddof=1), np.corrcoef(treated, control)[0, 1]
    )
    assert spread == pytest.approx((treated - control).std(ddof=1))
    assert spread_of_pairs(1.0, 1.0, 1.0) == 0.0


def test_a_pilot_calls_for_seeds():
    pilot = np.random.default_rng(4).normal(0.1, 0.5, size=8)
    found = seeds_needed(pilot, half_width=0.1)
    assert found.num_pairs == pairs_for_half_width(0.1, pilot.std(ddof=1))
    assert found.cautious == pairs_for_half_width(0.1, found.spread_high)
    assert found.num_pairs < found.cautious
    assert seeds_needed(pilot, effect=0.2).num_pairs == pairs_for_effect(0.2, pilot.std(ddof=1))
    assert "effect of 0.2 with power 0.8" in str(seeds_needed(pilot, effect=0.2))


def test_the_cautious_spread_is_exceeded_once_in_five():
    pilots = np.random.default_rng(5).normal(size=(1_500, 6))
    below = np.mean([seeds_needed(p, half_width=1.0).spread_high >= 1.0 for p in pilots])
    assert below == pytest.approx(0.8, abs=0.04)


def test_degenerate_pilots():
    alike = seeds_needed([0.0, 0.0, 0.0], half_width=0.1)
    assert alike.num_pairs == 2
    assert "its spread is not known" in str(alike)
    assert "1 pilot pairs were not finite" in str(seeds_needed([0.1, 0.3, np.nan], effect=0.1))
    for pilot in ([], [1.0], [np.nan, 1.0]):
        with pytest.raises(DesignError, match="two finite pilot pairs"):
            seeds_needed(pilot, half_width=0.1)
    with pytest.raises(DesignError, match="give one of them"):
        seeds_needed([1.0, 2.0])
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(DesignError):
            pairs_for_half_width(wrong, 1.0)
    with pytest.raises(DesignError, match="effect has to be"):
        pairs_for_effect(0.0, 1.0)
    with pytest.raises(DesignError, match="more than 1,000,000"):
        pairs_for_half_width(1e-9, 1.0)
    assert (power(1, 1.0, 1.0), half_width(1, 1.0), detectable_effect(1, 1.0)) == (
        0,
        math.inf,
        math.inf,
    )
    assert (power(5, 1.0, 0.0), power(5, 0.0, 0.0)) == (1.0, 0.0)


# ------------------------------------------------------------------ what pairing is worth


@pytest.fixture(scope="module")
def outcomes():
    return make_outcomes(num_seeds=12)


def test_pairing_of_a_score_is_that_of_the_effect(outcomes):
    found = pairing_gains(outcomes, ["nll"], steps=[460])
    effects = all_effects(outcomes, ["nll"], steps=[460])
    assert [f.variance_ratio for f in found] == [e.variance_ratio for e in effects]
    assert found[0].pays
    assert "pairing by seed is worth" in str(found[0])


def test_pairing_of_a_distance_is_with_its_null(outcomes):
    (found,) = [f for f in pairing_gains(outcomes, ["tv"], steps=[460]) if f.arm == "reset-moments"]
    moved, kicked = (
        per_seed(outcomes, "tv", arm).sel(step=460).values
        for arm in ("reset-moments", "reset-moments-null")
    )
    assert found.correlation == pytest.approx(np.corrcoef(moved, kicked)[0, 1])
    ratio = (moved.var(ddof=1) + kicked.var(ddof=1)) / (moved - kicked).var(ddof=1)
    assert found.variance_ratio == pytest.approx(ratio)


def drifted(correlation: float, num_pairs: int = 16) -> PairingGain:
    """Two arms of variance 1: Var(unpaired)/Var(paired) is 1/(1 - correlation)."""
    return PairingGain("a", "nll", 100, num_pairs, correlation, 1.0 / (1.0 - correlation))


def test_a_warning_where_pairing_has_stopped_paying():
    assert drifted(0.95).pays
    assert "stopped paying" not in str(drifted(0.95))
    assert drifted(0.1).pays is False
    assert "only more seeds narrow this interval" in str(drifted(0.1))
    # 1/(1 - 0.3) = 1.43 is worth it at 16 pairs, and not at 4, where degrees of freedom are dear.
    assert drifted(0.3).pays
    assert drifted(0.3, num_pairs=4).pays is False


def test_the_price_of_pairing_is_where_the_intervals_are_as_long():
    for n in (4, 8, 16):
        paired = stats.t.ppf(0.975, n - 1) / math.sqrt(price_of_pairing(n))
        assert paired == pytest.approx(stats.t.ppf(0.975, 2 * n - 2))
    assert price_of_pairing(1) == math.inf


def test_where_nothing_varies_pairing_has_no_worth(outcomes):
    (found,) = [
        f for f in pairing_gains(outcomes, ["nll"], steps=[300]) if f.arm == "reset-moments"
    ]
    assert found.variance_ratio is None
    assert found.pays is None
    assert "cannot be told" in str(found)
    (one,) = [
        f for f in pairing_gains(outcomes.isel(seed=[0]), ["tv"], [600]) if f.arm == "swap-order"
    ]
    assert (one.num_pairs, one.variance_ratio) == (1, None)
