"""Reset: return a source to the state that it would have if created now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bygones.core.errors import DesignError
from bygones.core.values import Capability, State
from bygones.training.interventions.base import AbstractIntervention, Boundary


@dataclass(frozen=True)
class Reset(AbstractIntervention):
    """x <- fresh, at each boundary of the window, so that nothing is carried over between its steps.

    Counters are reset too. To keep them, select leaves: `*/exp_avg*` keeps Adam's `step`. Raises
    `DesignError` if only some leaves are selected and a new source does not have them.
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
