"""Where a run stands in its order: the order's whole memory, in four values."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

from bygones.training.orders.base import AbstractOrder

NO_DETOUR = np.zeros(0, dtype=np.int64)


@dataclass
class Cursor:
    """Walks an order. At each step:

        at = detour[0] if there is a detour, else position;   batch = order.rows(key, at)
        detour <- detour[1:];   position <- position + 1

    A *detour* is a list of positions to visit first, one a step. Exchanging two windows of batches,
    or shuffling one, is a detour: same batches, other order, and afterwards everything is as before.
    """

    order: AbstractOrder
    key: int
    position: int = 0
    detour: np.ndarray = field(default_factory=lambda: NO_DETOUR)
    realised: str = ""  # chained SHA-256 over the example ids shown so far; a record, not memory

    def next(self) -> np.ndarray:
        at = self.position
        if len(self.detour):
            at, self.detour = int(self.detour[0]), self.detour[1:]
        self.position += 1
        rows = self.order.rows(self.key, at)
        chained = hashlib.sha256(self.realised.encode())
        chained.update(rows.tobytes())
        self.realised = chained.hexdigest()
        return rows
