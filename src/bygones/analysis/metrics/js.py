"""Jensen–Shannon divergence between predicted class probabilities."""

from __future__ import annotations

import math

import numpy as np
import scipy  # loads `special` when it is used, which takes longer than all else here

from bygones.analysis.metrics.base import Metric, mean_over_inputs, not_negative


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Jensen–Shannon divergence: how much one prediction tells which of the two made it.

        JS(p, q) = 1/2 KL(p‖m) + 1/2 KL(q‖m),  m = (p + q)/2, averaged over the inputs, in nats

    `p`, `q`: probabilities, (..., N, C) -> (...,). Within [0, ln 2]; symmetric. Its square root is
    a metric, the divergence itself is not. Lin, Divergence measures based on the Shannon entropy,
    IEEE Transactions on Information Theory 37 (1991), 145–151.

    >>> round(float(jensen_shannon(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))), 6)  # ln 2
    0.693147
    """
    m = 0.5 * (p + q)
    per_input = 0.5 * (scipy.special.rel_entr(p, m) + scipy.special.rel_entr(q, m)).sum(axis=-1)
    return not_negative(mean_over_inputs(per_input))


JS = Metric(
    name="js",
    kind="distance",
    input_kind="probabilities",
    bounds=(0.0, math.log(2.0)),
    unit="nats JS",
    function=jensen_shannon,
    label="Jensen–Shannon divergence",
)
