"""Half-life of a carrier: the steps in which the state of a source forgets half of a reset."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import xarray as xr

from bygones.analysis.arms import Arms
from bygones.analysis.estimators import Estimate, paired_t
from bygones.core.study_facts import facts_of
from bygones.core.values import Window
from bygones.dynamics.base import AbstractQuantity
from bygones.dynamics.lifetime import half_life
from bygones.study.design import Arm, Study
from bygones.training.interventions import Reset
from bygones.training.probes import Carrier
from bygones.training.recipe import Recipe
from bygones.training.treatment import Treatment

_ARM = "reset"


@dataclass(frozen=True)
class CarrierHalfLife(AbstractQuantity):
    """Half-life, in steps, of the distance between a reset source and the control's.

        d_s(h) = ‖x_s(reset, h) − x_s(control, h)‖₂ = d_s(0) · 2^(−h / half-life)

    x: the source's arrays of floats, s: a seed, h: a horizon. A least-squares line through log₂ d_s gives a
    half-life for each seed; the estimate is their mean, with Student's t over seeds. It is the lifetime of
    the carrier and not of its effect, which can be far longer. A source that feeds back into training (an
    optimizer's moments) moves the gradients too, so its decay is exponential only at first.
    """

    source: str
    leaves: str = "*"
    horizons: tuple[int, ...] = (1, 3, 5, 9)

    def design(self, recipe: Recipe, fork_at: int, seeds: Iterable[int]) -> Study:
        """Return a study that resets the source at the fork and observes its arrays."""
        at = Window(fork_at, fork_at + 1)
        return Study(
            recipe,
            [Arm(_ARM, Treatment(self.source, Reset(), at, self.leaves))],
            fork_at=fork_at,
            horizons=self.horizons,
            seeds=seeds,
            name=f"half-life of {self.source}",
            probe=Carrier(self.source, self.leaves),
        )

    def estimate(self, outcomes: xr.Dataset) -> Estimate:
        """Estimate the half-life. Raises `ValueError` where the two are equal at an observed step."""
        arms = Arms.of(outcomes)
        values = outcomes["values"].values[:, :, :, 0, :]  # (seed, arm, step, size)
        gaps = np.linalg.norm(values[:, arms.index(_ARM)] - values[:, arms.control], axis=-1)
        steps = np.asarray(outcomes["step"].values) - facts_of(outcomes).fork_at
        return paired_t(np.array([half_life(steps, gap) for gap in gaps]))
