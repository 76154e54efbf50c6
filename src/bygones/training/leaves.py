"""Arithmetic on leaves: copy, convert and add, for torch tensors, numpy arrays and numbers alike."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bygones.core.digest import as_array, is_array
from bygones.core.values import Leaf


def clone_leaf(leaf: Leaf) -> Leaf:
    """Copy a leaf; the copy shares no memory with it."""
    if isinstance(leaf, Tensor):
        return leaf.detach().clone()
    if isinstance(leaf, np.ndarray):
        return leaf.copy()
    return leaf


def is_continuous(leaf: Leaf) -> bool:
    """Return True for a non-empty float array with at least one dimension.

    These are the leaves that interventions scale, kick or nudge. Plain numbers and arrays without
    dimensions are counters and settings, which arithmetic leaves unchanged unless they are named.

    >>> is_continuous(np.zeros(3)), is_continuous(np.zeros(())), is_continuous(7)
    (True, False, False)
    """
    if not is_array(leaf):
        return False
    return leaf.ndim > 0 and 0 not in leaf.shape and "float" in str(leaf.dtype)


def to_float64(leaf: Leaf) -> np.ndarray:
    """Convert a leaf to a numpy array of float64."""
    if isinstance(leaf, Tensor):
        return leaf.detach().to("cpu", torch.float64).numpy()
    return np.asarray(as_array(leaf), dtype=np.float64)


def add(leaf: Leaf, delta: np.ndarray) -> Leaf:
    """Return leaf + delta, added in float64 and rounded to the leaf's type, on the leaf's device."""
    if isinstance(leaf, Tensor):
        exact = leaf.detach().to("cpu", torch.float64) + torch.from_numpy(np.asarray(delta))
        return exact.to(leaf.device, leaf.dtype)
    if isinstance(leaf, np.ndarray):
        return np.asarray(leaf.astype(np.float64) + delta).astype(leaf.dtype)
    return type(leaf)(leaf + float(delta))


def unit_direction(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draw a direction uniformly from the unit sphere: a float64 array of this shape with norm 1."""
    direction = rng.standard_normal(shape)
    return direction / np.linalg.norm(direction)
