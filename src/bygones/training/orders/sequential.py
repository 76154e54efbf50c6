"""Sequential order: the examples in their stored order, without shuffling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bygones.core.values import Lifetime
from bygones.training.orders.base import AbstractOrder


@dataclass(frozen=True)
class Sequential(AbstractOrder):
    """The order 0, 1, 2, … in each epoch. Draws no random numbers, so the key does not matter.

    >>> Sequential(num_examples=6, batch_size=2).rows(7, 4).tolist()
    [2, 3]
    """

    def rows(self, key: int, position: int) -> np.ndarray:
        return self._slice(np.arange(self.num_examples), position)

    @property
    def lifetime(self) -> Lifetime:
        return Lifetime("unbounded")
