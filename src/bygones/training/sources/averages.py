"""Weight averaging: exponential moving averages (EMA) and stochastic weight averaging (SWA)."""

from __future__ import annotations

import inspect
from typing import Self

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from bygones.core.values import Lifetime, Origin, State, Visibility
from bygones.training.leaves import clone_leaf
from bygones.training.recipe import Parts
from bygones.training.sources.base import AbstractSource, overwrite_all


class Averages(AbstractSource):
    """The weights, buffers and update count of an `AveragedModel`.

        EMA:  a <- d·a + (1-d)·w      e-fold -1/ln(d) steps
        SWA:  a <- a + (w - a)/(n+1), n <- n+1      unbounded

    A new average equals the present weights and has count 0. The count is memory too: it decides whether
    the next update copies or averages. Izmailov et al. 2018 (arXiv:1803.05407).
    """

    origin: Origin = "averaging"
    visibility: Visibility = "state_dict"

    def __init__(
        self, averages: AveragedModel, model: torch.nn.Module, name: str = "averages"
    ) -> None:
        self.name = name
        self._averages = averages
        self._model = model

    @classmethod
    def find(cls, parts: Parts) -> Self | None:
        return cls(parts.averages, parts.model) if parts.averages is not None else None

    def _tensors(self) -> dict[str, Tensor]:
        return {**dict(self._averages.named_parameters()), **dict(self._averages.named_buffers())}

    def capture(self) -> State:
        return {name: clone_leaf(tensor) for name, tensor in self._tensors().items()}

    def restore(self, state: State) -> None:
        overwrite_all(self._tensors(), state, self.name)

    def fresh(self) -> State:
        present = {**dict(self._model.named_parameters()), **dict(self._model.named_buffers())}
        state = {f"module.{name}": clone_leaf(tensor) for name, tensor in present.items()}
        counters = {n: torch.zeros_like(t) for n, t in self._tensors().items() if n == "n_averaged"}
        return {**state, **counters}

    def lifetime(self) -> Lifetime:
        """Read EMA's decay from the closure of the averaging function; without one it is SWA, unbounded."""
        for function in (self._averages.multi_avg_fn, self._averages.avg_fn):
            # torch wraps the averaging function in no_grad.
            unwrapped = None if function is None else inspect.unwrap(function)
            if inspect.isfunction(unwrapped):
                decay = inspect.getclosurevars(unwrapped).nonlocals.get("decay")
                if decay is not None:
                    return Lifetime.decaying(float(decay))
        return Lifetime("unbounded")
