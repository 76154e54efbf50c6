"""Skewed pairs: the default interval, the share on the log scale, and claims of absence.

Shapes: S simulated studies, R seed pairs.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from benchmarks.made_up_studies import Cell, measure_cell
from scipy import special, stats

from bygones.analysis.equivalence import tost
from bygones.analysis.estimators import (
    by_skewness,
    confidence_sequence,
    jackknife,
    mean_over_pairs,
    paired_t,
)
from bygones.analysis.share import ON_THE_LOG_SCALE, share_limit, share_of_ceiling
from bygones.analysis.skewness import lengthening, sample_skewness, undone
from bygones.analysis.upper_limit import p_value_below, upper_limit

SKEWED = np.random.default_rng(0).lognormal(0.0, 1.0, size=8)
EVEN = np.array([0.9, 1.1, 1.0, 1.2, 0.8, 1.0])


# ------------------------------------------------------------------ one interval


def test_the_skewness_is_the_adjusted_one_of_scipy():
    assert sample_skewness(SKEWED) == pytest.approx(stats.skew(SKEWED, bias=False))
    assert sample_skewness(1e-200 * SKEWED) == pytest.approx(stats.skew(SKEWED, bias=False))


def test_pairs_that_are_not_skewed_take_students_interval():
    found, student = by_skewness(EVEN), paired_t(EVEN)
    assert (found.low, found.high, found.p_value) == (student.low, student.high, student.p_value)
    assert found.method == "paired t"
    assert found.skewness == pytest.approx(0.0, abs=1e-12)


def test_the_end_towards_the_tail_is_moved_out_and_the_other_stays():
    found, student = by_skewness(SKEWED), paired_t(SKEWED)
    t = float(special.stdtrit(7, 0.975))
    by_hand = 1.0 + 0.57 * float(stats.skew(SKEWED, bias=False)) * t
    assert found.method == "skewness-corrected t"
    assert found.low == student.low
    assert found.high - found.value == pytest.approx(by_hand * (student.high - student.value))
    turned = by_skewness(-SKEWED)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))


@pytest.mark.parametrize("distance", [0.0, 0.3, 2.0, 40.0])
def test_a_lengthening_is_undone(distance):
    for skewness, n in ((1.5, 8), (-0.7, 20), (0.1, 5)):
        t = undone(distance, skewness, n)
        assert t * lengthening(t, skewness, n) == pytest.approx(distance)


def test_two_pairs_have_no_skewness():
    assert by_skewness([1.0, 3.0]) == paired_t([1.0, 3.0])


# ------------------------------------------------------------------ the share


def between(num_seeds: int, seed: int = 1) -> np.ndarray:
    outputs = np.random.default_rng(seed).standard_normal((num_seeds, 20))
    return np.sqrt(np.mean((outputs[:, None] - outputs[None]) ** 2, axis=-1))


def test_a_skewed_share_is_taken_on_the_log_scale():
    apart = between(8)
    found = share_of_ceiling(SKEWED, apart)
    assert found.method == ON_THE_LOG_SCALE
    assert found.value == pytest.approx(SKEWED.mean() / mean_over_pairs(apart))
    assert 0.0 < found.low < found.value < found.high

    def log_ratio(seeds):
        return math.log(SKEWED[seeds].mean() / mean_over_pairs(apart[np.ix_(seeds, seeds)]))

    without = np.array([log_ratio([t for t in range(8) if t != s]) for s in range(8)])
    pseudo = math.log(found.value) - 7 * (without - without.mean())
    by_hand = by_skewness(pseudo)
    assert (found.low, found.high) == pytest.approx((math.exp(by_hand.low), math.exp(by_hand.high)))


def test_a_share_that_is_not_skewed_takes_the_jackknife():
    moved, apart = (
        EVEN,
        1.0 - np.eye(6),
    )  # every two seeds equally far apart: the effect's own skewness
    found = share_of_ceiling(moved, apart)
    plain = share_of_ceiling(moved, apart, None)
    assert found.skewness == pytest.approx(0.0, abs=1e-9)
    assert (found.method, found.low) == ("jackknife", pytest.approx(plain.low))


def test_the_interval_of_a_stopped_study_is_that_of_the_confidence_sequence():
    found = jackknife(EVEN, interval=confidence_sequence)
    direct = confidence_sequence(EVEN)
    assert (found.low, found.high) == pytest.approx((direct.low, direct.high))
    assert found.method == "anytime-valid jackknife"


def test_the_limit_of_a_share_knows_the_errors_of_both():
    apart = between(8)
    share = share_of_ceiling(SKEWED, apart)
    ceiling = jackknife(apart, statistic=mean_over_pairs)
    limit = share_limit(SKEWED, apart, share, ceiling)
    known = share_limit(SKEWED, np.full((8, 8), ceiling.value), share, ceiling)
    assert limit >= share.high
    assert limit == known  # the error of the ceiling is in `ceiling`
    assert ceiling.error is not None
    by_hand = math.hypot(
        math.log(upper_limit(SKEWED) / SKEWED.mean()),
        special.stdtrit(7, 0.975) * ceiling.error / ceiling.value,
    )
    assert limit == pytest.approx(share.value * math.exp(by_hand))
    assert share_limit(np.zeros(8), apart, share_of_ceiling(np.zeros(8), apart), ceiling) == 0.0


# ------------------------------------------------------------------ upper limits and their tests


def test_the_lognormal_limit_is_that_of_its_formula():
    logs = np.log(SKEWED)
    v = logs.var(ddof=1)
    t, chi = stats.t.ppf(0.975, 7), stats.chi2.ppf(0.025, 7)
    by_hand = logs.mean() + v / 2 + math.sqrt(t**2 * v / 8 + (v / 2 * (7 / chi - 1)) ** 2)
    assert upper_limit(SKEWED) == pytest.approx(math.exp(by_hand))
    assert upper_limit(SKEWED) > paired_t(SKEWED).high


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("pairs", [SKEWED, EVEN, np.append(SKEWED, 0.0)], ids=["8", "6", "with 0"])
def test_a_p_value_says_what_the_limit_says(alpha, pairs):
    limit = upper_limit(pairs, level=1.0 - alpha)
    assert p_value_below(pairs, limit) == pytest.approx(alpha, rel=1e-6)
    assert p_value_below(pairs, 1.001 * limit) < alpha < p_value_below(pairs, 0.999 * limit)


def test_where_there_is_no_limit():
    assert upper_limit([1.0, 2.0]) == math.inf
    assert p_value_below([1.0, 2.0], 1e9) == 1.0
    assert (upper_limit([2.0] * 4), p_value_below([2.0] * 4, 3.0)) == (2.0, 0.5**4)
    assert upper_limit([0.0, 1e-300, 1.0]) == math.inf  # spread over hundreds of powers of ten
    assert upper_limit([*SKEWED.tolist(), math.nan]) == upper_limit(SKEWED)


def test_equivalence_of_two_distances_cannot_be_told():
    found = tost([0.1, 0.11], 5.0, distances=True)
    assert str(found) == "cannot tell whether it is within ±5: needs 3 pairs, has 2 seed pairs"
    assert not found.equivalent
    assert tost([0.1, 0.11], 5.0).equivalent  # as signed numbers they are


def test_the_interval_of_a_distance_lies_within_the_margin_where_it_is_equivalent():
    for margin in (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0, 20.0):
        found = tost(SKEWED, margin, distances=True)
        assert found.equivalent is (found.estimate.high < margin)
    assert "one-sided test for distances" in str(tost(SKEWED, 20.0, distances=True))


def test_equivalence_after_early_stopping_is_as_wide_as_the_sequence():
    pairs = np.random.default_rng(5).normal(0.0, 1.0, size=12)
    fixed, anytime = (tost(pairs, 1.0, anytime=stopped) for stopped in (False, True))
    assert fixed.equivalent
    assert anytime.p_value > fixed.p_value
    assert anytime.estimate == confidence_sequence(pairs, level=0.9)


# ------------------------------------------------------------------ whole studies, made up


@cache
def cell(kind: str) -> Cell:
    return measure_cell(kind, 8, 400)


@pytest.mark.parametrize("kind", ["normal", pytest.param("lognormal 0.5", marks=pytest.mark.long)])
@pytest.mark.parametrize("name", ["effect", "excess", "share", "ceiling"])
def test_intervals_cover(kind, name):
    assert 0.93 - 0.026 <= cell(kind).rates[name] <= 0.97 + 0.018  # two standard errors of 400


@pytest.mark.parametrize("kind", ["normal", "lognormal 0.5"])
def test_claims_of_absence_are_wrong_as_seldom_as_asked(kind):
    rates = cell(kind).rates
    assert rates["washout"] <= 0.025 + 0.016
    assert rates["equivalence"] <= 0.05 + 0.022
    assert rates["Holm"] <= 0.05 + 0.022


def test_the_same_harness_catches_the_claims_without_limits():
    assert cell("normal").rates["washout, ceiling taken as known"] > 0.025 + 0.016
    assert cell("lognormal 0.5").rates["equivalence, by t"] > 0.05 + 0.022
