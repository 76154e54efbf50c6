"""Root mean square difference of plain numbers."""

from __future__ import annotations

import numpy as np

from bygones.analysis.metrics.base import UNBOUNDED, Metric


def root_mean_square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Root mean square difference, for runs whose function is a plain number.

        √(mean over inputs and outputs of (x − y)²)

    `x`, `y`: values, (..., N, C) -> (...,), in the unit of the values. From 0 upwards; symmetric.

    >>> float(root_mean_square(np.array([[0.0], [0.0]]), np.array([[3.0], [3.0]])))
    3.0
    """
    return np.sqrt(((x - y) ** 2).mean(axis=(-2, -1)))


RMS = Metric(
    name="rms",
    kind="distance",
    input_kind="values",
    bounds=UNBOUNDED,
    unit="RMS",
    function=root_mean_square,
    label="RMS difference",
)
