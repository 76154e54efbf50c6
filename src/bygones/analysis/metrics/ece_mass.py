"""Expected calibration error with bins of equal mass."""

from __future__ import annotations

import numpy as np

from bygones.analysis.metrics.base import Metric, calibration_gap

NUM_BINS = 15


def expected_calibration_error_mass(p: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Expected calibration error, 15 bins with equally many inputs (up to one).

        Σ_b n_b/N · |accuracy_b − confidence_b|,  b = ⌊15 · rank of max_c p_c / N⌋

    `p`: probabilities, (..., N, C); `labels`: (N,) -> (...,). Within [0, 1], less is better. No bin
    is empty or starved, which equal widths cannot promise for confident networks; inputs of equal
    confidence are ranked in the order given. Nguyen & O'Connor, Posterior calibration and
    exploratory analysis for NLP models, EMNLP 2015 (adaptive binning).

    >>> p = np.array([[0.75, 0.25]] * 4)
    >>> round(float(expected_calibration_error_mass(p, np.zeros(4, int))), 6)
    0.25
    """
    return calibration_gap(p, labels, _equal_mass)


def _equal_mass(confidence: np.ndarray) -> np.ndarray:
    order = confidence.argsort(axis=-1, kind="stable")
    rank = order.argsort(axis=-1, kind="stable")
    return rank * NUM_BINS // confidence.shape[-1]


ECE_MASS = Metric(
    name="ece_mass",
    kind="score",
    input_kind="probabilities",
    bounds=(0.0, 1.0),
    unit="ECE",
    function=expected_calibration_error_mass,
    label="expected calibration error (equal mass)",
)
