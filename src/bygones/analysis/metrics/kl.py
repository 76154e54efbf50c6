"""Kullback–Leibler divergence of the treated from the control predictions."""

from __future__ import annotations

import numpy as np

from bygones.analysis.metrics.base import UNBOUNDED, Metric, mean_over_inputs, not_negative


def kullback_leibler(log_p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    """Kullback–Leibler divergence: nats lost by coding treated predictions as if control.

        KL(p‖q) = Σ_c p_c (log p_c − log q_c), averaged over the inputs, in nats

    `log_p` (treated), `log_q` (control): log probabilities, (..., N, C) -> (...,). From 0 upwards;
    not symmetric. Log probabilities straight from the logits stay finite where a probability
    would have been rounded to zero. Kullback & Leibler, On information and sufficiency, Annals of
    Mathematical Statistics 22 (1951), 79–86.

    >>> p, q = np.array([[0.5, 0.5]]), np.array([[0.25, 0.75]])
    >>> round(float(kullback_leibler(np.log(p), np.log(q))), 6)
    0.143841
    """
    per_input = (np.exp(log_p) * (log_p - log_q)).sum(axis=-1)
    return not_negative(mean_over_inputs(per_input))


KL = Metric(
    name="kl",
    kind="distance",
    input_kind="log_probabilities",
    bounds=UNBOUNDED,
    unit="nats KL",
    function=kullback_leibler,
    label="Kullback–Leibler divergence",
    symmetric=False,
)
