"""How often the predicted class is right."""

from __future__ import annotations

import numpy as np

from bygones.analysis.metrics.base import Metric, mean_over_inputs, predicted


def accuracy_score(p: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Accuracy: the fraction of inputs whose predicted class is the labelled one.

        mean over inputs of [argmax p = label]

    `p`: probabilities, (..., N, C); `labels`: (N,) -> (...,). Within [0, 1], more is better.

    >>> float(accuracy_score(np.array([[0.6, 0.4], [0.3, 0.7]]), np.array([0, 0])))
    0.5
    """
    chosen, known = predicted(p)
    return mean_over_inputs(np.where(known, chosen == labels, np.nan))


ACCURACY = Metric(
    name="accuracy",
    kind="score",
    input_kind="probabilities",
    bounds=(0.0, 1.0),
    unit="percentage points",
    function=accuracy_score,
    label="accuracy",
    scale=100.0,
)
