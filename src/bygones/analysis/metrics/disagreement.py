"""How often two functions predict another class."""

from __future__ import annotations

import numpy as np

from bygones.analysis.metrics.base import Metric, mean_over_inputs, predicted


def disagreement_rate(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Disagreement (churn): the fraction of inputs whose predicted class is another one.

        D(p, q) = mean over inputs of [argmax p ≠ argmax q]

    `p`, `q`: probabilities, (..., N, C) -> (...,). Within [0, 1]; symmetric. Blind to any change
    that crosses no decision border. Milani Fard et al., Launch and iterate: reducing prediction
    churn, NeurIPS 2016.

    >>> float(disagreement_rate(np.array([[0.6, 0.4], [0.1, 0.9]]), np.array([[0.3, 0.7]] * 2)))
    0.5
    """
    (class_p, known_p), (class_q, known_q) = predicted(p), predicted(q)
    differs = np.where(known_p & known_q, class_p != class_q, np.nan)
    return mean_over_inputs(differs)


DISAGREEMENT = Metric(
    name="disagreement",
    kind="distance",
    input_kind="probabilities",
    bounds=(0.0, 1.0),
    unit="disagreement",
    function=disagreement_rate,
    label="disagreement (churn)",
)
