"""Make the source as if it were created now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bygones.core.errors import DesignError
from bygones.core.values import Capability, State
from bygones.training.interventions.base import AbstractIntervention, Boundary


@dataclass(frozen=True)
class Reset(AbstractIntervention):
    """x <- fresh. Counters go too; to keep them, name the leaves (`*/exp_avg*` keeps Adam's `step`).

    At each boundary of its window: over twenty steps it is "not carried over for twenty steps".
    """

    requires: ClassVar[Capability] = "resettable"

    def __call__(self, state: State, at: Boundary) -> State:
        assert at.fresh is not None
        missing = state.keys() - at.fresh.keys()
        if missing and at.leaves != "*":
            raise DesignError(
                f"resetting only '{at.leaves}' of {at.source} has no meaning: a new one does not "
                f"have {', '.join(sorted(missing)[:3])} yet. Reset all of it (leaves='*')."
            )
        return at.fresh
