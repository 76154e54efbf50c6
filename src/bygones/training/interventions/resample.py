"""Resample: draw anew all that is still random in an order or a stream, by its law given the past."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bygones.core.keyed_rng import mix
from bygones.core.values import Capability, State
from bygones.training.interventions.base import AbstractIntervention, Boundary


@dataclass(frozen=True)
class Resample(AbstractIntervention):
    """What follows <- another draw of its conditional law given what has been shown, at the first boundary.

    Of streams: key <- SHA-256(key | draw). Of an order: the examples of the current epoch that are not yet
    shown come in a new random order, and later epochs are drawn anew (`AbstractOrder.rows_resampled`). So
    the run that goes on as it was, and every resampled one, are exchangeable, at any step; of `Reseed`, which
    may show an example twice within the epoch, this holds only at an epoch's start. An order that is drawn
    once for all epochs stays as it is. `draw` numbers independent draws.
    """

    draw: int = 0
    requires: ClassVar[Capability] = "resampleable"

    def __call__(self, state: State, at: Boundary) -> State:
        if at.step != at.window.start:
            return state
        if "position" in state and "detour" in state:
            before = np.asarray(state.get("redraws", ()), dtype=np.int64).reshape(-1, 2)
            here = np.array([[state["position"], self.draw]], dtype=np.int64)
            return {**state, "redraws": np.concatenate([before, here])}
        return {name: mix(key, "resample", self.draw) for name, key in state.items()}
