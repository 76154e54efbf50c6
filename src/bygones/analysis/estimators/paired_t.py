"""Paired t interval (Student) for the mean of the paired differences."""

from __future__ import annotations

from numpy.typing import ArrayLike

from bygones.analysis.estimators.base import Estimate, estimate_by_student


def paired_t(differences: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Mean of the differences with Student's t interval.

        mean ± t · s / √n

    t: the (1 + level)/2 quantile of Student's t with n − 1 degrees of freedom; s: standard
    deviation of the sample (n − 1 below the line); n: finite pairs.

    `differences` has shape (R,), one number a seed pair; numbers that are not finite are left out
    and counted. Exact for normal differences at any n ≥ 2; also near it for heavy tails (t₃: 0.96 at 8
    pairs). Short for strong skew: on lognormal differences 0.95 covered 0.83 at 5 and 8 pairs, 0.86 at 16,
    0.89 at 32 (docs/coverage.md). "Student" (W. S. Gosset), The probable
    error of a mean, Biometrika 6 (1908), 1–25.

    >>> print(paired_t([0.9, 1.1, 1.0, 1.2]))
    1.05 [95% CI 0.84, 1.26]
    """
    return estimate_by_student(differences, level)
