"""Random reshuffling: a new permutation of the examples each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bygones.core.keyed_rng import generator, mix
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

    def rows_resampled(
        self, key: int, position: int, redraws: Sequence[tuple[int, int]]
    ) -> np.ndarray:
        """Of the epoch in which it is drawn anew, the examples not yet shown come in a new random order."""
        epoch = position // self.steps_per_epoch
        here: list[int] = []
        for at, draw in redraws:
            begun, shown = divmod(at, self.steps_per_epoch)
            if begun < epoch or (begun == epoch and shown == 0):
                key = mix(key, "resample", at, draw)
            elif begun == epoch and at <= position:
                here += [shown * self.batch_size, draw]
        return self._slice(_draw_rest(self.num_examples, key, epoch, *here), position)

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


@cached
def _draw_rest(num_examples: int, key: int, epoch: int, *redraws: int) -> np.ndarray:
    """Draw an epoch's permutation, of which the rest is drawn anew: after so many examples, by this draw."""
    permutation = _draw_permutation(num_examples, key, epoch)
    for shown, draw in zip(redraws[::2], redraws[1::2], strict=True):
        rest = generator(key, epoch, "resample", shown, draw).permutation(permutation[shown:])
        permutation = np.concatenate([permutation[:shown], rest])
    permutation.setflags(write=False)
    return permutation
