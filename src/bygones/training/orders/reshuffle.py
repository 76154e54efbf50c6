"""A new permutation each epoch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bygones.core.keyed_rng import generator
from bygones.core.values import Lifetime
from bygones.training.orders.base import AbstractOrder, cached


@dataclass(frozen=True)
class Reshuffle(AbstractOrder):
    """Without replacement, reshuffled each epoch: the DataLoader's `shuffle=True`.

        epoch = position // steps_per_epoch;   rows = permutation(key, epoch)[its slice]

    Forgets at the epoch's end: until then, what was shown decides what is left.

    >>> order = Reshuffle(num_examples=6, batch_size=2)
    >>> sorted(np.concatenate([order.rows(7, step) for step in range(3)]).tolist())
    [0, 1, 2, 3, 4, 5]
    """

    def rows(self, key: int, position: int) -> np.ndarray:
        epoch = position // self.steps_per_epoch
        return self._slice(_permutation(self.num_examples, key, epoch), position)

    @property
    def lifetime(self) -> Lifetime:
        return Lifetime("phase", self.steps_per_epoch)


@cached  # an epoch's batches come one after the other, and arms walk the same epochs again
def _permutation(num_examples: int, key: int, epoch: int) -> np.ndarray:
    permutation = generator(key, epoch).permutation(num_examples)
    permutation.setflags(write=False)
    return permutation
