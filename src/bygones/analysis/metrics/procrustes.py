"""How far two representations are apart after the best rotation."""

from __future__ import annotations

import math

import numpy as np

from bygones.analysis.metrics.base import Metric, between_known, centred_unit


def procrustes_distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Orthogonal Procrustes: what is left between two representations after the best rotation.

        min over QᵀQ = 1 of ‖x̂ − ŷQ‖  =  √(2 − 2 ‖x̂ᵀŷ‖∗),   Q = UVᵀ where ŷᵀx̂ = USVᵀ

    x̂, ŷ: centred over the inputs and of Frobenius norm 1; ‖·‖∗: nuclear norm. `x`, `y`: values,
    (..., N, D) -> (...,). Within [0, √2]; a metric on representations up to orthogonal transforms,
    isotropic scaling and translation; changed by other linear maps. Biased upwards for noisy
    features with few inputs, as nothing in it corrects for chance: read it beside its null.

    Schönemann, A generalized solution of the orthogonal Procrustes problem, Psychometrika 31 (1966),
    1–10; Williams et al., Generalized shape metrics on neural representations, NeurIPS 2021 (the
    angle of which this is the chord); Ding et al., Grounding representation similarity with
    statistical testing, NeurIPS 2021 (its square).

    >>> x = np.array([[0.0, 1.0], [1.0, 0.0], [3.0, 2.0]])
    >>> turned = 5.0 * x @ np.array([[0.0, 1.0], [-1.0, 0.0]]) + 2.0
    >>> round(float(procrustes_distance(x, turned)), 12)
    0.0
    """
    return between_known(x, y, _residual)


def _residual(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    a, b = _narrow(centred_unit(x)), _narrow(centred_unit(y))
    u, _, vt = np.linalg.svd(np.swapaxes(b, -1, -2) @ a, full_matrices=False)
    # The rotated difference itself: √(2 − 2‖·‖∗) would lose everything below 1e-8 to cancellation.
    return np.sqrt(((a - b @ (u @ vt)) ** 2).sum(axis=(-2, -1)))


def _narrow(unit: np.ndarray) -> np.ndarray:
    """With more features than inputs, the same shape in N coordinates: x = RᵀQᵀ, and Q is a rotation."""
    if unit.shape[-1] <= unit.shape[-2]:
        return unit
    return np.swapaxes(np.linalg.qr(np.swapaxes(unit, -1, -2), mode="r"), -1, -2)


PROCRUSTES = Metric(
    name="procrustes",
    kind="distance",
    input_kind="values",
    bounds=(0.0, math.sqrt(2.0)),
    unit="Procrustes distance",
    function=procrustes_distance,
    label="orthogonal Procrustes distance",
)
