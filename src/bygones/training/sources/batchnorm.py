"""Batch normalization: the running statistics of normalization layers."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase  # the one base of all layers that keep statistics

from bygones.core.values import Lifetime, Origin, State, Visibility
from bygones.training.leaves import clone_leaf
from bygones.training.recipe import Parts
from bygones.training.sources.base import AbstractSource, overwrite_all


class BatchNorm(AbstractSource):
    """The running mean, variance and count of every BatchNorm (and InstanceNorm) layer that keeps them.

        r <- (1-m)·r + m·b      b: the batch's statistic, m: the layer's momentum

    A difference shrinks by the factor (1-m) each step, half-life ln 2 / -ln(1-m): 6.58 steps at m = 0.1.
    In train mode the statistics do not influence training: losses stay bit-equal while predictions
    change. With m = None the average is cumulative, and a difference decays like 1/count.
    Ioffe & Szegedy 2015, section 3.1 (arXiv:1502.03167).
    """

    name = "batchnorm"
    origin: Origin = "normalisation"
    visibility: Visibility = "state_dict"

    def __init__(self, layers: dict[str, _NormBase]) -> None:
        self._layers = layers

    @classmethod
    def find(cls, parts: Parts) -> Self | None:
        layers = {
            name: module
            for name, module in parts.model.named_modules()
            if isinstance(module, _NormBase) and module.running_mean is not None
        }
        return cls(layers) if layers else None

    def _buffers(self) -> dict[str, Tensor]:
        return {
            f"{name}/{key}": buffer
            for name, layer in self._layers.items()
            for key, buffer in layer.named_buffers(recurse=False)
        }

    def capture(self) -> State:
        return {name: clone_leaf(buffer) for name, buffer in self._buffers().items()}

    def restore(self, state: State) -> None:
        overwrite_all(self._buffers(), state, self.name)

    def fresh(self) -> State:
        return {
            name: torch.ones_like(b) if name.endswith("/running_var") else torch.zeros_like(b)
            for name, b in self._buffers().items()
        }

    def lifetime(self) -> Lifetime:
        momenta = [layer.momentum for layer in self._layers.values()]
        if any(momentum is None for momentum in momenta):
            return Lifetime("unbounded")
        return Lifetime.decaying(1.0 - float(min(m for m in momenta if m is not None)))
