"""Gradient balancing (GraB): the next epoch's order from the signs that keep a running sum small."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bygones.core.errors import DesignError, RecipeError
from bygones.core.keyed_rng import generator
from bygones.core.values import Lifetime, State
from bygones.training.orders.base import AbstractOrder, Feedback


@dataclass(frozen=True)
class GraB(AbstractOrder):
    """An order that each epoch improves: examples whose gradients cancel come one after the other.

        c = g - mean                     g: an example's gradient; mean: that of the last epoch's gradients
        |sum + c| < |sum - c|:  to the front of the next epoch,   sum <- sum + c
        else:                   to its back, from the end on,     sum <- sum - c

    The first epoch is a random permutation. At an epoch's end the next one is the front, then what was not
    shown, then the back; `mean` becomes that of the epoch, and `sum` begins at 0. The point of it is a small
    *herding objective*, the largest norm of a prefix sum of centred gradients (`herding_objective`).

    `dimension`: D of the gradients [B, D] that the training step gives: `parts.cursor.give_feedback(rows,
    gradients)`. Memory, in the cursor: `permutation` and `side` int64 [num_examples] (rank in the next
    epoch, positive from the front, negative from the back, 0 if not shown yet), `sum`, `mean` and `total`
    float64 [dimension]. As one epoch makes the next, it has no end. Windows are rearranged within an epoch
    alone: a later one does not exist yet. Lu, Guo & De Sa 2022 (arXiv:2205.10733), algorithms 4 and 5.

    >>> order = GraB(4, 4, dimension=1)
    >>> memory = {**order.fresh_memory(7), "permutation": np.arange(4)}
    >>> memory = order.update_memory(memory, 1, np.arange(4), np.array([[1.0], [1.0], [-1.0], [-1.0]]))
    >>> order.rows_given(7, 1, memory).tolist()
    [1, 3, 2, 0]
    """

    dimension: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dimension < 1:
            raise DesignError(
                f"gradient balancing needs gradients of dimension 1 or more; got dimension="
                f"{self.dimension}."
            )

    @property
    def feedback(self) -> Feedback:
        return "gradients"

    def fresh_memory(self, key: int) -> State:
        zeros = np.zeros(self.dimension)
        return {
            "permutation": generator(key, "first").permutation(self.num_examples),
            "side": np.zeros(self.num_examples, dtype=np.int64),
            "sum": zeros,
            "mean": zeros.copy(),
            "total": zeros.copy(),
        }

    def rows(self, key: int, position: int) -> np.ndarray:
        return self.rows_given(key, position, self.fresh_memory(key))

    def rows_given(
        self, key: int, position: int, memory: State, redraws: Sequence[tuple[int, int]] = ()
    ) -> np.ndarray:
        return self._slice(memory["permutation"], position)

    def update_memory(
        self, memory: State, num_shown: int, rows: np.ndarray, values: np.ndarray
    ) -> State:
        if values.shape[1] != self.dimension:
            raise RecipeError(
                f"gradient balancing was set up for gradients of dimension {self.dimension}; got "
                f"{values.shape[1]}."
            )
        side, running, total = memory["side"].copy(), memory["sum"].copy(), memory["total"].copy()
        front, back = int(max(side.max(), 0)), int(min(side.min(), 0))
        for row, gradient in zip(rows, values, strict=True):
            if side[row]:  # shown twice in this epoch, by a treatment
                continue
            centred = gradient - memory["mean"]
            total += gradient
            if running @ centred < 0:  # |sum + c| < |sum - c|
                front += 1
                side[row] = front
                running += centred
            else:
                back -= 1
                side[row] = back
                running -= centred
        updated = {**memory, "side": side, "sum": running, "total": total}
        return self._begin_epoch(updated) if num_shown % self.steps_per_epoch == 0 else updated

    def _begin_epoch(self, memory: State) -> State:
        old, side = memory["permutation"], memory["side"]
        ranks = side[old]  # in the old order, so that what was not shown keeps its order
        group = np.where(ranks > 0, 0, np.where(ranks == 0, 1, 2))
        zeros = np.zeros(self.dimension)
        return {
            **memory,
            "permutation": old[np.lexsort((ranks, group))],
            "side": np.zeros_like(side),
            "sum": zeros,
            "mean": memory["total"] / max(1, np.count_nonzero(side)),
            "total": zeros.copy(),
        }

    @property
    def lifetime(self) -> Lifetime:
        return Lifetime("unbounded")


def herding_objective(vectors: np.ndarray, permutation: np.ndarray) -> float:
    """Return the largest Euclidean norm of a prefix sum of centred vectors [N, D], in this order.

        max over k of |sum over t <= k of (z[permutation[t]] - mean of z)|

    Welling 2009, "Herding dynamical weights to learn"; Lu, Guo & De Sa 2022 (arXiv:2205.10733), section 3.

    >>> herding_objective(np.array([[1.0], [1.0], [-1.0], [-1.0]]), np.array([0, 2, 1, 3]))
    1.0
    """
    centred = vectors - vectors.mean(axis=0)
    return float(np.linalg.norm(np.cumsum(centred[permutation], axis=0), axis=1).max())
