"""Hold: freeze a source at its state from the start of the window."""

from __future__ import annotations

from dataclasses import dataclass

from bygones.core.errors import DesignError
from bygones.core.values import State
from bygones.training.interventions.base import AbstractIntervention, Boundary


@dataclass(frozen=True)
class Hold(AbstractIntervention):
    """x <- x at the start of the window. The source takes up nothing new during these steps.

    Counters are held too. An order that is held repeats the same batch. Raises `DesignError` if only
    some leaves are selected and they did not exist at the start of the window.
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
