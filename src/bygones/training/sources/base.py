"""Memory sources: named parts of a run's state that can be captured, restored and reset."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor

from bygones.core.errors import DesignError, RecipeError
from bygones.core.text import join_names
from bygones.core.values import Capability, Leaf, Lifetime, Origin, State, Visibility
from bygones.training.orders.base import AbstractOrder
from bygones.training.recipe import Memory, Parts


class Location(Protocol):
    """Where a leaf lies in a script, and the value that was found there."""

    @property
    def path(self) -> str: ...

    @property
    def value(self) -> Any: ...


class AbstractSource(ABC):
    """Base class of memory sources: one kind of memory, bound to the parts of one run.

    `origin` and `visibility`: where the memory comes from, and who can see it. `capabilities`: what
    interventions may require of it. `reset_refusal`: why the source cannot be reset, if it cannot.
    `baseline`: what it held before the first update; empty where "new" does not refer to that.
    `locations`: by leaf, where it lies in a script's own variables; empty for other memory.
    `is_result`: whether it may be a mere result of training (a loss, a counter of time) that training
    does not go on from; such sources are not compared as state.
    To add a source, implement the five abstract methods in a file and add a line to `SOURCES`.
    """

    name: str
    origin: Origin
    visibility: Visibility
    capabilities: frozenset[Capability] = frozenset({"resettable", "arrays"})
    reset_refusal: ClassVar[str] = ""
    baseline: State = MappingProxyType({})
    locations: Mapping[str, Location] = MappingProxyType({})
    is_result: bool = False

    @classmethod
    @abstractmethod
    def find(cls, parts: Parts) -> Self | None:
        """Return the source bound to these parts, or None if the run has no such memory."""

    @abstractmethod
    def capture(self) -> State:
        """Return a copy of the source's state, which later steps cannot change."""

    @abstractmethod
    def restore(self, state: State) -> None:
        """Set the source to exactly `state`, in place and bit by bit; remove leaves that it does not have."""

    @abstractmethod
    def fresh(self) -> State:
        """Return the state that the source would have if it were created now."""

    @abstractmethod
    def lifetime(self) -> Lifetime:
        """Return how long the source remembers if nothing else acts on it."""

    def lifetime_of(self, leaves: str) -> Lifetime:
        """Return the lifetime of the selected leaves, where they are known to differ."""
        return self.lifetime()

    def linked_leaves(self) -> str:
        """Return why its leaves cannot be changed at random one by one, "" if they can.

        It ends a sentence: "v >= g^2 holds between square_avg and grad_avg (centered RMSprop)".
        """
        return ""

    def torn_by(self, leaves: str) -> str:
        """Return which leaves mean something only together and are treated in part by `leaves`; "" if none.

        It ends a sentence: "SOAP keeps exp_avg and exp_avg_sq in the basis Q".
        """
        return ""

    def redraws_alike(self, step: int) -> bool:
        """Return True if what is drawn anew from this step on has the law of what it replaces."""
        return False

    def unborn(self, leaves: str = "*") -> State:
        """Return zeros for the leaves, among those named, that the next step creates: they act as zeros."""
        return {}

    def imitate(self, state: State) -> None:
        """Restore a state of another run, whose leaves may be fewer."""
        self.restore(state)

    def register_policies(self, policies: Iterable[AbstractOrder]) -> None:  # noqa: B027 - most have none
        """Register the order policies that treatments switch to; only the data order has any."""


def overwrite(target: Tensor, value: Leaf, where: str) -> None:
    """Write a leaf into a tensor in place; raise `RecipeError` if shape or dtype differ (nothing is cast)."""
    if not isinstance(value, Tensor):
        value = torch.as_tensor(value)
    if value.shape != target.shape or value.dtype != target.dtype:
        raise RecipeError(
            f"cannot restore {where}: it is {_describe_tensor(target)} in this run and "
            f"{_describe_tensor(value)} in the snapshot. A restored run must be built by the same recipe."
        )
    with torch.no_grad():
        target.copy_(value)


def overwrite_all(targets: dict[str, Tensor], state: State, source: str) -> None:
    """Write a state into the tensors of the same names; raise `RecipeError` if the names differ."""
    if targets.keys() != state.keys():
        differing = sorted(targets.keys() ^ state.keys())
        raise RecipeError(
            f"cannot restore {source}: this run and the snapshot differ in {join_names(differing, limit=5)}. "
            f"A restored run must be built by the same recipe."
        )
    for name, target in targets.items():
        overwrite(target, state[name], f"{source}/{name}")


def refuse_reset(source: str, why: str) -> DesignError:
    """Build the error for a source that cannot be reset."""
    return DesignError(f"'{source}' cannot be reset: {why}")


def _describe_tensor(tensor: Tensor) -> str:
    """Write dtype and shape, such as `float32 [3, 2]`."""
    return f"{str(tensor.dtype).replace('torch.', '')} {list(tensor.shape)}"


def named_parameters(parts: Parts) -> dict[int, str]:
    """Map the `id` of each parameter to its name: the model's first, then those of `Parts.others`."""
    names: dict[int, str] = {}
    modules = {"": parts.model, **parts.others}
    for owner, module in modules.items():
        module = module.value if isinstance(module, Memory) else module
        if isinstance(module, torch.nn.Module):
            for name, parameter in module.named_parameters():
                names.setdefault(id(parameter), f"{owner}.{name}".lstrip("."))
        elif isinstance(module, Tensor):
            names.setdefault(id(module), owner)
    return names
