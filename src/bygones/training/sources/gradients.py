"""Gradient accumulation: gradients that are not yet applied at the boundary."""

from __future__ import annotations

from typing import Self

from torch import Tensor

from bygones.core.values import Lifetime, Origin, State, Visibility
from bygones.training.leaves import clone_leaf
from bygones.training.recipe import Parts
from bygones.training.sources.base import AbstractSource, named_parameters


class Gradients(AbstractSource):
    """The accumulated gradients at a boundary: `<parameter>/grad`.

        g <- g + gradient(batch)        until the optimizer steps and the gradients are cleared

    A step that clears its gradients leaves none, and then the source is empty.
    """

    name = "gradients"
    origin: Origin = "optimizer"
    visibility: Visibility = "process"

    def __init__(self, parameters: dict[str, Tensor]) -> None:
        self._parameters = parameters

    @classmethod
    def find(cls, parts: Parts) -> Self | None:
        names = named_parameters(parts)
        trained: dict[str, Tensor] = {}
        for label, optimizer in parts.optimizers.items():
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            for index, parameter in enumerate(parameters):
                unnamed = f"{label}:parameter{index}".lstrip(":")
                trained[names.get(id(parameter), unnamed)] = parameter
        return cls({**dict(parts.model.named_parameters()), **trained})

    def capture(self) -> State:
        return {
            f"{n}/grad": clone_leaf(p.grad)
            for n, p in self._parameters.items()
            if p.grad is not None
        }

    def restore(self, state: State) -> None:
        for name, parameter in self._parameters.items():
            parameter.grad = clone_leaf(state.get(f"{name}/grad"))

    def fresh(self) -> State:
        return {}

    def lifetime(self) -> Lifetime:
        return Lifetime("exact", 1)
