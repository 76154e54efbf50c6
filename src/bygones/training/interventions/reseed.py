"""Draw a stream again from here on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bygones.core.keyed_rng import mix
from bygones.core.values import Capability, State
from bygones.training.interventions.base import AbstractIntervention, Boundary


@dataclass(frozen=True)
class Reseed(AbstractIntervention):
    """key <- SHA-256(key | draw) for each chosen stream, once, at the window's first boundary.

    For an order this is another draw from this step on: the epoch that is under way continues in the
    other draw's permutation, so some examples of that epoch may come twice and some not at all.
    `draw` numbers the draws; two reseeds with the same draw agree.
    """

    draw: int = 0
    requires: ClassVar[Capability] = "reseedable"

    def __call__(self, state: State, at: Boundary) -> State:
        if at.step != at.window.start:
            return state
        keys = [
            name for name in state if isinstance(state[name], int) and name not in ("position",)
        ]
        return {**state, **{name: mix(state[name], "reseed", self.draw) for name in keys}}
