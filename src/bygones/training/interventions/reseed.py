"""Reseed: give a random stream or an order a new key from a step on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bygones.core.keyed_rng import mix
from bygones.core.values import Capability, State
from bygones.training.interventions.base import AbstractIntervention, Boundary


@dataclass(frozen=True)
class Reseed(AbstractIntervention):
    """key <- SHA-256(key | draw) for each chosen stream, once, at the first boundary of the window.

    An order is drawn anew from this step on: the current epoch continues in the new permutation, so
    some of its examples may come twice and some not at all. `draw` numbers independent draws; two
    reseeds with the same draw agree.
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
