"""Leave the source as it is."""

from __future__ import annotations

from dataclasses import dataclass

from bygones.core.values import State
from bygones.training.interventions.base import AbstractIntervention, Boundary


@dataclass(frozen=True)
class Carry(AbstractIntervention):
    """x <- x. What a control does, said explicitly; touches no leaf and no counter."""

    def __call__(self, state: State, at: Boundary) -> State:
        return state
