"""Order policies: a batch sampler as a pure function of key and position.

    indices = order.rows(key, position)        # the batch at a position of the stream

`key` is the integer key of the seed's order stream, and `position` counts batches from the start of
training. The batch is a function of the two, so (key, position) is the whole state of an order, and
resuming needs no replay. An order that depends on losses or gradients has more state than that, its
*memory*: arrays that the cursor keeps, and that the training step's feedback changes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from bygones.core.checks import check_fields
from bygones.core.digest import digest
from bygones.core.errors import DesignError
from bygones.core.keyed_rng import mix
from bygones.core.values import Digest, Lifetime, State

Feedback = Literal["", "losses", "gradients"]


@dataclass(frozen=True)
class AbstractOrder(ABC):
    """Base class of order policies: batches of `batch_size` out of `num_examples`.

    The last batch of an epoch is left out if it is incomplete. Raises `DesignError` unless
    1 <= batch_size <= num_examples. A subclass implements `rows` and `lifetime`.
    """

    num_examples: int
    batch_size: int

    def __post_init__(self) -> None:
        check_fields(self)
        if not 1 <= self.batch_size <= self.num_examples:
            raise DesignError(
                f"an order needs 1 <= batch_size <= num_examples; got batch_size="
                f"{self.batch_size} and num_examples={self.num_examples}."
            )

    @property
    def steps_per_epoch(self) -> int:
        """The number of complete batches in an epoch."""
        return self.num_examples // self.batch_size

    @property
    def feedback(self) -> Feedback:
        """What the training step gives to `Cursor.give_feedback` of each example shown; "" for nothing."""
        return ""

    @property
    def redraw_period(self) -> int:
        """Steps after which the order is drawn anew, whatever was shown before; 0 if it never is."""
        return 0

    @abstractmethod
    def rows(self, key: int, position: int) -> np.ndarray:
        """Return the indices of the batch at a position: int64 [batch_size]. A pure function."""

    def fresh_memory(self, key: int) -> State:
        """Return the state besides key and position of an order that has had no feedback; mostly empty."""
        return {}

    def rows_given(
        self, key: int, position: int, memory: State, redraws: Sequence[tuple[int, int]] = ()
    ) -> np.ndarray:
        """Return the batch at a position of an order with this memory. A pure function."""
        if redraws:
            return self.rows_resampled(key, position, redraws)
        return self.rows(key, position)

    def update_memory(
        self, memory: State, num_shown: int, rows: np.ndarray, values: np.ndarray
    ) -> State:
        """Return the memory after feedback on the examples `rows`: losses [B] or gradients [B, D].

        `num_shown`: batches shown so far, this one included. A pure function: `memory` is not changed.
        """
        return memory

    def rows_resampled(
        self, key: int, position: int, redraws: Sequence[tuple[int, int]]
    ) -> np.ndarray:
        """Return the batch at a position where all that was still random has been drawn anew meanwhile.

        `redraws`: (position, draw) of each time, in ascending order. What had been shown by then stays as it
        was, and what follows has the law that it had, given that. Here: a new key from the next position at
        which the order is drawn anew; an order that never is stays as it is. A pure function.
        """
        return self.rows(self._resampled_key(key, position, redraws), position)

    def _resampled_key(self, key: int, position: int, redraws: Sequence[tuple[int, int]]) -> int:
        period = self.redraw_period
        for at, draw in redraws:
            if period > 0 and position >= -(-at // period) * period:
                key = mix(key, "resample", at, draw)
        return key

    @property
    @abstractmethod
    def lifetime(self) -> Lifetime:
        """How long one draw of the order influences later batches."""

    def policy_hash(self) -> Digest:
        """Hash the policy's class and settings; draws do not enter."""
        return digest(self)

    def _slice(self, permutation: np.ndarray, position: int) -> np.ndarray:
        """Return the batch at a position within an epoch's permutation."""
        start = (position % self.steps_per_epoch) * self.batch_size
        return permutation[start : start + self.batch_size]


def cached(draw: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Cache the last results of `draw(num_examples, …)`: 128 small ones, or 8 from 2^17 examples on."""
    many, few = lru_cache(maxsize=128)(draw), lru_cache(maxsize=8)(draw)

    def either(num_examples: int, *address: int) -> np.ndarray:
        return (many if num_examples < 1 << 17 else few)(num_examples, *address)

    return either
