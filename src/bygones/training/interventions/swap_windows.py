"""Exchange two equal windows of batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bygones.core.errors import DesignError
from bygones.core.values import Capability, State
from bygones.training.interventions.base import AbstractIntervention, Boundary
from bygones.training.interventions.detours import upcoming_positions, with_detour


@dataclass(frozen=True)
class SwapWindows(AbstractIntervention):
    """The second half of the window is shown first: same multiset of batches, other order.

        detour <- positions[n/2:] + positions[:n/2]       n: the window's length, even

    Done once, at the window's first boundary; after the window the order is as before.
    """

    requires: ClassVar[Capability] = "order"

    def __call__(self, state: State, at: Boundary) -> State:
        if at.step != at.window.start:
            return state
        half, odd = divmod(at.window.length, 2)
        if odd:
            raise DesignError(
                f"swap-windows exchanges the two halves of its window, so the window's length must be "
                f"even; got {at.window.length} steps ({at.window})."
            )
        positions = upcoming_positions(state, at.window.length)
        return with_detour(state, np.concatenate([positions[half:], positions[:half]]))
