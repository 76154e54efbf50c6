"""Served weights: the model as an optimizer with `eval()` and `train()` gives it out for evaluation.

    schedule-free     x = y + (1 − 1/β₁)(z − y)     training holds y, and x is served

Its own `eval(); train()` does not return to y to the bit, so a copy is switched and the run keeps its
weights. Defazio et al. 2024 (arXiv:2405.15682).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, TypeVar

from torch import nn
from torch.optim import Optimizer

Module = TypeVar("Module", bound=nn.Module)


def served(module: Module, optimizers: Iterable[Optimizer]) -> Module:
    """Return the module itself, or a copy with the weights that its optimizers serve.

    A copy is made only where an optimizer of this module's parameters is in its training mode: it has
    `eval`, and says `train_mode` in its groups, as schedule-free does.
    """
    parameters = {id(p) for p in module.parameters()}
    switching = [
        o
        for o in optimizers
        if callable(getattr(o, "eval", None))
        and any(group.get("train_mode") for group in o.param_groups)
        and any(id(p) in parameters for group in o.param_groups for p in group["params"])
    ]
    if not switching:
        return module
    copied: tuple[Module, list[Any]] = copy.deepcopy((module, switching))
    for optimizer in copied[1]:
        optimizer.eval()
    return copied[0]
