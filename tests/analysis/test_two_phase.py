"""The two-phase estimate is unbiased whatever the prediction, covers, and gains what its formula says."""

import numpy as np
import pytest

from bygones.analysis.two_phase import rank_correlation, two_phase, two_phase_over_seeds
from bygones.core.errors import DesignError

NUM_CELLS, NUM_STUDIES = 2000, 1000


def simulated(rho: float, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Estimates, whether intervals cover, and gains of studies; rho: of prediction and effect."""
    rng = np.random.default_rng(5)
    values, covered, gains = np.empty((3, NUM_STUDIES))
    for study in range(NUM_STUDIES):
        p = rng.standard_normal(NUM_CELLS)
        y = 1.0 + rho * p + np.sqrt(1 - rho**2) * rng.standard_normal(NUM_CELLS)
        drawn = rng.integers(0, NUM_CELLS, n)
        found = two_phase(y[drawn], 7.0 - 3.0 * p[drawn], 7.0 - 3.0 * p)
        values[study], covered[study], gains[study] = (
            found.estimate.value,
            found.estimate.covers(1.0),
            found.gain,
        )
    return values, covered, gains


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.98])
def test_coverage_bias_and_variance(rho: float) -> None:
    n = 16
    values, covered, _ = simulated(rho, n)
    error = 1 / np.sqrt(NUM_STUDIES)
    variance = (1 - rho**2) / n + rho**2 / NUM_CELLS
    assert abs(values.mean() - 1.0) < 4 * error * values.std()
    assert 0.93 < covered.mean() < 0.975
    # The fitted weight costs a share of 1/n or so, and its spread a little more.
    assert 0.9 * variance < values.var() < 1.3 * variance


def test_the_gain_is_that_of_the_formula():
    rho, n = 0.985, 40
    _, _, gains = simulated(rho, n)
    formula = 1 / ((1 - rho**2) + rho**2 * n / NUM_CELLS)
    assert np.median(gains) == pytest.approx(formula, rel=0.1)


def test_seeds_are_the_unit():
    rng = np.random.default_rng(2)
    hits, values = [], []
    for _ in range(200):
        own = rng.standard_normal((8, 1))  # what the cells of a seed share
        p = own + rng.standard_normal((8, 100))
        y = 1.0 + 0.9 * p + 0.2 * rng.standard_normal((8, 100))
        drawn = rng.integers(0, 100, (8, 6))
        measured = [y[s, drawn[s]] for s in range(8)]
        found = two_phase_over_seeds(measured, [p[s, drawn[s]] for s in range(8)], p)
        hits.append(found.estimate.covers(1.0))
        values.append(found.estimate.value)
        assert found.estimate.num_pairs == 8
        assert "from 48 measured ones" in str(found)
    assert 0.9 < np.mean(hits) < 0.99
    assert abs(np.mean(values) - 1.0) < 4 * np.std(values) / 14


def test_a_prediction_that_is_the_same_everywhere_leaves_the_plain_mean():
    y = np.array([1.0, 2.0, 4.0, 5.0])
    found = two_phase(y, np.ones(4), np.ones(100))
    assert found.weight == 0.0
    assert found.estimate.value == found.plain.value == 3.0
    assert np.isnan(found.correlation)


def test_too_few_are_refused():
    with pytest.raises(DesignError, match="4 of them or more"):
        two_phase([1.0, 2.0], [1.0, 2.0], np.ones(9))


def test_one_seed_alone_has_no_weight_from_others():
    with pytest.raises(DesignError, match="two or more; got 1"):
        two_phase_over_seeds([np.ones(5)], [np.arange(5.0)], np.ones((1, 20)))


def test_ranks():
    assert rank_correlation([1, 2, 3, 9], [0, 1, 10, 11]) == pytest.approx(1.0)
    assert np.isnan(rank_correlation([1, 1, 1], [0, 1, 2]))
