"""Vectors on the state of a run: its arrays of floats, by source and leaf, and arithmetic on them.

    z = (weights, moments, running statistics, averages, …)      what a tangent or an adjoint is a vector of

Counters, positions, keys and settings are no part of z: they hold for all vectors at a boundary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from bygones.core.values import Leaf, State
from bygones.training.moment_lifetimes import is_counter
from bygones.training.run import Snapshot

Vector = Mapping[str, Mapping[str, Tensor]]  # by source, then by leaf

# A leaf that an optimizer's next step creates acts as zeros until then.
_ACTS_AS_ZERO = ("momentum_buffer", "exp_avg", "exp_avg_sq", "square_avg", "grad")


def is_float(name: str, leaf: Leaf) -> bool:
    """Return True for a leaf that is part of z: a tensor of floats that is not a counter.

    >>> is_float("w/exp_avg", torch.zeros(2)), is_float("w/step", torch.zeros(())), is_float("w", 1.0)
    (True, False, False)
    """
    floats = isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.numel() > 0
    return floats and not is_counter(name.rpartition("/")[2])


def vector_of(states: Mapping[str, State]) -> dict[str, dict[str, Tensor]]:
    """Return z of captured states: the tensors themselves, not copies. Sources without any are left out."""
    found = {
        source: {name: leaf for name, leaf in state.items() if is_float(name, leaf)}
        for source, state in states.items()
    }
    return {source: leaves for source, leaves in found.items() if leaves}


def replaced(snapshot: Snapshot, vector: Vector) -> Snapshot:
    """Return a snapshot whose leaves in `vector` have these values; all others are as they were."""
    states = {
        source: {**state, **vector.get(source, {})} for source, state in snapshot.states.items()
    }
    return Snapshot(
        snapshot.step,
        states,
        snapshot.entries,
        snapshot.diverged_at,
        snapshot.ids_chain,
        snapshot.batch_chain,
    )


def each(vector: Vector) -> Iterator[tuple[str, str, Tensor]]:
    """Yield source, leaf and tensor."""
    for source, leaves in vector.items():
        for name, tensor in leaves.items():
            yield source, name, tensor


def transform(vector: Vector, function: Callable[[str, str, Tensor], Tensor]) -> Any:
    """Return a vector of `function(source, leaf, tensor)`."""
    return {
        source: {name: function(source, name, tensor) for name, tensor in leaves.items()}
        for source, leaves in vector.items()
    }


def difference(
    one: Mapping[str, State], other: Mapping[str, State]
) -> dict[str, dict[str, Tensor]]:
    """Return z(one) − z(other), in float64. A buffer that only one has yet is zeros in the other.

    Raises `ValueError`, with the leaf, where only one of the two has a leaf that does not begin as zeros.
    """
    left, right = vector_of(one), vector_of(other)
    found: dict[str, dict[str, Tensor]] = {}
    for source in left.keys() | right.keys():
        here, there = left.get(source, {}), right.get(source, {})
        for name in sorted(here.keys() | there.keys()):
            if (name not in here or name not in there) and not name.endswith(_ACTS_AS_ZERO):
                raise ValueError(f"{source}/{name}")
            known = here.get(name, there.get(name))
            assert known is not None
            zero = torch.zeros_like(known)
            gap = here.get(name, zero).double() - there.get(name, zero).double()
            found.setdefault(source, {})[name] = gap
    return found


def moved(vector: Vector, by: Vector, factor: float) -> dict[str, dict[str, Tensor]]:
    """Return vector + factor · by; leaves that only `by` has are zeros before."""
    found = {source: dict(leaves) for source, leaves in vector.items()}
    for source, name, tensor in each(by):
        leaves = found.setdefault(source, {})
        here = leaves.get(name)
        step = factor * tensor
        leaves[name] = step if here is None else (here.double() + step).to(here.dtype)
    return found


def dot(one: Vector, other: Vector) -> float:
    """Return the inner product over the leaves that both have, in float64."""
    return math.fsum(
        float((tensor.double() * other[source][name].double()).sum())
        for source, name, tensor in each(one)
        if name in other.get(source, {})
    )


def norm(vector: Vector) -> float:
    """Return the Euclidean norm."""
    return math.sqrt(dot(vector, vector))
