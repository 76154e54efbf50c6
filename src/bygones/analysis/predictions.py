"""Predictions: class probabilities of the observed outputs."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import xarray as xr
from scipy.special import log_softmax

from bygones.analysis.metrics import METRICS, Metric
from bygones.core.errors import DesignError


def probabilities(outcomes: xr.Dataset) -> xr.DataArray:
    """Return predicted class probabilities: softmax of the logits in float64, NaN where a run diverged."""
    logits = require_input(outcomes, METRICS["tv"])
    return logits.copy(data=Predictions(logits.values).probabilities).rename("probabilities")


class Predictions:
    """Probed outputs, (..., N, C), in each form that metrics take; float64, computed once."""

    def __init__(self, outputs: np.ndarray) -> None:
        numbers = np.asarray(outputs, dtype=np.float64)
        # An infinite logit has no softmax: it is a run that diverged without a NaN of its own.
        self._finite = np.where(np.isfinite(numbers), numbers, np.nan)

    def __getitem__(self, input_kind: str) -> np.ndarray:
        return getattr(self, input_kind)

    @property
    def values(self) -> np.ndarray:
        return self._finite

    @property
    def logits(self) -> np.ndarray:
        return self._finite

    @cached_property
    def log_probabilities(self) -> np.ndarray:
        return np.asarray(log_softmax(self._finite, axis=-1))

    @cached_property
    def probabilities(self) -> np.ndarray:
        return np.exp(self.log_probabilities)


def require_input(outcomes: xr.Dataset, facts: Metric) -> xr.DataArray:
    """Return the variable that a metric reads. Raises DesignError where outcomes do not hold it."""
    wanted = "values" if facts.input_kind == "values" else "logits"
    if wanted not in outcomes:
        held = "plain values" if "values" in outcomes else "logits"
        instead = "rms" if "values" in outcomes else "logit_rms"
        raise DesignError(
            f"the metric '{facts.name}' needs {wanted}, and these outcomes hold {held}; "
            f"try '{instead}'."
        )
    return outcomes[wanted]
