"""Expected calibration error with bins of equal width."""

from __future__ import annotations

import numpy as np

from bygones.analysis.metrics.base import Metric, calibration_gap

NUM_BINS = 15


def expected_calibration_error(p: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Expected calibration error, 15 bins of equal width.

        Σ_b n_b/N · |accuracy_b − confidence_b|,  confidence = max_c p_c in (b/15, (b + 1)/15]

    `p`: probabilities, (..., N, C); `labels`: (N,) -> (...,). Within [0, 1], less is better, but
    not proper, and biased upwards with few inputs a bin. Guo et al., On calibration of modern
    neural networks, ICML 2017, section 2.

    >>> round(float(expected_calibration_error(np.array([[0.75, 0.25]] * 4), np.zeros(4, int))), 6)
    0.25
    """
    return calibration_gap(p, labels, _equal_width)


def _equal_width(confidence: np.ndarray) -> np.ndarray:
    # A confidence is above 0, so only the filler of an unknown prediction is below the first bin.
    return np.clip(np.ceil(confidence * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)


ECE = Metric(
    name="ece",
    kind="score",
    input_kind="probabilities",
    bounds=(0.0, 1.0),
    unit="ECE",
    function=expected_calibration_error,
    label="expected calibration error (equal width)",
)
