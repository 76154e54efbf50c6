"""Hierarchical mean: repeats within seeds are averaged first, so that the seed stays the unit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from bygones.analysis.estimators.base import (
    PAIRED_T,
    Estimate,
    SampleFacts,
    estimate_from_t,
    estimate_without_interval,
    seed_means,
    standard_error,
)

AVERAGED = " over seeds, repeats averaged"
METHOD = f"t{AVERAGED}"


def hierarchical(
    differences: ArrayLike,
    *,
    level: float = 0.95,
    interval: Callable[..., Estimate] | None = None,
) -> Estimate:
    """Mean over seeds of the mean over repeats, with Student's t interval over seeds.

        m̄ ± t · s_m / √n,  m_s = mean over the repeats of seed s

    n: seeds; s_m: standard deviation of the m_s (n − 1 below the line); t: the (1 + level)/2 quantile
    of Student's t with n − 1 degrees of freedom. Var m_s = σ²_seed + σ²_repeat/K: the m_s carry both
    variances already, and nothing has to be estimated apart. Another `interval` is an estimator for pairs,
    which gets the m_s: `by_skewness` in the effects of a study whose arms are repeated within seeds.

    `differences` has shape (R, K), K repeats a seed, or (R,) for one. Repeats that are not finite are
    left out of their seed's mean, a seed without any is left out and counted; `note` tells the number of
    repeats lost. Seeds weigh alike however many repeats they have. Exact for normal seeds and repeats
    with equally many of them: 0.95 covered 0.95 at 5 to 32 seeds of four repeats, where repeats taken for
    seeds covered 0.78 (docs/coverage.md). For skewed seeds see `paired_t`, which this is with one repeat.

    >>> print(hierarchical([[0.8, 1.0], [1.1, 1.1], [0.9, 1.1], [1.3, 1.1]]))
    1.05 [95% CI 0.84, 1.26]
    """
    means, num_dropped, note = seed_means(differences)
    if interval is not None:
        found = interval(means, level=level)
        method = METHOD if found.method == PAIRED_T else f"{found.method}{AVERAGED}"
        notes = "; ".join(filter(None, (found.note, note)))
        return replace(found, method=method, num_dropped=num_dropped, note=notes)
    n = means.size
    mean = float(means.mean()) if n else math.nan
    facts: SampleFacts = {
        "level": level,
        "num_pairs": n,
        "num_dropped": num_dropped,
        "method": METHOD,
    }
    if n < 2 or np.all(means == means[0]):
        return estimate_without_interval(mean, **facts)
    return estimate_from_t(mean, standard_error(means), n - 1, **facts, note=note)
