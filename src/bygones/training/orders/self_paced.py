"""Self-paced learning: the examples whose loss is below a threshold that grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bygones.core.errors import DesignError
from bygones.core.keyed_rng import generator
from bygones.core.values import Lifetime, State
from bygones.training.orders.base import AbstractOrder, Feedback


@dataclass(frozen=True)
class SelfPaced(AbstractOrder):
    """Batches from the examples whose last known loss is at most a threshold, which grows in each step.

        rows = without replacement from { i : losses[i] <= threshold }
        losses[rows] <- losses of the batch;   threshold <- growth · threshold

    If fewer than a batch are below the threshold, the batch is the examples with the lowest losses. The loss
    of an example that was not shown yet counts as 0, so that each is tried. `threshold`: that of the first
    batch, in the units of the loss. `growth`: its factor in each step, 1 or more. Memory, in the cursor:
    `losses` float64 [num_examples] and `threshold`. An example that is left out keeps its loss until the
    threshold has passed it, so no time is known after which the memory is gone. The training step gives the
    losses: `parts.cursor.give_feedback(rows, losses)`.
    Kumar, Packer & Koller 2010, "Self-paced learning for latent variable models", algorithm 1.

    >>> order = SelfPaced(4, 2, threshold=1.0, growth=2.0)
    >>> memory = order.update_memory(order.fresh_memory(7), 1, np.array([0, 3]), np.array([9.0, 5.0]))
    >>> sorted(order.rows_given(7, 1, memory).tolist()), memory["threshold"]
    ([1, 2], 2.0)
    """

    threshold: float = 1.0
    growth: float = 1.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.threshold > 0 and self.growth >= 1):
            raise DesignError(
                f"a self-paced order needs threshold > 0 and growth >= 1; got threshold="
                f"{self.threshold} and growth={self.growth}."
            )

    @property
    def feedback(self) -> Feedback:
        return "losses"

    def fresh_memory(self, key: int) -> State:
        return {"losses": np.zeros(self.num_examples), "threshold": float(self.threshold)}

    def rows(self, key: int, position: int) -> np.ndarray:
        return self.rows_given(key, position, self.fresh_memory(key))

    def rows_given(
        self, key: int, position: int, memory: State, redraws: Sequence[tuple[int, int]] = ()
    ) -> np.ndarray:
        key = self._resampled_key(key, position, redraws)
        easy = np.flatnonzero(memory["losses"] <= memory["threshold"])
        if len(easy) < self.batch_size:
            easy = np.argsort(memory["losses"], kind="stable")[: self.batch_size]
        return generator(key, position).choice(easy, size=self.batch_size, replace=False)

    def rows_resampled(
        self, key: int, position: int, redraws: Sequence[tuple[int, int]]
    ) -> np.ndarray:
        return self.rows_given(key, position, self.fresh_memory(key), redraws)

    def update_memory(
        self, memory: State, num_shown: int, rows: np.ndarray, values: np.ndarray
    ) -> State:
        losses = memory["losses"].copy()
        losses[rows] = values
        return {**memory, "losses": losses, "threshold": memory["threshold"] * self.growth}

    @property
    def redraw_period(self) -> int:
        return 1

    @property
    def lifetime(self) -> Lifetime:
        return Lifetime("unbounded")
