"""Adding seeds until the answer is narrow enough, without the interval paying for the looking."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr

from bygones.effects import per_seed
from bygones.errors import DesignError
from bygones.estimators import Estimate, confidence_sequence
from bygones.executors import AbstractExecutor
from bygones.measuring import Plan, measure, plan
from bygones.store import AbstractStore, MemoryStore
from bygones.study import Study


def measure_until(
    study: Study,
    half_width: float,
    *,
    store: AbstractStore | None = None,
    executor: AbstractExecutor | None = None,
    batch: int = 4,
    max_seeds: int = 128,
    on_batch: Callable[[Plan], None] | None = None,
) -> xr.Dataset:
    """Adds seeds to a study, `batch` at a time, until every arm's excess is known within ± half_width.

    Judged by the anytime-valid confidence sequence of each arm's excess over its matched null (headline
    distance, last horizon), so the interval at the stop still covers; Student's t, looked at again and
    again, would not. The first
    seeds are the study's own; more follow upwards from the largest. Stops at `max_seeds` at the latest.
    `on_batch` is called with each plan before it is trained.
    """
    if not half_width > 0:
        raise DesignError(
            f"a half-width is a number above 0, in the metric's unit; got {half_width}."
        )
    if batch < 1 or max_seeds < len(study.seeds):
        raise DesignError(
            f"seeds are added at least one at a time, up to at least the study's own "
            f"{len(study.seeds)}; got batch={batch} and max_seeds={max_seeds}."
        )
    store = store if store is not None else MemoryStore()
    while True:
        planned = plan(study, store)
        if on_batch is not None:
            on_batch(planned)
        outcomes = measure(study, executor=executor, planned=planned)
        num_more = min(batch, max_seeds - len(study.seeds))
        if num_more == 0 or _reached(outcomes, half_width):
            return outcomes
        following = max(study.seeds) + 1
        study = study.with_seeds([*study.seeds, *range(following, following + num_more)])


def anytime_estimates(outcomes: xr.Dataset) -> dict[str, Estimate]:
    """Each treated arm's excess at the last horizon, with its anytime-valid interval.

    Where no matched null is defined it is the headline distance itself, whose pairs may be skewed: there
    the confidence sequence promises less (docs/coverage.md).
    """
    treated = [arm["name"] for arm in outcomes.attrs["arms"] if arm["role"] == "treated"]
    return {arm: confidence_sequence(_pairs(outcomes, arm)) for arm in treated}


def _reached(outcomes: xr.Dataset, half_width: float) -> bool:
    found = anytime_estimates(outcomes).values()
    return all((estimate.high - estimate.low) / 2 <= half_width for estimate in found)


def _pairs(outcomes: xr.Dataset, arm: str) -> np.ndarray:
    metric = outcomes.attrs["headline"]
    pairs = per_seed(outcomes, metric, arm)[:, -1].values
    for other in outcomes.attrs["arms"]:
        if other["null_of"] == arm:
            return pairs - per_seed(outcomes, metric, other["name"])[:, -1].values
    return pairs
