"""Total variation distance between predicted class probabilities."""

from __future__ import annotations

import numpy as np

from bygones.analysis.metrics.base import Metric, mean_over_inputs


def total_variation(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Total variation: the probability that has to be moved to make one prediction the other.

        TV(p, q) = 1/2 Σ_c |p_c − q_c|, averaged over the inputs

    `p`, `q`: probabilities, (..., N, C) -> (...,). Within [0, 1]; symmetric.
    Levin & Peres, Markov Chains and Mixing Times, 2nd ed. (2017), section 4.1.

    >>> float(total_variation(np.array([[0.5, 0.5]]), np.array([[0.75, 0.25]])))
    0.25
    """
    return mean_over_inputs(0.5 * np.abs(p - q).sum(axis=-1))


TV = Metric(
    name="tv",
    kind="distance",
    input_kind="probabilities",
    bounds=(0.0, 1.0),
    unit="TV",
    function=total_variation,
    label="total variation",
)
