"""How long something lasts, read off its course over steps."""

from __future__ import annotations

import math

import numpy as np


def half_life(steps: np.ndarray, distances: np.ndarray) -> float:
    """The half-life of a distance that decays exponentially, in steps.

        distance(h) = distance(0) · 2^(-h / half-life)      fitted by least squares of its logarithm

    `steps` [H], `distances` [H], all positive. A distance that does not shrink gives infinity.

    >>> round(half_life(np.arange(5), 0.9 ** np.arange(5)), 6)
    6.578813
    """
    if len(steps) < 2 or np.any(np.asarray(distances) <= 0):
        raise ValueError("a half-life needs at least two steps and positive distances.")
    slope = float(np.polyfit(np.asarray(steps, dtype=float), np.log2(distances), 1)[0])
    return -1.0 / slope if slope < 0 else math.inf
