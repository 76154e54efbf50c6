"""Weights: the trained parameters of the model."""

from __future__ import annotations

from typing import ClassVar, Self

from torch import Tensor

from bygones.core.values import Capability, Lifetime, Origin, State, Visibility
from bygones.training.leaves import clone_leaf
from bygones.training.recipe import Parts
from bygones.training.sources.base import AbstractSource, overwrite_all, refuse_reset


class Weights(AbstractSource):
    """The model's parameters, which hold the path of the training so far.

        w <- w + update(gradient, optimizer memory)

    Anything in the past may influence them, so their lifetime is unbounded. They cannot be reset; kick,
    nudge or transplant them instead.
    """

    name = "weights"
    origin: Origin = "path"
    visibility: Visibility = "state_dict"
    capabilities: frozenset[Capability] = frozenset({"arrays"})
    reset_refusal: ClassVar[str] = (
        "the weights are the result of all steps, so no value is new. Use kick, nudge or transplant."
    )

    def __init__(self, parameters: dict[str, Tensor]) -> None:
        self._parameters = parameters

    @classmethod
    def find(cls, parts: Parts) -> Self | None:
        parameters: dict[str, Tensor] = dict(parts.model.named_parameters())
        return cls(parameters) if parameters else None

    def capture(self) -> State:
        return {name: clone_leaf(parameter) for name, parameter in self._parameters.items()}

    def restore(self, state: State) -> None:
        overwrite_all(self._parameters, state, self.name)

    def fresh(self) -> State:
        raise refuse_reset(self.name, self.reset_refusal)

    def lifetime(self) -> Lifetime:
        return Lifetime("unbounded")
