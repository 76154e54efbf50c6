"""Cursor: the position of a run in its data order, its memory, and so the order's whole state."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

from bygones.core.errors import RecipeError
from bygones.core.values import State
from bygones.training.orders.base import AbstractOrder

NO_DETOUR = np.zeros(0, dtype=np.int64)


@dataclass
class Cursor:
    """The state of a data order. `next` returns the batch and moves on:

        at = detour[0] if there is a detour, else position;   batch = order.rows_given(key, at, memory)
        detour <- detour[1:];   position <- position + 1

    A *detour* is a list of positions to visit first, one each step. Exchanging two windows of batches,
    or shuffling one, is a detour: the same batches in another order, and no change afterwards.
    `redraws`: where all that was still random has been drawn anew, see `rows_resampled`; mostly empty.
    `memory`: arrays of an order that depends on more than key and position; mostly empty. The training step
    of such an order calls `give_feedback` once in each step.
    """

    order: AbstractOrder
    key: int
    position: int = 0
    detour: np.ndarray = field(default_factory=lambda: NO_DETOUR)
    redraws: tuple[tuple[int, int], ...] = ()
    ids_chain: str = ""  # SHA-256 chain over the example ids so far: a record, no memory
    memory: State = field(default_factory=dict)
    awaits_feedback: bool = field(default=False, init=False)  # within a step alone

    def __post_init__(self) -> None:
        self.complete_memory()

    def next(self) -> np.ndarray:
        """Return the example indices of this step's batch, int64 [batch_size], and advance."""
        at = self.position
        if len(self.detour):
            at, self.detour = int(self.detour[0]), self.detour[1:]
        self.position += 1
        rows = self.order.rows_given(self.key, at, self.memory, self.redraws)
        self.awaits_feedback = bool(self.order.feedback)
        link = hashlib.sha256(self.ids_chain.encode())
        link.update(rows.tobytes())
        self.ids_chain = link.hexdigest()
        return rows

    def give_feedback(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Tell the order how the model did on the examples of this step's batch.

        `rows` int64 [B]: their indices. `values`: losses [B] or gradients [B, D], as `order.feedback` says;
        an order that needs none ignores them. Raises `RecipeError` for values that are not one an example.
        """
        if not self.order.feedback:
            return
        rows, values = np.asarray(rows), np.asarray(values, dtype=np.float64)
        dimensions = 1 if self.order.feedback == "losses" else 2
        if values.ndim != dimensions or rows.shape != values.shape[:1]:
            raise RecipeError(
                f"the feedback to {type(self.order).__name__} must be the {self.order.feedback}, of shape "
                f"{'[B]' if dimensions == 1 else '[B, D]'}, of the B examples in rows; got "
                f"{list(values.shape)} for rows of shape {list(rows.shape)}."
            )
        self.memory = self.order.update_memory(self.memory, self.position, rows, values)
        self.awaits_feedback = False

    def check_feedback(self) -> None:
        """Raise `RecipeError` if the order needs feedback on this step's batch and got none."""
        if self.awaits_feedback:
            raise RecipeError(
                f"the order {type(self.order).__name__} needs the {self.order.feedback} of each batch, and "
                f"the training step gave none. Call parts.cursor.give_feedback(rows, "
                f"{self.order.feedback}) in the step; rows are the indices of the batch's examples."
            )

    def complete_memory(self) -> None:
        """Add what the order needs and lacks: at first, and where a treatment has switched to it.

        Not in every step, since a fresh memory may take a permutation of all examples to make.
        """
        if self.order.feedback:
            self.memory = {**self.order.fresh_memory(self.key), **self.memory}
