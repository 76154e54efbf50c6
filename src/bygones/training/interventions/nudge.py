"""Nudge: a small random perturbation, relative to the size of the source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bygones.core.values import Capability, State
from bygones.training.interventions.base import AbstractIntervention, Boundary
from bygones.training.leaves import add, is_continuous, to_float64, unit_direction


@dataclass(frozen=True)
class Nudge(AbstractIntervention):
    """x <- x + epsilon·|x|·u for each leaf, u uniform on the leaf's unit sphere.

    The relative size is epsilon in every leaf. -epsilon uses the same u with the opposite sign, so the
    two together split a response into its odd and even parts. A nonnegative leaf (a variance, a second
    moment) has u = x·s/|x| with random signs s: each of its numbers moves up or down by the share
    epsilon of itself, so none crosses zero. Counters stay. `draw` numbers independent directions.
    """

    epsilon: float
    draw: int = 0
    requires: ClassVar[Capability] = "arrays"

    def __str__(self) -> str:
        draw = f", draw {self.draw}" if self.draw else ""
        return f"{self.verb}({self.epsilon:g}{draw})"

    def opposite(self) -> Nudge:
        return Nudge(-self.epsilon, self.draw)

    def __call__(self, state: State, at: Boundary) -> State:
        nudged = dict(state)
        for name in sorted(state):
            if is_continuous(state[name]):
                values = to_float64(state[name])
                delta = [self._draw_delta(values, at.rng) for _ in range(self.draw + 1)][-1]
                nudged[name] = add(state[name], delta)
        return nudged

    def _draw_delta(self, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if values.min() >= 0:
            return self.epsilon * values * rng.choice((-1.0, 1.0), values.shape)
        return self.epsilon * float(np.linalg.norm(values)) * unit_direction(values.shape, rng)
