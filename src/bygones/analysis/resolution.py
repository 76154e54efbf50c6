"""Resolution of the arithmetic: how far rounding of the observed outputs alone moves a metric.

    resolution = mean_s D(f̃_s, f_s),  f̃ = f ± 2 · eps · max_c |f|      or mean_s |Y(f̃_s) − Y(f_s)| of a score

f_s: what the control of seed s outputs, (N, C); eps: that of the type in which it was observed (1.2e-7 for
float32); the maximum is over the outputs of one input, since an output is a sum of terms of about that size;
twice, since two runs are compared and each is rounded. Deep networks round away more, so that this is a lower
bound. A number within it cannot be told from rounding, whatever its interval says.
"""

from __future__ import annotations

import numpy as np

from bygones.analysis.metrics import Metric
from bygones.analysis.predictions import Predictions

UNITS = 2


def resolution(outputs: np.ndarray, metric: Metric, labels: np.ndarray | None) -> float | None:
    """Return how far rounding moves a metric, from the controls' outputs as observed, (R, N, C).

    The larger one of two patterns of signs. None where no seed's output is finite, or is no float.
    """
    if not np.issubdtype(outputs.dtype, np.floating):
        return None
    f = outputs.astype(np.float64)
    step = UNITS * float(np.finfo(outputs.dtype).eps) * np.abs(f).max(axis=-1, keepdims=True)
    exact = Predictions(f)[metric.input_kind]
    found: list[float] = []
    for signs in _signs(*f.shape[1:]):
        rounded = Predictions(f + step * signs)[metric.input_kind]
        if metric.kind == "distance":
            moved = metric(rounded, exact)
        else:
            assert labels is not None  # a score without labels is refused before
            moved = np.abs(metric(rounded, labels) - metric(exact, labels))
        found += [float(np.mean(moved[np.isfinite(moved)]))] if np.isfinite(moved).any() else []
    return max(found, default=None)


def _signs(num_inputs: int, num_outputs: int) -> list[np.ndarray]:
    """Signs that alternate over the outputs, (N, C): the same for every input, and turned for every other."""
    by_output = np.where(np.arange(num_outputs) % 2, -1.0, 1.0)
    by_input = np.where(np.arange(num_inputs) % 2, -1.0, 1.0)
    return [np.tile(by_output, (num_inputs, 1)), by_input[:, None] * by_output]
