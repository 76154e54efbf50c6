"""Permute: shuffle the values of a source, or the batches of a window."""

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
    """A random permutation of the elements of each leaf; for an order, of the batches of the window.

        leaf <- leaf[random permutation of its elements]       same values, same norm, no alignment
        detour <- random permutation of the window's positions  same batches, other order

    An order is permuted once, at the first boundary of the window, and unchanged after the window.
    `draw` numbers independent permutations.
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
            name: self._permute_leaf(state[name], at) if is_continuous(state[name]) else state[name]
            for name in sorted(state)
        }

    def _permute_leaf(self, leaf: Leaf, at: Boundary) -> Leaf:
        size = leaf.numel() if isinstance(leaf, torch.Tensor) else leaf.size
        places = [at.rng.permutation(size) for _ in range(self.draw + 1)][-1]
        return leaf.reshape(-1)[places].reshape(leaf.shape)
