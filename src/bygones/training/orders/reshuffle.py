"""Random reshuffling: a new permutation of the examples each epoch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bygones.core.keyed_rng import generator
from bygones.core.values import Lifetime
from bygones.training.orders.base import AbstractOrder, cached


@dataclass(frozen=True)
class Reshuffle(AbstractOrder):
    """Sampling without replacement, reshuffled each epoch: the DataLoader's `shuffle=True`.

        epoch = position // steps_per_epoch;   rows = permutation(key, epoch)[its slice]

    Its memory ends with the epoch: until then, the examples shown decide which ones are left.

    >>> order = Reshuffle(num_examples=6, batch_size=2)
    >>> sorted(np.concatenate([order.rows(7, step) for step in range(3)]).tolist())
    [0, 1, 2, 3, 4, 5]
    """

    def rows(self, key: int, position: int) -> np.ndarray:
        epoch = position // self.steps_per_epoch
        return self._slice(_draw_permutation(self.num_examples, key, epoch), position)

    @property
    def redraw_period(self) -> int:
        return self.steps_per_epoch

    @property
    def lifetime(self) -> Lifetime:
        return Lifetime("phase", self.steps_per_epoch)


@cached  # the batches of an epoch follow each other, and all arms repeat the same epochs
def _draw_permutation(num_examples: int, key: int, epoch: int) -> np.ndarray:
    permutation = generator(key, epoch).permutation(num_examples)
    permutation.setflags(write=False)
    return permutation
