"""Exact washout: the step from which a treated run equals its control again in every bit."""

from __future__ import annotations

import numpy as np
import xarray as xr

from bygones.analysis.arms import Arms


def exact_washout(outcomes: xr.Dataset, arm: str) -> int | None:
    """Return the step by which an arm equals its control in all that it carries, in every seed; None if not.

    Read from where the arm's training was ended for that reason (`study.merging`): the states were compared
    at growing gaps after the treatment, so the runs may have been equal some steps earlier. Stronger than any
    interval: from this step on the effect is 0 by proof. Of repeated arms, that of the first repeat.
    """
    if "equal_from" not in outcomes:
        return None
    steps = outcomes["equal_from"].values[:, Arms.of(outcomes).index(arm)]
    return int(steps.max()) if np.isfinite(steps).all() else None
