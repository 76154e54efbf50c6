"""Sequential testing: add seeds until the anytime-valid interval is narrow enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import xarray as xr

from bygones.analysis.arms import Arms
from bygones.analysis.effects import effect_per_seed, headline_metric, per_seed
from bygones.analysis.estimators import Estimate, confidence_sequence, half_width_reached
from bygones.analysis.power import require_half_width
from bygones.core.errors import DesignError
from bygones.core.study_facts import StoppingFacts, StudyFacts
from bygones.store import AbstractStore, MemoryStore
from bygones.store.outcomes import read_manifest, read_outcomes, write_manifest
from bygones.study.design import Study
from bygones.study.executors import AbstractExecutor, Serial
from bygones.study.measure import measure
from bygones.study.plan import Plan, plan
from bygones.training.lanes.lane_width import Width


def measure_until(
    study: Study,
    half_width: float,
    *,
    store: AbstractStore | None = None,
    executor: AbstractExecutor | None = None,
    lanes: Width | None = None,
    device: str = "cpu",
    merge: bool = True,
    batch: int = 4,
    max_seeds: int = 128,
    on_batch: Callable[[Plan], None] | None = None,
) -> xr.Dataset:
    """Add seeds to a study, `batch` at a time, until every arm's excess is known within ± half_width.

    Judged by the anytime-valid confidence sequence of each arm's excess over its matched null (headline
    distance, last horizon), so the interval at the stop still covers; Student's t, recomputed after
    each batch, would not. The outcomes record the rule and the batches, and with them every effect takes
    the anytime-valid interval, in reports too. The first seeds are the study's own; more follow upwards from
    the largest. Stops at `max_seeds` at the latest. `on_batch` is called with each plan before it is trained.
    `lanes` and `device` as in `plan`, `merge` as in `measure`; where seeds take their steps together, a batch
    is at least one job of them.
    """
    require_half_width(half_width)
    if batch < 1 or max_seeds < len(study.seeds):
        raise DesignError(
            f"seeds are added at least one at a time, up to at least the study's own "
            f"{len(study.seeds)}; got batch={batch} and max_seeds={max_seeds}."
        )
    store = store if store is not None else MemoryStore()
    executor = executor or Serial()
    executor.get_ready()
    batches = [tuple(study.seeds)]
    while True:
        workers = executor.num_workers or 1
        planned = plan(study, store, lanes=lanes, device=device, workers=workers)
        stopping = StoppingFacts(half_width, max_seeds, tuple(batches), reached=False)
        planned = _told(planned, stopping)
        if on_batch is not None:
            on_batch(planned)
        outcomes = measure(study, executor=executor, merge=merge, planned=planned, on_plan=on_batch)
        num_more = min(max(batch, planned.contract.lanes), max_seeds - len(study.seeds))
        reached = _reached(outcomes, half_width)
        if num_more == 0 or reached:
            return _record(store, study.name, replace(stopping, reached=reached))
        following = max(study.seeds) + 1
        batches.append(tuple(range(following, following + num_more)))
        study = study.with_seeds([*study.seeds, *batches[-1]])


def _told(planned: Plan, stopping: StoppingFacts) -> Plan:
    """Return the plan with the rule, and the interval that it needs, among what the study records."""
    return replace(planned, facts=_with(planned.facts, stopping))


def _record(store: AbstractStore, name: str, stopping: StoppingFacts) -> xr.Dataset:
    """Write how the adding of seeds ended into the study's manifest, and read its outcomes."""
    manifest = read_manifest(store, name)
    manifest = replace(manifest, facts=_with(manifest.facts, stopping))
    write_manifest(store, manifest)
    return read_outcomes(store, manifest)


def _with(facts: StudyFacts, stopping: StoppingFacts) -> StudyFacts:
    return replace(facts, interval="confidence_sequence", stopping=stopping)


def anytime_estimates(outcomes: xr.Dataset) -> dict[str, Estimate]:
    """Estimate each treated arm's excess at the last horizon, with its anytime-valid interval."""
    return {arm: confidence_sequence(pairs) for arm, pairs in judged_pairs(outcomes).items()}


def judged_pairs(outcomes: xr.Dataset) -> dict[str, np.ndarray]:
    """Return the paired differences, one a seed, that stopping is decided by: each treated arm's excess.

    Headline distance at the last horizon, less that of the matched null. Where no null is defined it is
    the distance itself, whose pairs may be skewed: there the confidence sequence promises less
    (docs/coverage.md).
    """
    metric, arms = headline_metric(outcomes), Arms.of(outcomes)
    pairs: dict[str, np.ndarray] = {}
    for arm in arms.treated:
        null = arms.null_of(arm)
        pairs[arm] = effect_per_seed(outcomes, metric, arm)[:, -1].values
        if null is not None:
            pairs[arm] = pairs[arm] - per_seed(outcomes, metric, arms.names[null])[:, -1].values
    return pairs


def _reached(outcomes: xr.Dataset, half_width: float) -> bool:
    return all(half_width_reached(pairs, half_width) for pairs in judged_pairs(outcomes).values())
