"""Source state as a probe: the float arrays of a source, to measure how long the carrier remembers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from bygones.core.errors import RecipeError
from bygones.core.values import match_leaves
from bygones.training.leaves import is_continuous, to_float64
from bygones.training.probes.base import AbstractProbe
from bygones.training.recipe import Parts
from bygones.training.sources import find_sources


@dataclass(frozen=True)
class Carrier(AbstractProbe):
    """The float arrays of a source, concatenated in the order of leaf names: float64 [1, total size].

    The distance between a treated carrier and the control's shows how long the *carrier* remembers,
    which differs from how long the function does. An optimizer's buffers that its next step creates, after a
    reset, count as the zeros that they act as. Raises `RecipeError` if no leaf matches.
    """

    source: str
    leaves: str = "*"
    kind: ClassVar[Literal["logits", "values"]] = "values"

    def __call__(self, parts: Parts) -> np.ndarray:
        source = find_sources(parts)[self.source]
        state = {**source.unborn(self.leaves), **source.capture()}
        chosen = [
            state[n] for n in sorted(match_leaves(state, self.leaves)) if is_continuous(state[n])
        ]
        if not chosen:
            raise RecipeError(
                f"'{self.source}' holds no arrays of floats here that match '{self.leaves}', so there "
                f"is no carrier to observe."
            )
        return np.concatenate([to_float64(leaf).reshape(-1) for leaf in chosen])[None, :]
