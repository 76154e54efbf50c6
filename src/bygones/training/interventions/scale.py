"""Scale: multiply a source by a factor, the dose of a dose-response curve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from bygones.core.values import Capability, Leaf, State
from bygones.training.interventions.base import AbstractIntervention, Boundary
from bygones.training.leaves import is_continuous


@dataclass(frozen=True)
class Scale(AbstractIntervention):
    """x <- alpha·x. Counters and settings (leaves without dimensions) stay, unless `leaves` selects them.

    alpha = 1 is a sham; alpha = 0 is a reset that keeps the counters.
    """

    alpha: float
    requires: ClassVar[Capability] = "arrays"

    def opposite(self) -> Scale | None:
        """Return the scaling by 2 − alpha: x moves by the same amount the other way."""
        return Scale(2.0 - self.alpha) if self.alpha != 1.0 else None

    def __call__(self, state: State, at: Boundary) -> State:
        return {name: self._scale_leaf(leaf, at.leaves != "*") for name, leaf in state.items()}

    def _scale_leaf(self, leaf: Leaf, named: bool) -> Leaf:
        if is_continuous(leaf) or (
            isinstance(leaf, torch.Tensor) and leaf.is_floating_point() and named
        ):
            return leaf * float(self.alpha)
        return leaf * float(self.alpha) if isinstance(leaf, float) and named else leaf
