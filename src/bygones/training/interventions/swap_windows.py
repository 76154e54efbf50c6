"""Window swap: exchange two adjacent windows of batches of equal length."""

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
    """The second half of the window before the first: the same multiset of batches in another order.

        detour <- positions[n/2:] + positions[:n/2]       n: the window's length, even

    Applied once, at the first boundary of the window; after the window the order is unchanged. Raises
    `DesignError` if the window's length is odd.
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
