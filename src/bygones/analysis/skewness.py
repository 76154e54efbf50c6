"""Skewness of a few pairs, and how much longer it makes an interval towards their tail.

    g = √(n(n−1))/(n−2) · m₃/m₂^1.5              sample skewness; m_k: k-th central moment
    λ(t) = 1 + 0.57 · min(n/8, (8/n)^1.15) · |g| t    where |g| > 0.3, else 1

Right-skewed pairs are mostly below their mean, and few of them seldom show how skewed they are (8 lognormal
ones of skewness 6.2 show 1.3 in the middle), so that mean and spread are too small together. Skewness
corrections of Student's t move its ends by about g(2t² + 1)/(6√n) standard errors (Johnson, Modified t tests
and confidence intervals for asymmetrical populations, JASA 73 (1978), 536–544). This has their form, in g and
t, and is larger: the constants are chosen by simulation, for 8 to 32 pairs, and tested by another
(docs/coverage.md); below 8, where g says little, it is eased out.
"""

from __future__ import annotations

import math

import numpy as np

SKEWED_FROM = 0.3  # |g| from which pairs are treated as skewed: declared, not chosen after a look


def sample_skewness(kept: np.ndarray) -> float:
    """Return the sample skewness of three or more pairs that are not all alike.

    >>> round(sample_skewness(np.array([1.0, 1.0, 1.0, 5.0])), 2)
    2.0
    """
    n = kept.size
    centred = (kept - kept.mean()) / float(np.ptp(kept))
    m2, m3 = (float((centred**power).mean()) for power in (2, 3))
    return math.sqrt(n * (n - 1)) / (n - 2) * m3 / m2**1.5


def lengthening(t: float, skewness: float, num_pairs: int) -> float:
    """Return λ(t): the factor by which the end of an interval of ± t errors is moved out towards the tail.

    >>> [round(lengthening(2.0, 1.0, n), 2) for n in (5, 8, 16, 32)], lengthening(2.0, 0.2, 8)
    ([1.71, 2.14, 1.51, 1.23], 1.0)
    """
    return 1.0 + _slope(skewness, num_pairs) * t


def undone(distance: float, skewness: float, num_pairs: int) -> float:
    """Return the t with t · λ(t) = distance: the t that an end at this many errors corresponds to.

    >>> round(undone(2.0 * lengthening(2.0, 1.0, 8), 1.0, 8), 12)
    2.0
    """
    slope = _slope(skewness, num_pairs)
    # The root of slope t² + t = distance, in the form that loses no digits and overflows to infinity.
    return 2.0 * distance / (1.0 + math.sqrt(1.0 + 4.0 * slope * distance))


def _slope(skewness: float, num_pairs: int) -> float:
    if abs(skewness) <= SKEWED_FROM:
        return 0.0
    return 0.57 * min(num_pairs / 8.0, (8.0 / num_pairs) ** 1.15) * abs(skewness)
