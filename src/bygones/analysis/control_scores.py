"""Scores of the control: how good the network is that all arms are compared with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import xarray as xr

from bygones.analysis.arms import Arms
from bygones.analysis.estimators import Estimate, paired_t
from bygones.analysis.metrics import METRICS
from bygones.analysis.predictions import Predictions, require_input
from bygones.analysis.repeats import repeats
from bygones.core.errors import DesignError
from bygones.core.study_facts import facts_of


def control_scores(outcomes: xr.Dataset, metric: str = "accuracy") -> dict[int, Estimate]:
    """Return the mean score of the control over seeds, with its t interval, by probe step.

        mean_s of Y(p_s(control))

    Y: a score, in its own scale; an interval is cut at its bounds. Where controls are repeated, the
    mean over its repeats. Seeds whose run diverged are left out.
    Raises DesignError for a distance, and for outcomes without the labels that a score needs.
    """
    facts = METRICS[metric]
    if facts.kind != "score" or "labels" not in outcomes:
        raise DesignError(
            f"'{metric}' cannot be said of the control alone: expected a score ('accuracy', 'nll') and a "
            f"study whose probe has labels."
        )
    labels = outcomes["labels"].values
    controls = [
        require_input(one, facts).values[:, Arms(facts_of(one).arms).control]
        for one in repeats(outcomes)
    ]
    scores = np.mean(
        [[facts(Predictions(seed)[facts.input_kind], labels) for seed in one] for one in controls],
        axis=0,
    )
    low, high = facts.bounds
    return {
        int(step): _within(paired_t(column), low, high)
        for step, column in zip(outcomes["step"].values, scores.T, strict=True)
    }


def _within(estimate: Estimate, low: float, high: float) -> Estimate:
    return replace(estimate, low=max(estimate.low, low), high=min(estimate.high, high))
