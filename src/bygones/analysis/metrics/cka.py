"""One minus the debiased linear CKA of two representations."""

from __future__ import annotations

import numpy as np

from bygones.analysis.metrics.base import Metric, between_known, centred_unit, one_minus_cosine
from bygones.core.errors import DesignError


def debiased_cka_distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Debiased linear CKA, as a distance: how far two Gram matrices are from proportional.

        1 − HSIC₁(K, L) / √(HSIC₁(K, K) · HSIC₁(L, L)),   K = x xᵀ,  L = y yᵀ

        HSIC₁(K, L) = [tr(K̃L̃) + 1ᵀK̃1 1ᵀL̃1 / ((N−1)(N−2)) − 2/(N−2) 1ᵀK̃L̃1] / (N(N−3))

    K̃: K with a diagonal of zeros. `x`, `y`: values, (..., N, D) -> (...,). Within [0, 2]; 1 is no
    alignment beyond chance. Not changed by orthogonal transforms, isotropic scaling and translation;
    changed by other linear maps. Its root obeys the triangle inequality. Needs N ≥ 4.

    HSIC₁ is Song et al., Feature selection via dependence maximization, JMLR 13 (2012), 1393–1434,
    equation 5. It is the inner product of two U-centred matrices, which is how it is computed:
    Székely & Rizzo, Annals of Statistics 42 (2014), 2382–2412. Without the correction CKA goes to 1
    for unrelated features as D/N grows: Murphy et al., Correcting biased centered kernel alignment
    measures in biological and artificial neural networks (2024), arXiv 2405.01012.

    >>> x = np.array([[1.0], [1.0], [-1.0], [-1.0]])                  # pairs 1–2 and 3–4 alike
    >>> y = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])   # the same pairs unlike
    >>> round(float(debiased_cka_distance(x, y)), 12)
    2.0
    """
    if x.shape[-2] < 4:
        raise DesignError(
            f"debiased CKA compares at least 4 probe inputs; got {x.shape[-2]}. "
            f"'procrustes' takes fewer."
        )
    return between_known(x, y, lambda a, b: one_minus_cosine(_u_centred(a), _u_centred(b)))


def _u_centred(values: np.ndarray) -> np.ndarray:
    """The U-centred Gram matrix, flat: (..., N, D) -> (..., N²)."""
    unit = centred_unit(values)
    n = unit.shape[-2]
    off = ~np.eye(n, dtype=bool)
    gram = np.where(off, unit @ np.swapaxes(unit, -1, -2), 0.0)
    rows = gram.sum(axis=-1) / (n - 2)
    whole = gram.sum(axis=(-2, -1))[..., None, None] / ((n - 1) * (n - 2))
    centred = np.where(off, gram - rows[..., :, None] - rows[..., None, :] + whole, 0.0)
    return centred.reshape(*centred.shape[:-2], n * n)


CKA = Metric(
    name="cka",
    kind="distance",
    input_kind="values",
    bounds=(0.0, 2.0),
    unit="CKA distance",
    function=debiased_cka_distance,
    label="1 − debiased linear CKA",
)
