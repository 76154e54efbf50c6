"""What can be done with a single leaf, whether it is a torch tensor, a numpy array or a number."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bygones.core.digest import as_array, is_array
from bygones.core.values import Leaf


def clone_leaf(leaf: Leaf) -> Leaf:
    """A copy of a leaf that shares no memory with it."""
    if isinstance(leaf, Tensor):
        return leaf.detach().clone()
    if isinstance(leaf, np.ndarray):
        return leaf.copy()
    return leaf


def is_continuous(leaf: Leaf) -> bool:
    """A non-empty array of floats with at least one dimension: what can be scaled, kicked, nudged.

    Plain numbers and arrays without dimensions are counters and settings; arithmetic leaves them
    alone unless they are named.
    """
    if not is_array(leaf):
        return False
    return leaf.ndim > 0 and 0 not in leaf.shape and "float" in str(leaf.dtype)


def to_float64(leaf: Leaf) -> np.ndarray:
    """A leaf's values as float64."""
    if isinstance(leaf, Tensor):
        return leaf.detach().to("cpu", torch.float64).numpy()
    return np.asarray(as_array(leaf), dtype=np.float64)


def add(leaf: Leaf, delta: np.ndarray) -> Leaf:
    """leaf + delta, in the leaf's own type and on its own device."""
    if isinstance(leaf, Tensor):
        exact = leaf.detach().to("cpu", torch.float64) + torch.from_numpy(np.asarray(delta))
        return exact.to(leaf.device, leaf.dtype)
    if isinstance(leaf, np.ndarray):
        return np.asarray(leaf.astype(np.float64) + delta).astype(leaf.dtype)
    return type(leaf)(leaf + float(delta))


def unit_direction(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A direction drawn uniformly from the unit sphere of this shape."""
    direction = rng.standard_normal(shape)
    return direction / np.linalg.norm(direction)
