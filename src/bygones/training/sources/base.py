"""What a source of memory is: a named part of what crosses the boundary between two steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor

from bygones.core.errors import DesignError, RecipeError
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
    """One kind of memory, bound to the parts of one run.

    A new source is a file that implements the six abstract members, and a line in `SOURCES`.

    `baseline`: what it held before the first update; empty where "new" does not refer to that.
    `locations`: by leaf, where it lies in a script's own variables; empty for other memory.
    `is_result`: whether it may be a mere result of training (a loss, a counter of time) that training
    does not go on from; such sources are not compared as state.
    """

    name: str
    origin: Origin
    visibility: Visibility
    capabilities: frozenset[Capability] = frozenset({"resettable", "arrays"})
    reset_refusal: ClassVar[str] = ""  # a source that cannot be "created now" says why
    baseline: State = MappingProxyType({})
    locations: Mapping[str, Location] = MappingProxyType({})
    is_result: bool = False

    @classmethod
    @abstractmethod
    def find(cls, parts: Parts) -> Self | None:
        """The source bound to these parts, or None if this run has no such memory."""

    @abstractmethod
    def capture(self) -> State:
        """A copy of everything the source holds; later steps cannot reach it."""

    @abstractmethod
    def restore(self, state: State) -> None:
        """Makes the source hold exactly `state`: in place, to the bit, leaves not in it removed."""

    @abstractmethod
    def fresh(self) -> State:
        """What the source would hold if it were created now."""

    @abstractmethod
    def lifetime(self) -> Lifetime:
        """How long the carrier remembers if nothing else happens to it."""

    def imitate(self, state: State) -> None:
        """Restore a state of another run, whose leaves may be fewer."""
        self.restore(state)

    def register_policies(self, policies: Iterable[AbstractOrder]) -> None:  # noqa: B027 - most have none to learn
        """Makes order policies known that a treatment brings along; nothing to do for most."""


def overwrite(target: Tensor, value: Leaf, where: str) -> None:
    """Writes a leaf into a tensor without moving it, and without casting it."""
    if not isinstance(value, Tensor):
        value = torch.as_tensor(value)
    if value.shape != target.shape or value.dtype != target.dtype:
        raise RecipeError(
            f"cannot restore {where}: it is {_kind(target)} in this run and {_kind(value)} in the "
            f"snapshot. A restored run must be built by the same recipe."
        )
    with torch.no_grad():
        target.copy_(value)


def overwrite_all(targets: dict[str, Tensor], state: State, source: str) -> None:
    """Writes a state into tensors of the same names; neither may have a name the other lacks."""
    if targets.keys() != state.keys():
        odd = sorted(targets.keys() ^ state.keys())
        raise RecipeError(
            f"cannot restore {source}: this run and the snapshot differ in {', '.join(odd[:5])}. "
            f"A restored run must be built by the same recipe."
        )
    for name, target in targets.items():
        overwrite(target, state[name], f"{source}/{name}")


def refuse_reset(source: str, why: str) -> DesignError:
    return DesignError(f"'{source}' cannot be reset: {why}")


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).replace('torch.', '')} {list(tensor.shape)}"


def named_parameters(parts: Parts) -> dict[int, str]:
    """The name of each parameter, by identity: the model's own, then those of other modules."""
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
