"""Matched null: a random kick of the same norm as the treatment, to measure the effect of size alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bygones.core.values import Capability, Leaf, State
from bygones.training.interventions.base import AbstractIntervention, Boundary
from bygones.training.leaves import add, is_continuous, to_float64, unit_direction


@dataclass(frozen=True)
class MatchedNull(AbstractIntervention):
    """x <- x + |of(x) - x|·u for each leaf, u uniform on the leaf's unit sphere.

    Each leaf is displaced by the same norm as by `of`. A leaf that is nonnegative before and after the
    treatment (a variance, a second moment) is reflected at zero, and the kick is lengthened until the
    norm is matched again. Counters stay. A leaf that the treatment removes counts as zero. `draw`
    numbers independent nulls.
    """

    of: AbstractIntervention
    draw: int = 0
    requires: ClassVar[Capability] = "arrays"

    def __call__(self, state: State, at: Boundary) -> State:
        treated = self.of(state, at)
        kicked = dict(state)
        for name in sorted(state):
            if is_continuous(state[name]):
                before = to_float64(state[name])
                after = to_float64(treated[name]) if name in treated else np.zeros_like(before)
                direction = [unit_direction(before.shape, at.rng) for _ in range(self.draw + 1)][-1]
                kicked[name] = _kick_leaf(state[name], before, after, direction)
        return kicked


def _kick_leaf(leaf: Leaf, before: np.ndarray, after: np.ndarray, direction: np.ndarray) -> Leaf:
    """Displace a leaf along a direction by the norm of after - before, kept nonnegative if both are."""
    size = float(np.linalg.norm(after - before))
    if size == 0.0:
        return leaf
    if before.min() < 0 or after.min() < 0:
        return add(leaf, size * direction)

    def reflect(length: float) -> np.ndarray:
        return np.abs(before + length * direction) - before

    low, high = 0.0, size
    while np.linalg.norm(reflect(high)) < size:
        high *= 2.0
    for _ in range(60):  # bisect to the last bits of a double
        middle = (low + high) / 2.0
        low, high = (middle, high) if np.linalg.norm(reflect(middle)) < size else (low, middle)
    return add(leaf, reflect(high))
