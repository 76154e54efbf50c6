"""Carry on: leave the source unchanged, as in the control arm."""

from __future__ import annotations

from dataclasses import dataclass

from bygones.core.values import State
from bygones.training.interventions.base import AbstractIntervention, Boundary


@dataclass(frozen=True)
class Carry(AbstractIntervention):
    """x <- x. The control's treatment, made explicit; changes no leaf and no counter."""

    def __call__(self, state: State, at: Boundary) -> State:
        return state
