"""Every estimator, same behaviours: does the interval cover what it says it covers?

Shapes: S simulated studies, R seed pairs.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from functools import partial

import numpy as np
import pytest
from scipy import special

from bygones.errors import UnknownName
from bygones.estimators import (
    ESTIMATORS,
    Estimate,
    bootstrap_bca,
    jackknife,
    mean_over_pairs,
    paired_t,
)

every_estimator = pytest.mark.parametrize(
    "estimator", list(ESTIMATORS.values()), ids=list(ESTIMATORS)
)
PAIRS = np.random.default_rng(0).normal(0.3, 1.0, size=12)


# ------------------------------------------------------------------ coverage


def coverage(estimator, studies: np.ndarray, truth: float) -> float:
    """The share of simulated studies, (S, R), whose interval holds the truth."""
    return float(np.mean([estimator(study).covers(truth) for study in studies]))


def normal_studies(num_studies: int, num_pairs: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(2.0, 3.0, size=(num_studies, num_pairs))


# What each promises: pairs a study, studies, and the band its 95% interval has to cover in.
# The bootstrap is known to be short at few pairs; its band says so rather than hiding it.
PROMISED = {
    "paired_t": [(8, 10_000, 0.94, 0.96), (3, 10_000, 0.94, 0.96)],
    "bootstrap_bca": [(8, 600, 0.83, 0.93), (40, 600, 0.91, 0.97)],
    "jackknife": [(8, 10_000, 0.94, 0.96)],
}
QUICK = {"bootstrap_bca": partial(bootstrap_bca, num_resamples=999)}


@pytest.mark.parametrize(
    ("name", "num_pairs", "num_studies", "low", "high"),
    [(name, *row) for name, rows in PROMISED.items() for row in rows],
)
def test_interval_covers_as_promised(name, num_pairs, num_studies, low, high):
    estimator = QUICK.get(name, ESTIMATORS[name])
    assert low <= coverage(estimator, normal_studies(num_studies, num_pairs), 2.0) <= high


def test_every_estimator_promises_something():
    assert set(PROMISED) == set(ESTIMATORS)


def _interval(value, half):
    return Estimate(value, value - half, value + half, 0.95, 0, "deliberately wrong")


def normal_instead_of_t(study):
    return _interval(study.mean(), 1.959964 * study.std(ddof=1) / math.sqrt(study.size))


def below_the_line_n(study):
    t = special.stdtrit(study.size - 1, 0.975)
    return _interval(study.mean(), t * study.std(ddof=0) / math.sqrt(study.size))


def variance_of_one_pair(study):
    return _interval(study.mean(), special.stdtrit(study.size - 1, 0.975) * study.std(ddof=1))


@pytest.mark.parametrize(
    "wrong", [normal_instead_of_t, below_the_line_n, variance_of_one_pair], ids=lambda f: f.__name__
)
def test_the_same_harness_catches_a_wrong_variance(wrong):
    # At 8 pairs √(7/8) is a small mistake: 3 pairs are among the promises because they show it.
    kept = [
        low <= coverage(wrong, normal_studies(num_studies, num_pairs), 2.0) <= high
        for num_pairs, num_studies, low, high in PROMISED["paired_t"]
    ]
    assert not all(kept)


# ------------------------------------------------------------------ the same behaviours


@every_estimator
def test_value_is_the_mean_and_lies_inside(estimator):
    found = estimator(PAIRS)
    assert found.value == pytest.approx(PAIRS.mean(), rel=1e-12)
    assert found.low < found.value < found.high
    assert (found.num_pairs, found.num_dropped, found.level, found.note) == (12, 0, 0.95, "")
    assert found.method


@every_estimator
def test_more_confidence_is_wider(estimator):
    found = [estimator(PAIRS, level=level) for level in (0.5, 0.9, 0.99)]
    widths = [estimate.high - estimate.low for estimate in found]
    assert widths[0] < widths[1] < widths[2]


@every_estimator
def test_moves_and_stretches_with_the_numbers(estimator):
    plain, changed = estimator(PAIRS), estimator(10.0 + 0.5 * PAIRS)
    assert changed.value == pytest.approx(10.0 + 0.5 * plain.value)
    assert _ends(changed) == pytest.approx([10.0 + 0.5 * end for end in _ends(plain)])


@every_estimator
def test_what_is_not_finite_is_left_out_and_counted(estimator):
    holed = np.concatenate([[np.nan], PAIRS, [np.inf, -np.inf]])
    found, plain = estimator(holed), estimator(PAIRS)
    assert (found.num_pairs, found.num_dropped) == (12, 3)
    assert (found.value, *_ends(found)) == (plain.value, *_ends(plain))


@every_estimator
@pytest.mark.parametrize("pairs", [[], [np.nan], [0.5], [0.5, np.nan]], ids=str)
def test_fewer_than_two_pairs_have_no_interval(estimator, pairs):
    found = estimator(np.array(pairs))
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert "fewer than 2" in found.note
    assert str(found).endswith("[no 95% CI]")
    assert found.value == 0.5 if 0.5 in pairs else math.isnan(found.value)


@every_estimator
@pytest.mark.parametrize("number", [0.0, 0.1, -7.25])
def test_pairs_all_alike_have_an_interval_without_width(estimator, number):
    found = estimator(np.full(6, number))
    assert found.low == found.value == found.high == pytest.approx(number, rel=1e-15, abs=0.0)
    assert "same number" in found.note


@every_estimator
@pytest.mark.parametrize(
    "pairs",
    [[0, 1], [0, 0, 0, 0, 0, 1], [1, 1, 1, 1 + 3e-16], [0, 0, 0, 1e-200], [1e-12, 3e-12, 2e-12]],
    ids=str,
)
def test_small_and_tied_samples_raise_no_warning(estimator, pairs):
    found = estimator(np.array(pairs, dtype=float))
    assert found.low <= found.value <= found.high


@every_estimator
def test_a_list_will_do_and_is_left_alone(estimator):
    pairs = [0.1, 0.4, 0.2]
    assert estimator(pairs) == estimator(np.array(pairs))
    assert pairs == [0.1, 0.4, 0.2]


@every_estimator
def test_same_twice_and_no_global_randomness(estimator):
    np.random.seed(7)
    before = np.random.get_state(legacy=False)["state"]["key"].copy()
    first = estimator(PAIRS)
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], before)
    np.random.seed(8)
    assert estimator(PAIRS) == first


def test_the_seed_of_the_bootstrap_is_its_seed():
    assert bootstrap_bca(PAIRS, seed=1) == bootstrap_bca(PAIRS, seed=1)
    assert bootstrap_bca(PAIRS, seed=1) != bootstrap_bca(PAIRS, seed=2)


def test_bootstrap_is_bias_corrected_and_accelerated():
    # BCa written out once more, with other resamples; the plain percentile interval is not near.
    skewed = np.random.default_rng(3).exponential(size=40) ** 2
    rng = np.random.default_rng(4)
    means = skewed[rng.integers(40, size=(40_000, 40))].mean(axis=1)
    z0 = special.ndtri(np.mean(means < skewed.mean()))
    u = skewed - skewed.mean()
    a = np.sum(u**3) / (6.0 * np.sum(u**2) ** 1.5)
    z = z0 + special.ndtri([0.025, 0.975])
    ends = np.quantile(means, special.ndtr(z0 + z / (1.0 - a * z)))
    found = bootstrap_bca(skewed)
    assert _ends(found) == pytest.approx(ends, rel=0.03)
    assert np.quantile(means, 0.975) < 0.94 * found.high


# ------------------------------------------------------------------ the jackknife of a functional


def test_jackknife_of_the_mean_is_paired_t():
    found, other = jackknife(PAIRS), paired_t(PAIRS)
    assert (found.value, *_ends(found)) == pytest.approx((other.value, *_ends(other)), rel=1e-9)


def differences_between(seeds: np.ndarray) -> np.ndarray:
    """Gini's mean difference is the U-statistic of this matrix, (R,) -> (R, R)."""
    return np.abs(seeds[:, None] - seeds[None, :])


def _variance(found: Estimate) -> float:
    return ((found.high - found.low) / 2 / special.stdtrit(found.num_pairs - 1, 0.975)) ** 2


def _pairs_taken_for_independent(between: np.ndarray) -> float:
    upper = between[np.triu_indices(len(between), 1)]
    return upper.var(ddof=1) / upper.size


def test_jackknife_variance_of_a_u_statistic_is_the_simulated_one():
    rng = np.random.default_rng(5)
    matrices = [differences_between(rng.standard_normal(16)) for _ in range(2_000)]
    found = [jackknife(matrix, statistic=mean_over_pairs) for matrix in matrices]
    values = np.array([estimate.value for estimate in found])
    assert values.mean() == pytest.approx(2.0 / math.sqrt(math.pi), abs=0.01)  # known: 2/√π
    ratio = np.mean([_variance(estimate) for estimate in found]) / values.var(ddof=1)
    assert 0.95 <= ratio <= 1.2  # never short: Efron & Stein
    assert 0.90 <= np.mean([e.covers(2.0 / math.sqrt(math.pi)) for e in found]) <= 0.97
    # The mistake this is there to prevent, under the same test.
    naive = np.mean([_pairs_taken_for_independent(matrix) for matrix in matrices])
    assert naive / values.var(ddof=1) < 0.6


def test_jackknife_variance_of_a_ratio_is_the_simulated_one():
    rng = np.random.default_rng(6)

    def ratio(top, bottom):
        return top.mean() / bottom.mean()

    def study():
        shared = rng.standard_normal(20)
        return 1.0 + 0.2 * shared, 3.0 + 0.3 * shared + 0.3 * rng.standard_normal(20)

    found = [jackknife(*study(), statistic=ratio) for _ in range(1_500)]
    values = np.array([estimate.value for estimate in found])
    assert np.mean([_variance(e) for e in found]) / values.var(ddof=1) == pytest.approx(1, abs=0.12)
    assert 0.93 <= np.mean([e.covers(1.0 / 3.0) for e in found]) <= 0.97


def test_leaving_out_a_seed_takes_its_row_and_its_column():
    between = differences_between(np.array([0.0, 1.0, 3.0, 7.0]))
    seen = []

    def statistic(numbers, matrix):
        seen.append((numbers.tolist(), matrix.copy()))
        return numbers.mean() + mean_over_pairs(matrix)

    jackknife(np.arange(4.0), between, statistic=statistic)
    kept = [[0, 1, 2, 3], [1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]
    assert [numbers for numbers, _ in seen] == kept
    for seeds, (_, matrix) in zip(kept, seen, strict=True):
        assert np.array_equal(matrix, between[np.ix_(seeds, seeds)])


def test_a_diverged_seed_leaves_every_array():
    numbers, between = np.arange(5.0), differences_between(np.arange(5.0) ** 2)
    between[2, :] = between[:, 2] = np.nan
    numbers[4] = np.nan

    def statistic(x, d):
        return x.mean() + mean_over_pairs(d)

    found = jackknife(numbers, between, statistic=statistic)
    kept = np.ix_([0, 1, 3], [0, 1, 3])
    plain = jackknife(numbers[[0, 1, 3]], between[kept], statistic=statistic)
    assert (found.value, *_ends(found)) == (plain.value, *_ends(plain))
    assert (found.num_pairs, found.num_dropped) == (3, 2)


# ------------------------------------------------------------------ how an estimate reads


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((0.0081, 0.0075, 0.0087), "0.0081 [95% CI 0.0075, 0.0087]"),
        ((0.343123, 0.339123, 0.347123), "0.343 [95% CI 0.339, 0.347]"),
        ((-0.0412, -0.0532, -0.0292), "-0.041 [95% CI -0.053, -0.029]"),
        ((0.0, 0.0, 0.0), "0 [95% CI 0, 0]"),
        ((0.0, -0.002, 0.002), "0.0000 [95% CI -0.0020, 0.0020]"),
        ((1234.5, 1199.5, 1269.5), "1234 [95% CI 1200, 1270]"),
        ((12345.0, 11345.0, 13345.0), "12300 [95% CI 11300, 13300]"),
        ((3.21e-9, 3.01e-9, 3.41e-9), "3.21e-09 [95% CI 3.01e-09, 3.41e-09]"),
        ((0.5, math.nan, math.nan), "0.500 [no 95% CI]"),
        ((math.nan, math.nan, math.nan), "not a number [no 95% CI]"),
    ],
)
def test_an_estimate_is_written_to_the_digits_of_its_interval(numbers, text):
    assert str(Estimate(*numbers, level=0.95, num_pairs=8, method="paired t")) == text


def test_an_estimate_in_other_units():
    found = paired_t(PAIRS).scaled(100.0)
    plain = paired_t(100.0 * PAIRS)
    assert (found.value, *_ends(found)) == pytest.approx((plain.value, *_ends(plain)))
    assert (found.num_pairs, found.method) == (plain.num_pairs, plain.method)


@every_estimator
def test_an_estimate_is_plain_numbers(estimator):
    json.dumps(asdict(estimator(PAIRS)))


def test_a_near_miss_is_answered():
    with pytest.raises(UnknownName, match="no estimator called 'pairedt'; did you mean 'paired_t'"):
        ESTIMATORS["pairedt"]


def _ends(found: Estimate) -> list[float]:
    return [found.low, found.high]
