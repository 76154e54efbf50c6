"""The same values in another arrangement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from bygones.core.values import Capability, Leaf, State
from bygones.training.interventions.base import AbstractIntervention, Boundary
from bygones.training.interventions.detours import upcoming_positions, with_detour
from bygones.training.leaves import is_continuous


@dataclass(frozen=True)
class Permute(AbstractIntervention):
    """Shuffles the entries of each leaf; for an order, shuffles the batches of the window.

        leaf <- leaf[random permutation of its entries]        same values, same norm, no alignment
        detour <- random permutation of the window's positions  same batches, other order

    An order is permuted once, at the window's first boundary, and is as before after the window.
    `draw` numbers the permutations, if one wants several.
    """

    draw: int = 0
    requires: ClassVar[Capability] = "anything"

    def __call__(self, state: State, at: Boundary) -> State:
        if "position" in state and "detour" in state:
            if at.step != at.window.start:
                return state
            positions = upcoming_positions(state, at.window.length)
            shuffled = [at.rng.permutation(positions) for _ in range(self.draw + 1)][-1]
            return with_detour(state, shuffled)
        return {
            name: self._permuted(state[name], at) if is_continuous(state[name]) else state[name]
            for name in sorted(state)
        }

    def _permuted(self, leaf: Leaf, at: Boundary) -> Leaf:
        size = leaf.numel() if isinstance(leaf, torch.Tensor) else leaf.size
        places = [at.rng.permutation(size) for _ in range(self.draw + 1)][-1]
        return leaf.reshape(-1)[places].reshape(leaf.shape)
