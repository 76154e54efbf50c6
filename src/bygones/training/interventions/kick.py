"""Kick: add a given displacement to a source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bygones.core.catalogue import unknown_name
from bygones.core.checks import refuse
from bygones.core.errors import DesignError
from bygones.core.values import Capability, Leaf, State
from bygones.training.interventions.base import AbstractIntervention, Boundary
from bygones.training.leaves import add


@dataclass(frozen=True, eq=False)
class Kick(AbstractIntervention):
    """x <- x + by[leaf]. `by` maps leaf names to arrays or numbers; other leaves stay.

    On a flat loss, a kick q of a heavy-ball buffer (b <- mu·b + g, w <- w - lr·b) moves the weights by
    -lr·mu(1-mu^H)/(1-mu)·q in H steps: the buffer decays once before it is used. With torch's
    `nesterov=True` (w <- w - lr·(g + mu·b)) there is one factor mu more: -lr·mu²(1-mu^H)/(1-mu)·q. Raises
    `UnknownName` for a leaf that the source does not have, and `DesignError` for a wrong shape.
    """

    by: Mapping[str, Leaf]
    requires: ClassVar[Capability] = "arrays"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, delta in self.by.items():
            try:
                numbers = not np.isnan(np.asarray(delta, dtype=np.float64)).any()
            except (TypeError, ValueError):
                numbers = False
            if not numbers:
                raise refuse(f"the kick of {name}", "a number or an array of numbers", delta)

    def opposite(self) -> Kick:
        return Kick({name: -1.0 * delta for name, delta in self.by.items()})

    def __call__(self, state: State, at: Boundary) -> State:
        kicked = dict(state)
        for name, delta in self.by.items():
            if name not in state:
                raise unknown_name(f"leaf of {at.source}", name, state)
            by = np.asarray(delta, dtype=np.float64)
            shape = tuple(getattr(state[name], "shape", ()))
            if by.shape not in ((), shape):
                raise DesignError(
                    f"the kick of {at.source}/{name} has shape {list(by.shape)}; the leaf has "
                    f"{list(shape)}."
                )
            kicked[name] = add(state[name], by)
        return kicked
