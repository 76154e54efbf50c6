"""Averaged modules: teachers and momentum encoders, which change although no optimizer updates them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from torch import Tensor

from bygones.core.values import Lifetime, Origin, State, Visibility
from bygones.training.leaves import clone_leaf
from bygones.training.recipe import Parts
from bygones.training.sources import AbstractSource
from bygones.training.sources.base import overwrite_all


class AveragedModule(AbstractSource):
    """Parameters and buffers of a module that follows another, by name.

    A new one equals the trained parameters of the same names (but for the first part) and shapes; tensors
    without such a parameter are as before the first update. Only the script knows the decay.
    """

    visibility: Visibility = "state_dict"

    def __init__(
        self,
        name: str,
        tensors: Mapping[str, Tensor],
        learned: Mapping[str, Tensor],
        before: Mapping[str, Tensor],
    ) -> None:
        self.name = name
        self._tensors = dict(tensors)
        self.baseline = {leaf: before.get(leaf, clone_leaf(t)) for leaf, t in tensors.items()}
        by_ending = {leaf.partition(".")[2]: t for leaf, t in learned.items()} | dict(learned)
        self._followed = {
            leaf: leader
            for leaf, t in tensors.items()
            if (leader := by_ending.get(leaf.partition(".")[2])) is not None
            and leader.shape == t.shape
        }
        self.origin: Origin = "averaging" if self._followed else "auxiliary"

    @classmethod
    def find(cls, parts: Parts) -> Self | None:
        """Return None: a recipe declares its teachers."""
        return None

    def capture(self) -> State:
        return {leaf: clone_leaf(tensor) for leaf, tensor in self._tensors.items()}

    def restore(self, state: State) -> None:
        overwrite_all(self._tensors, state, self.name)

    def fresh(self) -> State:
        today = {leaf: clone_leaf(leader) for leaf, leader in self._followed.items()}
        return {**self.baseline, **today}

    def lifetime(self) -> Lifetime:
        return Lifetime("unbounded")
