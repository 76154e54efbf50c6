"""Responses: vectors by which the arms of a study differ from its control, in function space."""

from __future__ import annotations

import numpy as np
import xarray as xr

from bygones.analysis.arms import Arms


def responses(outcomes: xr.Dataset, arm: str) -> np.ndarray:
    """Return δ = z_arm − z_control of the observed outputs of the first repeat, float64 [R, H, N·C]."""
    arms = Arms.of(outcomes)
    kind = "values" if "values" in outcomes else "logits"
    observed = outcomes[kind].values  # (seed, arm, step, input, class)
    gaps = observed[:, arms.index(arm)].astype(np.float64) - observed[:, arms.control]
    return gaps.reshape(*gaps.shape[:2], -1)
