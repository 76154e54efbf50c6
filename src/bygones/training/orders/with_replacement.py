"""Sampling with replacement: each example is drawn independently."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bygones.core.keyed_rng import generator
from bygones.core.values import Lifetime
from bygones.training.orders.base import AbstractOrder


@dataclass(frozen=True)
class WithReplacement(AbstractOrder):
    """Batches drawn uniformly and independently: the order without memory.

        rows = uniform(key, position) on {0 … num_examples - 1}

    >>> WithReplacement(num_examples=100, batch_size=3).rows(7, 0).shape
    (3,)
    """

    def rows(self, key: int, position: int) -> np.ndarray:
        return generator(key, position).integers(self.num_examples, size=self.batch_size)

    @property
    def redraw_period(self) -> int:
        return 1

    @property
    def lifetime(self) -> Lifetime:
        return Lifetime("exact", 1)
