"""Double precision: the same run with every tensor of floats in float64, to take derivatives of it.

A difference of two runs that differ by 1e-7 is lost in float32. In float64, with a kick of 1e-6, a tangent
is good to about ten digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch  # noqa: F401 - for the example
from torch import Tensor, nn
from torch.optim import Optimizer

from bygones.core.values import Leaf
from bygones.dynamics.linear.vectors import is_float
from bygones.training.recipe import Memory, Recipe
from bygones.training.rewriter import Rewriter
from bygones.training.run import Run, Snapshot
from bygones.training.sources import find_sources


def run_in_float64(recipe: Recipe, seed: int, device: str = "cpu") -> Run:
    """Build a run and convert its model, averages, optimizers, other memory, batches and probe set.

    Random numbers are drawn as in the run itself and converted afterwards. What a recipe's code makes of
    its own in float32 (constants in a closure) stays so, and may raise in its first step.
    """
    run = Run(recipe, seed, device)
    parts = run.parts
    others = [one.value if isinstance(one, Memory) else one for one in parts.others.values()]
    for value in (parts.model, parts.averages, parts.loss, *others, *parts.optimizers.values()):
        _convert_in_place(value)
    parts.probe_set = converted(parts.probe_set)
    deliver = run.deliver
    run.deliver = lambda rows: converted(deliver(rows))  # type: ignore[method-assign]
    run.sources = find_sources(parts)
    run._rewriter = Rewriter(run.sources, seed)
    return run


def snapshot_in_float64(snapshot: Snapshot) -> Snapshot:
    """Convert the arrays of floats of a snapshot; counters and settings stay as they are."""

    def convert(name: str, leaf: Leaf) -> Leaf:
        return leaf.double() if is_float(name, leaf) else leaf

    states = {
        source: {name: convert(name, leaf) for name, leaf in state.items()}
        for source, state in snapshot.states.items()
    }
    return Snapshot(
        snapshot.step,
        states,
        diverged_at=snapshot.diverged_at,
        ids_chain=snapshot.ids_chain,
        batch_chain=snapshot.batch_chain,
    )


def converted(value: Any) -> Any:
    """Convert tensors of floats, and lists, tuples and dicts of tensors; return anything else unchanged.

    >>> converted((torch.zeros(1), torch.zeros(1, dtype=torch.int64)))[0].dtype
    torch.float64
    """
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, Mapping):
        return {key: converted(item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(converted(item) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(converted(item) for item in value)
    return value


def _convert_in_place(value: Any) -> None:
    if isinstance(value, nn.Module):
        value.double()
    elif isinstance(value, Tensor):
        if value.is_floating_point():
            value.data = value.data.double()
    elif isinstance(value, Optimizer):
        for state in value.state.values():
            for name, leaf in state.items():
                if is_float(name, leaf):
                    _convert_in_place(leaf)
    elif isinstance(value, Mapping):
        for item in value.values():
            _convert_in_place(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _convert_in_place(item)
