"""Variance components by pick-freeze: how much of the variance of outputs is due to each random role.

    V = ½ E‖f(A) − f(B)‖²
    S_i = 1 − E‖f(B) − f(A_i)‖² / 2V        first order
    T_i = E‖f(A) − f(A_i)‖² / 2V            total

A, B: two independent draws of all roles (initialization, order, augmentation, dropout); A_i: those of A, but
role i from B. So f(B) and f(A_i) share role i alone, and f(A) and f(A_i) all but i. S_i is the share of role
i alone, T_i that of role i with all its interactions: Σ S_i ≤ 1 ≤ Σ T_i, and S_i = T_i where effects add up.
Everything is made of squared distances between two runs, so that f may be one number or the outputs on a
probe set. Nothing is cut at 0: an estimate below it says how large the error is.

Jansen, Analysis of variance designs for model output (1999), doi:10.1016/S0010-4655(98)00154-4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bygones.analysis.estimators import Estimate, jackknife
from bygones.core.errors import DesignError
from bygones.core.text import format_count


@dataclass(frozen=True)
class VarianceComponents:
    """First-order and total shares by role, with intervals over pairs of draws; `str` is the sentence."""

    variance: float
    first: Mapping[str, Estimate]
    total: Mapping[str, Estimate]

    def __str__(self) -> str:
        parts = [
            f"{role} {one} alone, {self.total[role]} in all" for role, one in self.first.items()
        ]
        some = next(iter(self.first.values()))
        return (
            f"Of the variance {self.variance:.3g}: {'; '.join(parts)}; "
            f"{format_count(some.num_pairs, 'pair')} of draws, {some.method}."
        )


def variance_components(
    a: np.ndarray, b: np.ndarray, mixed: Mapping[str, np.ndarray]
) -> VarianceComponents:
    """Estimate the shares from outputs [n, …] of n draws A, of n draws B, and by role of A with it from B.

    Raises `DesignError` for shapes that differ and for outputs without any variance.

    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.standard_normal((2, 400, 2)), np.array([1.0, 2.0])         # y₀ x₀ + y₁ x₁: 1/5 and 4/5
    >>> mixed = {"init": [x[1][:, 0], x[0][:, 1]], "order": [x[0][:, 0], x[1][:, 1]]}
    >>> found = variance_components(x[0] @ y, x[1] @ y, {k: np.stack(v, 1) @ y for k, v in mixed.items()})
    >>> found.first["order"].covers(0.8), found.total["init"].covers(0.2)
    (True, True)
    """
    shapes = {np.shape(one) for one in (a, b, *mixed.values())}
    if len(shapes) != 1 or not mixed:
        raise DesignError(
            f"variance components need outputs of one shape for both draws and every role; got {len(mixed)} "
            f"roles and shapes {sorted(shapes)}."
        )
    whole = _squared(a, b)
    variance = 0.5 * float(np.nanmean(whole)) if whole.size else 0.0
    if not variance > 0.0:
        raise DesignError("the two draws never differ: there is no variance to share out.")
    first: dict[str, Estimate] = {}
    total: dict[str, Estimate] = {}
    for role, one in mixed.items():
        first[role] = jackknife(whole, _squared(b, one), statistic=_rest, leave_one_out=_rests)
        total[role] = jackknife(whole, _squared(a, one), statistic=_share, leave_one_out=_shares)
    return VarianceComponents(variance, first, total)


def _squared(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    gaps = np.asarray(one, dtype=np.float64) - other
    return (gaps.reshape(len(gaps), -1) ** 2).sum(axis=1)


def _share(whole: np.ndarray, part: np.ndarray) -> float:
    return float(part.mean() / whole.mean())


def _shares(whole: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Return the share without each pair."""
    return (part.sum() - part) / (whole.sum() - whole)


def _rest(whole: np.ndarray, part: np.ndarray) -> float:
    return 1.0 - _share(whole, part)


def _rests(whole: np.ndarray, part: np.ndarray) -> np.ndarray:
    return 1.0 - _shares(whole, part)
