"""Keep the source at what it was when the window began."""

from __future__ import annotations

from dataclasses import dataclass

from bygones.core.errors import DesignError
from bygones.core.values import State
from bygones.training.interventions.base import AbstractIntervention, Boundary


@dataclass(frozen=True)
class Hold(AbstractIntervention):
    """x <- x at the window's entry. For these steps, nothing new is remembered.

    Counters are held too. An order that is held shows the same batch again and again.
    """

    def __call__(self, state: State, at: Boundary) -> State:
        absent = sorted(state.keys() - at.entry.keys())
        if absent and at.leaves != "*":
            raise DesignError(
                f"holding only '{at.leaves}' of {at.source} from step {at.window.start} on has no "
                f"meaning: {', '.join(absent[:3])} did not exist yet. Hold all of it (leaves='*'), or "
                f"begin later."
            )
        return at.entry
