"""Detours of an order: read the upcoming positions of a data order, and replace them."""

from __future__ import annotations

import numpy as np

from bygones.core.values import State


def upcoming_positions(state: State, length: int) -> np.ndarray:
    """Return the positions that an order visits in its next `length` steps: int64 [length]."""
    detour = np.asarray(state["detour"], dtype=np.int64)[:length]
    rest = state["position"] + np.arange(len(detour), length)
    return np.concatenate([detour, rest]).astype(np.int64)


def with_detour(state: State, positions: np.ndarray) -> State:
    """Return the order's state with its next positions replaced; an earlier detour continues after them."""
    rest = np.asarray(state["detour"], dtype=np.int64)[len(positions) :]
    return {**state, "detour": np.concatenate([positions, rest]).astype(np.int64)}
