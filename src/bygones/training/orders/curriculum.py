"""Curriculum learning: easy examples first, by a given score and linear pacing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from bygones.core.checks import require_items, require_number
from bygones.core.errors import DesignError
from bygones.core.keyed_rng import generator
from bygones.core.values import Lifetime
from bygones.training.orders.base import AbstractOrder


def _score(value: Any) -> float | int:
    return require_number(value, "a score")


@dataclass(frozen=True)
class Curriculum(AbstractOrder):
    """Batches from the easiest part of the data, which grows linearly to all of it.

        open(position) = first + (1 - first) · min(1, position / growth)
        rows = without replacement from the round(open · num_examples) lowest scores

    `scores` [num_examples]: lower is easier; ties are broken by index. `first`: the share that is open
    at the start. `growth`: the length of the phase in steps, and so the order's lifetime: batches are
    drawn independently, so the order has no other memory.
    Bengio et al. 2009 (doi:10.1145/1553374.1553380); linear pacing as in Platanios et al. 2019.

    >>> order = Curriculum(6, 2, scores=(5, 4, 3, 2, 1, 0), growth=10, first=0.34)
    >>> sorted(order.rows(7, 0).tolist())
    [4, 5]
    """

    scores: tuple[float, ...]
    growth: int
    first: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        scores = require_items(
            self.scores,
            "a curriculum's scores",
            _score,
            "(0.1, 0.7)",
            most=max(self.num_examples, 1),
        )
        object.__setattr__(self, "scores", scores)
        if len(self.scores) != self.num_examples:
            raise DesignError(
                f"a curriculum needs one score for each example; got {len(self.scores)} scores for "
                f"{self.num_examples} examples."
            )
        if not 0 < self.first <= 1 or self.growth < 1:
            raise DesignError(
                f"a curriculum needs 0 < first <= 1 and a growth of at least one step; "
                f"got first={self.first}, growth={self.growth}."
            )

    @cached_property
    def _easiest_first(self) -> np.ndarray:
        return np.argsort(np.asarray(self.scores), kind="stable")

    def rows(self, key: int, position: int) -> np.ndarray:
        share = self.first + (1 - self.first) * min(1.0, position / self.growth)
        num_open = max(self.batch_size, round(share * self.num_examples))
        picked = generator(key, position).choice(num_open, size=self.batch_size, replace=False)
        return self._easiest_first[picked]

    @property
    def redraw_period(self) -> int:
        return 1

    @property
    def lifetime(self) -> Lifetime:
        return Lifetime("phase", self.growth)
