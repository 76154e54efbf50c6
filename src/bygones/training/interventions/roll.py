"""Roll: shift the entries of a source along their first axis, as of a queue, a buffer or a list of stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from bygones.core.checks import require_integer
from bygones.core.values import Capability, State
from bygones.training.interventions.base import AbstractIntervention, Boundary
from bygones.training.leaves import clone_leaf


@dataclass(frozen=True)
class Roll(AbstractIntervention):
    """leaf[(i + by) mod n] <- leaf[i], along the first axis of each array of n rows, at each boundary.

    Nothing is lost and nothing is new: rows that belong together in several arrays (state, action, reward)
    stay together, and only their places change. Of a ring that is written at a pointer, other rows are then
    the next to be overwritten; of two stages of a schedule, `Roll(1)` exchanges them. Numbers, counters and
    pointers stay. `by`: rows, negative for the other way.

    >>> state = {"queue": np.array([[1.0], [2.0], [3.0]]), "pointer": 0}
    >>> Roll(1)(state, None)["queue"].ravel().tolist()
    [3.0, 1.0, 2.0]
    """

    by: int = 1
    requires: ClassVar[Capability] = "arrays"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer(self.by, "Roll(by=…)")

    def __call__(self, state: State, at: Boundary) -> State:
        return {name: _roll(leaf, self.by) for name, leaf in state.items()}


def _roll(leaf: object, by: int) -> object:
    if isinstance(leaf, torch.Tensor) and leaf.ndim:
        return torch.roll(leaf, by, dims=0)
    if isinstance(leaf, np.ndarray) and leaf.ndim:
        return np.roll(leaf, by, axis=0)
    return clone_leaf(leaf)
