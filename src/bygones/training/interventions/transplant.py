"""Transplant: take over a source's state from another seed's run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bygones.core.values import State
from bygones.training.interventions.base import AbstractIntervention, Boundary


@dataclass(frozen=True)
class Transplant(AbstractIntervention):
    """x <- x of another seed's run at the same step, counters included.

    Each seed has its own donor, which is no seed of the study, so the pairs stay independent.
    """

    needs_donor: ClassVar[bool] = True
    single_step: ClassVar[bool] = True

    def __call__(self, state: State, at: Boundary) -> State:
        assert at.donor is not None
        return at.donor
