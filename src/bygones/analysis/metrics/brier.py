"""Brier score of the predicted probabilities."""

from __future__ import annotations

import numpy as np

from bygones.analysis.metrics.base import Metric, mean_over_inputs


def brier_score(p: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Brier score: squared distance of the probabilities from the labels.

        mean over inputs of Σ_c (p_c − [c = label])²

    `p`: probabilities, (..., N, C); `labels`: (N,) -> (...,). Within [0, 2] (Brier's own sum over
    all classes; halved or one-class versions exist), less is better. Proper. Brier, Verification
    of forecasts expressed in terms of probability, Monthly Weather Review 78 (1950), 1–3.

    >>> float(brier_score(np.array([[0.5, 0.5]]), np.array([0])))
    0.5
    """
    truth = np.eye(p.shape[-1])[labels]
    return mean_over_inputs(((p - truth) ** 2).sum(axis=-1))


BRIER = Metric(
    name="brier",
    kind="score",
    input_kind="probabilities",
    bounds=(0.0, 2.0),
    unit="Brier",
    function=brier_score,
    label="Brier score",
)
