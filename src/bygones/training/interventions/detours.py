"""What the order interventions share: reading the positions to come, and replacing them."""

from __future__ import annotations

import numpy as np

from bygones.core.values import State


def upcoming_positions(state: State, length: int) -> np.ndarray:
    """The positions that an order will visit in its next `length` steps: int64 [length]."""
    waiting = np.asarray(state["detour"], dtype=np.int64)[:length]
    rest = state["position"] + np.arange(len(waiting), length)
    return np.concatenate([waiting, rest]).astype(np.int64)


def with_detour(state: State, positions: np.ndarray) -> State:
    """The order's state with its next positions replaced; what waited behind them still waits."""
    behind = np.asarray(state["detour"], dtype=np.int64)[len(positions) :]
    return {**state, "detour": np.concatenate([positions, behind]).astype(np.int64)}
