"""Go through all the motions and change nothing."""

from __future__ import annotations

from dataclasses import dataclass

from bygones.core.values import State
from bygones.training.interventions.base import AbstractIntervention, Boundary
from bygones.training.leaves import clone_leaf


@dataclass(frozen=True)
class Sham(AbstractIntervention):
    """x <- copy(x), through capture and restore: the floor, exactly zero under a deterministic contract.

    What it measures is the apparatus: if a sham arm differs from the control, so does every arm.
    """

    def __call__(self, state: State, at: Boundary) -> State:
        return {name: clone_leaf(leaf) for name, leaf in state.items()}
