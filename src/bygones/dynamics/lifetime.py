"""Lifetime: the half-life of a distance that decays over steps, by a log-linear fit."""

from __future__ import annotations

import math

import numpy as np


def half_life(steps: np.ndarray, distances: np.ndarray) -> float:
    """Estimate the half-life, in steps, of a distance that decays exponentially.

        distance(h) = distance(0) · 2^(-h / half-life)      least squares in log2(distance)

    `steps` [H], `distances` [H]. Returns infinity for a distance that does not shrink. Raises `ValueError`
    for fewer than two steps or a distance that is not positive.

    >>> round(half_life(np.arange(5), 0.9 ** np.arange(5)), 6)
    6.578813
    """
    if len(steps) < 2 or np.any(np.asarray(distances) <= 0):
        raise ValueError(
            f"a half-life needs at least two steps and positive distances; got {len(steps)} steps and "
            f"a smallest distance of {np.min(distances, initial=np.inf):g}. Leave out steps at distance 0."
        )
    slope = float(np.polyfit(np.asarray(steps, dtype=float), np.log2(distances), 1)[0])
    return -1.0 / slope if slope < 0 else math.inf
