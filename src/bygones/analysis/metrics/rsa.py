"""One minus the correlation of two representations' distances between inputs."""

from __future__ import annotations

import numpy as np

from bygones.analysis.metrics.base import Metric, between_known, centred_unit, one_minus_cosine
from bygones.core.errors import DesignError


def rsa_distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Representational similarity analysis: how unlike the inputs' mutual distances are.

        1 − corr over pairs i < j of (‖x_i − x_j‖, ‖y_i − y_j‖)          Pearson's correlation

    `x`, `y`: values, (..., N, D) -> (...,). Within [0, 2]. Not changed by orthogonal transforms,
    isotropic scaling and translation; changed by other linear maps. Its root obeys the triangle
    inequality. Needs N ≥ 3. Distances closer to 0 than 1e-8 of the representation's size are rounded.

    Kriegeskorte, Mur & Bandettini, Representational similarity analysis, Frontiers in Systems
    Neuroscience 2:4 (2008). They recommend a rank correlation for comparing brains with models, where
    no linear match can be assumed. Here a layer is compared with itself after a small treatment, and
    ranks jump where two distances tie, on the toss of a rounding error; so Pearson's.

    >>> x = np.array([[0.0], [1.0], [3.0]])              # distances 1, 3, 2
    >>> y = np.array([[0.0], [3.0], [1.0]])              # distances 3, 1, 2
    >>> round(float(rsa_distance(x, y)), 12)
    2.0
    """
    if x.shape[-2] < 3:
        raise DesignError(
            f"RSA correlates distances between at least 3 probe inputs; got {x.shape[-2]}. "
            f"'procrustes' takes fewer."
        )
    return between_known(x, y, lambda a, b: one_minus_cosine(_centred(a), _centred(b)))


def _centred(values: np.ndarray) -> np.ndarray:
    """Distances of all pairs i < j less their mean: (..., N, D) -> (..., N(N−1)/2)."""
    unit = centred_unit(values)
    n = unit.shape[-2]
    gram = unit @ np.swapaxes(unit, -1, -2)
    size = np.diagonal(gram, axis1=-2, axis2=-1)
    i, j = np.triu_indices(n, k=1)
    squared = size[..., i] + size[..., j] - 2.0 * gram[..., i, j]
    distances = np.sqrt(np.maximum(squared, 0.0))
    same = (distances == distances[..., :1]).all(axis=-1, keepdims=True)
    return np.where(same, 0.0, distances - distances.mean(axis=-1, keepdims=True))


RSA = Metric(
    name="rsa",
    kind="distance",
    input_kind="values",
    bounds=(0.0, 2.0),
    unit="RSA distance",
    function=rsa_distance,
    label="1 − correlation of distances (RSA)",
)
