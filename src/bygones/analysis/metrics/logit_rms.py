"""Root mean square difference of the logits, where the softmax can see it."""

from __future__ import annotations

import numpy as np

from bygones.analysis.metrics.base import UNBOUNDED, Metric


def logit_root_mean_square(z: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Root mean square difference of centred logits.

        √(mean over inputs and classes of (z̃ − w̃)²),  z̃_c = z_c − mean over c' of z_c'

    `z`, `w`: logits, (..., N, C) -> (...,). From 0 upwards; symmetric. Centring takes out the one
    direction that no probability depends on. Does not saturate where probabilities do.

    >>> float(logit_root_mean_square(np.array([[1.0, 3.0]]), np.array([[7.0, 7.0]])))
    1.0
    """
    difference = z - w
    centred = difference - difference.mean(axis=-1, keepdims=True)
    return np.sqrt((centred**2).mean(axis=(-2, -1)))


LOGIT_RMS = Metric(
    name="logit_rms",
    kind="distance",
    input_kind="logits",
    bounds=UNBOUNDED,
    unit="logit RMS",
    function=logit_root_mean_square,
    label="RMS of centred logits",
)
