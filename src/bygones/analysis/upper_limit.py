"""Upper confidence limit for the mean of a distance: what a claim that there is none is judged by.

Distances of few seeds are skewed: most samples miss the large ones, so that mean and spread are too small
together, and an ordinary limit is too low too often. The limit is the larger of two:

    Student    mean + t · s/√n
    lognormal  exp(ȳ + v/2 + √(t² v/n + (v/2 · ((n − 1)/χ² − 1))²))

y: logarithms of the distances, ȳ and v their mean and variance; t: the upper quantile of Student's t, χ²: the
lower one of chi-squared, both with n − 1 degrees of freedom. The second is near its level for lognormal
distances and careful for others that are less skewed: Zou, Taleban & Huo, Confidence interval estimation for
lognormal data with application to health economics, Comput. Stat. Data Anal. 53 (2009), 3755–3764. The error
rate of claims by it is measured in docs/coverage.md. Below three distances there is no limit.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from bygones.analysis.estimators.base import finite_pairs, standard_error

FEWEST = 3  # pairs with which something can be claimed
_SMALLEST_P = 1e-12


def upper_limit(distances: ArrayLike, *, level: float = 0.975) -> float:
    """Return the upper confidence limit for the mean of distances, (R,); infinite below three of them.

    Numbers that are not finite are left out. Distances of exactly 0 count as the smallest one above 0 in
    the lognormal limit, and as 0 in the other.

    >>> round(upper_limit([0.9, 1.1, 1.0, 1.2, 1.05, 0.95]), 2)
    1.16
    """
    kept, _ = finite_pairs(distances)
    n = kept.size
    if n < FEWEST:
        return math.inf
    if np.all(kept == kept[0]):
        return float(kept[0])
    mean, error = float(kept.mean()), standard_error(kept)
    t = float(special.stdtrit(n - 1, level))
    in_logs = _limit_in_logs(*_of_logs(kept), n, 1.0 - level)
    lognormal = math.exp(in_logs) if in_logs < 700.0 else math.inf
    return max(mean + t * error, lognormal)


def p_value_below(distances: ArrayLike, bound: float) -> float:
    """Return the one-sided p-value against a mean of `bound` or more.

    At most 1 − level exactly where `upper_limit` is at most the bound. 1 below three
    distances. Distances all alike have no spread to test with: 2^−n if they are below.

    >>> round(p_value_below([0.9, 1.1, 1.0, 1.2, 1.05, 0.95], 1.5), 5)
    0.00033
    """
    kept, _ = finite_pairs(distances)
    n = kept.size
    if n < FEWEST or not kept.mean() < bound:
        return 1.0
    if np.all(kept == kept[0]):
        return 0.5**n
    t = (float(kept.mean()) - bound) / standard_error(kept)
    return max(float(special.stdtr(n - 1, t)), _p_lognormal(kept, bound))


def _of_logs(kept: np.ndarray) -> tuple[float, float]:
    """Return the mean and the variance of the logarithms."""
    logs = np.log(np.maximum(kept, kept[kept > 0.0].min()))
    return float(logs.mean()), float(logs.var(ddof=1))


def _limit_in_logs(mean: float, variance: float, n: int, alpha: float) -> float:
    t = float(special.stdtrit(n - 1, 1.0 - alpha))
    chi = float(
        special.chdtri(n - 1, 1.0 - alpha)
    )  # the lower quantile: chdtri takes the upper tail
    of_variance = 0.5 * variance * ((n - 1) / chi - 1.0)
    return mean + 0.5 * variance + math.hypot(t * math.sqrt(variance / n), of_variance)


def _p_lognormal(kept: np.ndarray, bound: float) -> float:
    """Return the alpha at which the lognormal limit is the bound."""
    mean, variance = _of_logs(kept)

    def surplus(alpha: float) -> float:
        return _limit_in_logs(mean, variance, kept.size, alpha) - math.log(bound)

    if surplus(0.5) > 0.0:
        return 1.0
    if surplus(_SMALLEST_P) <= 0.0:
        return _SMALLEST_P
    root = optimize.brentq(
        lambda power: surplus(math.exp(power)), math.log(_SMALLEST_P), math.log(0.5)
    )
    return math.exp(float(root))
