"""What an order policy is: which examples at which position, as arithmetic.

    indices = order.rows(key, position)        # the batch at a position of the stream

`key` is the integer that stands for the seed's order stream and `position` counts batches from the
start of training. Because the batch is a function of the two, the whole memory of an order is
(key, position), and resuming costs nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bygones.core.digest import digest
from bygones.core.errors import DesignError
from bygones.core.values import Digest, Lifetime


@dataclass(frozen=True)
class AbstractOrder(ABC):
    """Batches of `batch_size` out of `num_examples`; a last, incomplete batch is left out."""

    num_examples: int
    batch_size: int

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= self.num_examples:
            raise DesignError(
                f"an order needs 1 <= batch_size <= num_examples; got batch_size="
                f"{self.batch_size} and num_examples={self.num_examples}."
            )

    @property
    def steps_per_epoch(self) -> int:
        return self.num_examples // self.batch_size

    @abstractmethod
    def rows(self, key: int, position: int) -> np.ndarray:
        """Indices of the batch at a position: int64 [batch_size]. Pure: equal in, equal out."""

    @property
    @abstractmethod
    def lifetime(self) -> Lifetime:
        """How long one draw of the order goes on to decide what comes."""

    def policy_hash(self) -> Digest:
        """Digest of the rule itself: its class and its settings, not what it drew."""
        return digest(self)

    def _slice(self, permutation: np.ndarray, position: int) -> np.ndarray:
        start = (position % self.steps_per_epoch) * self.batch_size
        return permutation[start : start + self.batch_size]


def cached(draw: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Keeps the last results of `draw(num_examples, …)`: many while they are small, else a few."""
    many, few = lru_cache(maxsize=128)(draw), lru_cache(maxsize=8)(draw)

    def either(num_examples: int, *address: int) -> np.ndarray:
        return (many if num_examples < 1 << 17 else few)(num_examples, *address)

    return either
