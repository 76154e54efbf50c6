"""The value that another seed's run has here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bygones.core.values import State
from bygones.training.interventions.base import AbstractIntervention, Boundary


@dataclass(frozen=True)
class Transplant(AbstractIntervention):
    """x <- x of another seed's run at the same step, counters and all.

    Each seed has a donor of its own that is no seed of the study, so the pairs stay independent.
    """

    needs_donor: ClassVar[bool] = True
    single_step: ClassVar[bool] = True

    def __call__(self, state: State, at: Boundary) -> State:
        assert at.donor is not None
        return at.donor
