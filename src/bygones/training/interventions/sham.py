"""Sham: capture and restore a source without changing it, as a negative control."""

from __future__ import annotations

from dataclasses import dataclass

from bygones.core.values import State
from bygones.training.interventions.base import AbstractIntervention, Boundary
from bygones.training.leaves import clone_leaf


@dataclass(frozen=True)
class Sham(AbstractIntervention):
    """x <- copy(x). The floor of an effect: exactly zero under a deterministic contract.

    It measures the apparatus: if the sham arm differs from the control, capture and restore are not
    exact, and no other arm can be trusted.
    """

    def __call__(self, state: State, at: Boundary) -> State:
        return {name: clone_leaf(leaf) for name, leaf in state.items()}
