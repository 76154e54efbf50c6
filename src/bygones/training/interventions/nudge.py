"""A small random step away, relative to the source's own size."""

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

    The relative size of the nudge is epsilon in every leaf. -epsilon goes the other way along the same
    u, so the two together split a response into its odd and even parts. A leaf that is nowhere negative
    (a variance, a second moment) has u = x·s/|x| with random signs s: each entry moves up or down by the
    share epsilon of itself, so that none crosses zero. Counters stay.
    """

    epsilon: float
    requires: ClassVar[Capability] = "arrays"

    def __call__(self, state: State, at: Boundary) -> State:
        nudged = dict(state)
        for name in sorted(state):
            if is_continuous(state[name]):
                values = to_float64(state[name])
                if values.min() >= 0:
                    delta = self.epsilon * values * at.rng.choice((-1.0, 1.0), values.shape)
                else:
                    size = self.epsilon * float(np.linalg.norm(values))
                    delta = size * unit_direction(values.shape, at.rng)
                nudged[name] = add(state[name], delta)
        return nudged
