"""Single shuffling: one permutation for the whole run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bygones.core.keyed_rng import generator
from bygones.core.values import Lifetime
from bygones.training.orders.base import AbstractOrder, cached


@dataclass(frozen=True)
class ShuffleOnce(AbstractOrder):
    """One permutation, repeated each epoch. Its memory has no end: one draw decides every epoch.

        rows = permutation(key)[slice of position mod steps_per_epoch]

    >>> order = ShuffleOnce(num_examples=6, batch_size=2)
    >>> order.rows(7, 1).tolist() == order.rows(7, 4).tolist()
    True
    """

    def rows(self, key: int, position: int) -> np.ndarray:
        return self._slice(_draw_permutation(self.num_examples, key), position)

    @property
    def lifetime(self) -> Lifetime:
        return Lifetime("unbounded")


@cached
def _draw_permutation(num_examples: int, key: int) -> np.ndarray:
    permutation = generator(key, "once").permutation(num_examples)
    permutation.setflags(write=False)
    return permutation
