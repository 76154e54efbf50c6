"""Named memory: members of `Parts.others`, such as queues, teachers, counters and generators."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from bygones.core.errors import RecipeError
from bygones.core.values import Leaf, Lifetime, State
from bygones.training.generators import generator_state, set_generator_state
from bygones.training.leaves import is_continuous
from bygones.training.nested_state import flatten, like, refill, unflatten
from bygones.training.recipe import Memory, Parts
from bygones.training.sources.base import AbstractSource, overwrite, overwrite_all


class Named(AbstractSource):
    """One member of `Parts.others`, under the name that the recipe gave it.

    Supported: tensors, modules (parameters and all buffers), numpy arrays, random generators, dicts of
    numbers, text and arrays, and objects with `state_dict` and `load_state_dict`. Anything else raises
    `RecipeError`. A reset returns to the state as the recipe built it, unless the member is a `Memory`
    with `fresh`.
    """

    def __init__(self, name: str, memory: Memory, parts: Parts | None) -> None:
        self.name = name
        self.origin = memory.origin
        self.visibility = memory.visibility
        self._memory = memory
        self._parts = parts
        self.baseline = self.capture()
        if not any(is_continuous(leaf) for leaf in self.baseline.values()):
            self.capabilities = frozenset({"resettable"})

    @classmethod
    def find(cls, parts: Parts) -> Self | None:
        """Return None: a run may have several, see `find_all`."""
        return None

    @classmethod
    def find_all(cls, parts: Parts) -> list[Named]:
        """Return a source for each member of `Parts.others`."""
        memories = {
            name: member if isinstance(member, Memory) else Memory(member)
            for name, member in parts.others.items()
        }
        return [Named(name, memory, parts) for name, memory in memories.items()]

    def capture(self) -> State:
        return self._flatten(self._memory.value)

    def _flatten(self, value: Any) -> State:
        if isinstance(value, torch.nn.Module):
            return flatten(_tensors(value), f"others['{self.name}']")
        if (generator := generator_state(value)) is not None:
            return flatten(generator, f"others['{self.name}']")
        if isinstance(value, Tensor | np.ndarray):
            return flatten({"value": value}, f"others['{self.name}']")
        if isinstance(value, MutableMapping):
            return flatten(value, f"others['{self.name}']")
        if hasattr(value, "state_dict"):
            return flatten(value.state_dict(), f"others['{self.name}']")
        raise RecipeError(
            f"others['{self.name}'] is a {type(value).__name__}, which has no state that can be "
            f"captured. Expected a tensor, module, array, generator, dict, or an object with "
            f"state_dict and load_state_dict; keep a bare number in a dict."
        )

    def restore(self, state: State) -> None:
        match self._memory.value:
            case torch.nn.Module() as module:
                overwrite_all(_tensors(module), state, self.name)
            case torch.Generator() | np.random.Generator() as generator:
                set_generator_state(generator, unflatten(state))
            case Tensor() as tensor:
                overwrite(tensor, state["value"], self.name)
            case np.ndarray() as array:
                self._check_match(array, state["value"])
                array[...] = state["value"]
            case MutableMapping() as mapping:
                refill(mapping, like(mapping, unflatten(state)))
            case other:
                if generator_state(other) is not None:
                    set_generator_state(other, unflatten(state))
                else:
                    other.load_state_dict(like(other.state_dict(), unflatten(state)))

    def _check_match(self, array: np.ndarray, value: Leaf) -> None:
        """Raise `RecipeError` if shape or dtype differ."""
        if array.shape != value.shape or array.dtype != value.dtype:
            raise RecipeError(
                f"cannot restore {self.name}: it is {array.dtype} {list(array.shape)} in this run and "
                f"{value.dtype} {list(value.shape)} in the snapshot. A restored run must be built by "
                f"the same recipe."
            )

    def fresh(self) -> State:
        if self._memory.fresh is None or self._parts is None:
            return self.baseline
        return self._flatten(self._memory.fresh(self._parts))

    def lifetime(self) -> Lifetime:
        return self._memory.lifetime


def _tensors(module: torch.nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}
