"""Hierarchical (cluster) bootstrap: seeds and their repeats, resampled at both levels."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from bygones.analysis.estimators.base import (
    Estimate,
    SampleFacts,
    estimate_from_draws,
    estimate_without_interval,
    seed_means,
)
from bygones.core.keyed_rng import generator

METHOD = "hierarchical bootstrap"


def hierarchical_bootstrap(
    differences: ArrayLike, *, level: float = 0.95, seed: int = 0, num_resamples: int = 9_999
) -> Estimate:
    """Mean over seeds of the mean over repeats, seeds resampled and then the repeats within each.

        [m*₍ₖ₎, m*₍B+1−k₎],  k = ⌊(B + 1)(1 − level)/2⌋   (percentiles of B resampled means)

    `differences` has shape (R, K), K repeats a seed, or (R,) for one; what is not finite is left out as
    in `hierarchical`. `seed` is the only randomness. Var m* ≈ (n − 1)/n · s²_m/n + (K − 1)/K · s²_r/(nK):
    the first term is short by (n − 1)/n, the second counts the repeats a second time, since s²_m holds
    them already. So with one repeat it is the percentile bootstrap, too short for few seeds, and with
    many noisy ones it is about right by luck; `hierarchical` is the interval to report. Where 0.95 was asked
    it covered 0.90 at 8 normal pairs without repeats, 0.92 at 8 seeds of four repeats and 0.77 at 8 lognormal
    pairs (docs/coverage.md).
    Assumes independent seeds, repeats independent within them. Davison & Hinkley, Bootstrap methods and
    their application (1997), section 3.8.

    >>> found = hierarchical_bootstrap([[0.8, 1.0], [1.1, 1.1], [0.9, 1.1], [1.3, 1.1]])
    >>> round(found.low, 1), round(found.high, 1)
    (0.9, 1.2)
    """
    means, num_dropped, note = seed_means(differences)
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
    draws = generator(seed, METHOD)
    repeats, counts = _packed(differences)
    centred = repeats - mean
    seeds = draws.integers(n, size=(num_resamples, n))
    if repeats.shape[1] == 1:
        resampled = centred[seeds, 0].mean(axis=1)
    else:
        within = draws.random((num_resamples, n, repeats.shape[1]))
        chosen = (within * counts[seeds][:, :, None]).astype(np.intp)
        # A seed with fewer repeats draws as many as the others, from those it has.
        resampled = centred[seeds[:, :, None], chosen].mean(axis=(1, 2))
    found = estimate_from_draws(mean, mean + resampled, **facts)
    return replace(found, note="; ".join(filter(None, (found.note, note))))


def _packed(differences: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return the finite repeats of each seed that has any, moved to the front, (R, K); how many, (R,)."""
    numbers = np.asarray(differences, dtype=np.float64)
    numbers = numbers.reshape(numbers.shape[0], -1)
    finite = np.isfinite(numbers)
    numbers = np.take_along_axis(numbers, np.argsort(~finite, axis=1, kind="stable"), axis=1)
    counts = finite.sum(axis=1)
    return numbers[counts > 0], counts[counts > 0]
