"""Hellinger distance between predicted class probabilities."""

from __future__ import annotations

import numpy as np

from bygones.analysis.metrics.base import Metric, mean_over_inputs


def hellinger_distance(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Hellinger distance: Euclidean distance of the square roots, so rare classes count.

        H(p, q) = 1/√2 · √(Σ_c (√p_c − √q_c)²), averaged over the inputs

    `p`, `q`: probabilities, (..., N, C) -> (...,). Within [0, 1]; symmetric. The 1/√2 is the usual
    constant that makes 1 the largest value; some leave it out, as Tsybakov, Introduction to
    Nonparametric Estimation (2009), section 2.4, does.

    >>> round(float(hellinger_distance(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))), 12)
    1.0
    """
    squared = 0.5 * ((np.sqrt(p) - np.sqrt(q)) ** 2).sum(axis=-1)
    return mean_over_inputs(np.sqrt(squared))


HELLINGER = Metric(
    name="hellinger",
    kind="distance",
    input_kind="probabilities",
    bounds=(0.0, 1.0),
    unit="Hellinger",
    function=hellinger_distance,
    label="Hellinger distance",
)
