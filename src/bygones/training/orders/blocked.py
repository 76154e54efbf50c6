"""Blocked order: one part of the data after the other, as tasks in sequence or examples sorted by label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bygones.core.errors import DesignError
from bygones.core.keyed_rng import generator
from bygones.core.values import Lifetime
from bygones.training.orders.base import AbstractOrder, cached


@dataclass(frozen=True)
class Blocked(AbstractOrder):
    """Batches from one block at a time; within a block, reshuffled each epoch of the block.

        block = (position // length) mod number of blocks
        rows  = permutation(key, block's epoch) of the examples whose `blocks` entry is this block

    `blocks` [num_examples]: the block of each example, 0 … B-1. `length`: steps in a block before the next
    one begins; after the last, the first returns. With a class as the block it is the label-sorted order, and
    with a task the sequence of continual learning. A block's last incomplete batch is left out. The order's
    memory ends with the block. Raises `DesignError` if a block has fewer examples than a batch.
    McCloskey & Cohen 1989 (doi:10.1016/S0079-7421(08)60536-8).

    >>> order = Blocked(6, 2, blocks=(0, 1, 0, 1, 0, 1), length=3)
    >>> [sorted({order.blocks[row] for row in order.rows(7, step)}) for step in (0, 2, 3, 5, 6)]
    [[0], [0], [1], [1], [0]]
    """

    blocks: tuple[int, ...]
    length: int

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = np.bincount(self.blocks) if self.blocks else np.zeros(0)
        if len(self.blocks) != self.num_examples or self.length < 1:
            raise DesignError(
                f"a blocked order needs a block for each example and a length of at least one step; got "
                f"{len(self.blocks)} for {self.num_examples} examples, and length={self.length}."
            )
        if counts.min() < self.batch_size:
            raise DesignError(
                f"each block needs at least a batch of {self.batch_size} examples; block "
                f"{int(counts.argmin())} has {int(counts.min())}."
            )

    def rows(self, key: int, position: int) -> np.ndarray:
        turn, step = divmod(position, self.length)
        block = turn % (max(self.blocks) + 1)
        members = np.flatnonzero(np.asarray(self.blocks) == block)
        epoch, place = divmod(step, len(members) // self.batch_size)
        shuffled = _draw_permutation(len(members), key, turn, epoch)
        return members[shuffled[place * self.batch_size : (place + 1) * self.batch_size]]

    @property
    def redraw_period(self) -> int:
        return self.length

    @property
    def lifetime(self) -> Lifetime:
        return Lifetime("phase", self.length)


@cached
def _draw_permutation(num_members: int, key: int, turn: int, epoch: int) -> np.ndarray:
    permutation = generator(key, turn, epoch).permutation(num_members)
    permutation.setflags(write=False)
    return permutation
