"""Cursor: the position of a run in its data order, and the order's whole state."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

from bygones.training.orders.base import AbstractOrder

NO_DETOUR = np.zeros(0, dtype=np.int64)


@dataclass
class Cursor:
    """The state of a data order. `next` returns the batch and moves on:

        at = detour[0] if there is a detour, else position;   batch = order.rows(key, at)
        detour <- detour[1:];   position <- position + 1

    A *detour* is a list of positions to visit first, one each step. Exchanging two windows of batches,
    or shuffling one, is a detour: the same batches in another order, and no change afterwards.
    `redraws`: where all that was still random has been drawn anew, see `rows_resampled`; mostly empty.
    """

    order: AbstractOrder
    key: int
    position: int = 0
    detour: np.ndarray = field(default_factory=lambda: NO_DETOUR)
    redraws: tuple[tuple[int, int], ...] = ()
    ids_chain: str = ""  # SHA-256 chain over the example ids so far: a record, no memory

    def next(self) -> np.ndarray:
        """Return the example indices of this step's batch, int64 [batch_size], and advance."""
        at = self.position
        if len(self.detour):
            at, self.detour = int(self.detour[0]), self.detour[1:]
        self.position += 1
        if self.redraws:
            rows = self.order.rows_resampled(self.key, at, self.redraws)
        else:
            rows = self.order.rows(self.key, at)
        link = hashlib.sha256(self.ids_chain.encode())
        link.update(rows.tobytes())
        self.ids_chain = link.hexdigest()
        return rows
