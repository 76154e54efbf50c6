"""Two-phase sampling: a cheap prediction of every cell, true effects at a few, and an honest interval.

    estimate = w·P̄ + (1/n)·Σ (y_i − w·p_i)          P̄: mean of the prediction over all N cells
    Var      = σ²·[(1 − ρ²)/n + ρ²/N]               at the best weight w = Cov(y, p)/Var(p)

y_i: the true effect at n cells drawn at random, with replacement; p_i: the prediction there; ρ: the
correlation of the two, σ²: the variance of y. This is the difference estimator of survey sampling (Cochran,
Sampling Techniques, 1977, chapter 12). Each cell's weight is fitted to the others, so the estimate is
unbiased whatever the prediction is worth; a useless one costs little, for then w is near 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from bygones.analysis.estimators import Estimate, by_skewness
from bygones.analysis.estimators.base import estimate_from_t
from bygones.core.errors import DesignError

_METHOD = "two-phase difference estimator"
FEWEST = 4  # true effects


@dataclass(frozen=True)
class TwoPhase:
    """A mean over all cells from few true effects; `str` is a sentence.

    `weight`: w. `correlation`: ρ between prediction and effect. `gain`: how many times as many true effects
    the plain mean would need for the same variance.
    """

    estimate: Estimate
    plain: Estimate
    weight: float
    correlation: float
    gain: float
    num_measured: int
    num_predicted: int

    def __str__(self) -> str:
        return (
            f"mean over {self.num_predicted:,} predicted cells: {self.estimate} from {self.num_measured} "
            f"measured ones ({self.estimate.method}, weight {self.weight:.2f}, correlation "
            f"{self.correlation:.2f}); measured ones alone {self.plain}, which would have "
            f"needed {self.gain:.1f} times as many"
        )


def two_phase(
    measured: ArrayLike, predicted: ArrayLike, everywhere: ArrayLike, *, level: float = 0.95
) -> TwoPhase:
    """Estimate the mean effect over all cells, each cell independent of the others.

    `measured`, `predicted` (n,): true effects and predictions at cells drawn at random, with replacement.
    `everywhere` (N,): the predictions at all cells. The interval is Student's, with n − 2 degrees of freedom.
    Raises `DesignError` for fewer than four measured cells.

    >>> rng = np.random.default_rng(0)
    >>> p = rng.standard_normal(2000)
    >>> y = 3 + p + 0.1 * rng.standard_normal(2000)
    >>> drawn = rng.integers(0, 2000, 40)
    >>> found = two_phase(y[drawn], p[drawn], p)
    >>> found.estimate.covers(y.mean()), found.gain > 20
    (True, True)
    """
    y, p, all_p = (
        np.asarray(values, dtype=np.float64) for values in (measured, predicted, everywhere)
    )
    _check(y, p)
    n = y.size
    weights = _weights_without_each(y, p)
    residuals = y - weights * (p - all_p.mean())
    weight = float(np.mean(weights))
    variance = float(residuals.var(ddof=1)) / n + weight**2 * float(all_p.var(ddof=1)) / all_p.size
    estimate = estimate_from_t(
        float(residuals.mean()),
        math.sqrt(variance),
        n - 2,
        level=level,
        num_pairs=n,
        num_dropped=0,
        method=_METHOD,
    )
    plain = by_skewness(y, level=level)
    return _result(estimate, plain, weight, y, p, all_p.size, float(y.var(ddof=1)) / n / variance)


def two_phase_over_seeds(
    measured: list[np.ndarray],
    predicted: list[np.ndarray],
    everywhere: ArrayLike,
    *,
    level: float = 0.95,
) -> TwoPhase:
    """Estimate the mean effect over all cells of a grid that several seeds have; the seed is the unit.

        m_s = w₋ₛ·P̄_s + mean over the cells measured in s of (y − w₋ₛ·p)        interval over seeds of m_s

    `measured`, `predicted`: by seed, true effects and predictions at its cells (at least one each).
    `everywhere` [seeds, N]: each seed's predictions. w₋ₛ is fitted to the other seeds. Raises `DesignError`
    below two seeds.
    """
    if len(measured) < 2:
        raise DesignError(
            f"a two-phase estimate over seeds takes its weights from other seeds, so it needs two or more; "
            f"got {len(measured)}. Use two_phase for the cells of one run."
        )
    grid = np.asarray(everywhere, dtype=np.float64)
    _check(np.concatenate(measured), np.concatenate(predicted))
    weights = [
        _weight(
            np.concatenate([one for k, one in enumerate(measured) if k != s]),
            np.concatenate([one for k, one in enumerate(predicted) if k != s]),
        )
        for s in range(len(measured))
    ]
    means = np.array(
        [
            w * grid[s].mean() + np.mean(measured[s] - w * predicted[s])
            for s, w in enumerate(weights)
        ]
    )
    plain = by_skewness([float(np.mean(one)) for one in measured], level=level)
    estimate = by_skewness(means, level=level)
    gain = math.nan
    if plain.error and estimate.error:
        gain = (plain.error / estimate.error) ** 2
    y, p = np.concatenate(measured), np.concatenate(predicted)
    return _result(estimate, plain, float(np.mean(weights)), y, p, grid.size, gain)


def _check(y: np.ndarray, p: np.ndarray) -> None:
    if y.shape != p.shape or y.ndim != 1 or y.size < FEWEST:
        raise DesignError(
            f"a two-phase estimate takes one prediction for each measured effect, and {FEWEST} of them or "
            f"more; got shapes {list(y.shape)} and {list(p.shape)}."
        )


def _result(
    estimate: Estimate,
    plain: Estimate,
    weight: float,
    y: np.ndarray,
    p: np.ndarray,
    num_predicted: int,
    gain: float,
) -> TwoPhase:
    varies = np.ptp(y) > 0 and np.ptp(p) > 0
    correlation = float(np.corrcoef(y, p)[0, 1]) if varies else math.nan
    return TwoPhase(estimate, plain, weight, correlation, gain, y.size, num_predicted)


def _weight(y: np.ndarray, p: np.ndarray) -> float:
    """Return Cov(y, p)/Var(p); 0 where the prediction is the same everywhere."""
    spread = float(((p - p.mean()) ** 2).sum())
    return float(((p - p.mean()) * (y - y.mean())).sum()) / spread if spread > 0 else 0.0


def _weights_without_each(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Return, for each cell, the weight fitted to all others: (n,)."""
    n, y, p = y.size, y - y.mean(), p - p.mean()
    # Leaving one of n out of centred sums takes n/(n − 1) times its own product off them.
    factor = n / (n - 1)
    spread = float((p**2).sum()) - factor * p**2
    shared = float((p * y).sum()) - factor * p * y
    varies = spread > 1e-12 * float((p**2).sum())
    return np.where(varies, shared / np.where(varies, spread, 1.0), 0.0)


def rank_correlation(measured: ArrayLike, predicted: ArrayLike) -> float:
    """Return Spearman's rank correlation; NaN where one of the two is the same everywhere."""
    y, p = np.asarray(measured, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if y.size < 3 or np.ptp(y) == 0 or np.ptp(p) == 0:
        return math.nan
    return float(stats.spearmanr(y, p).statistic)
