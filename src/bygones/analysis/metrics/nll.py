"""Negative log-likelihood of the labels."""

from __future__ import annotations

import numpy as np

from bygones.analysis.metrics.base import UNBOUNDED, Metric, mean_over_inputs


def negative_log_likelihood(log_p: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Negative log-likelihood (cross-entropy) of the labels.

        mean over inputs of −log p_label, in nats

    `log_p`: log probabilities, (..., N, C); `labels`: (N,) -> (...,). From 0 upwards, less is
    better. Proper: least in expectation for the true probabilities. Good, Rational decisions,
    JRSS B 14 (1952), 107–114.

    >>> round(float(negative_log_likelihood(np.log([[0.5, 0.5]]), np.array([0]))), 6)  # ln 2
    0.693147
    """
    of_label = np.take_along_axis(log_p, _spread(labels, log_p), axis=-1)[..., 0]
    return mean_over_inputs(-of_label)


def _spread(labels: np.ndarray, log_p: np.ndarray) -> np.ndarray:
    return labels.reshape((1,) * (log_p.ndim - 2) + (labels.size, 1))


NLL = Metric(
    name="nll",
    kind="score",
    input_kind="log_probabilities",
    bounds=UNBOUNDED,
    unit="nats",
    function=negative_log_likelihood,
    label="negative log-likelihood",
)
