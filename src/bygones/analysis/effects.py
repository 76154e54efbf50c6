"""How far a treatment moved the function, as an estimate that brings its references along.

Shapes: R seeds, A arms, H probe steps, N inputs, C classes.

For seed s, with p_s(arm) what the probe saw in that arm:

    effect     mean_s of D(p_s(treated), p_s(control))      or Y(p_s(treated)) − Y(p_s(control))
    floor      the same for the sham arm, which does nothing
    null       the same for the arm that kicks as hard, at random
    excess     mean_s of (treated − null), paired by seed
    ceiling    mean over pairs s ≠ s′ of D(p_s(control), p_s′(control)): another seed
    fraction   effect / ceiling

A distance is never negative, so its interval leaves out zero for any change at all: that is why
none is printed without these. Floor, null and excess are estimated as the effect is; ceiling and
fraction are statistics of all the seeds at once and take the jackknife.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from bygones.analysis.arms import Arms, step_index
from bygones.analysis.effect import Effect, Washout
from bygones.analysis.estimators import Estimate, Estimator, jackknife, mean_over_pairs, paired_t
from bygones.analysis.metrics import METRICS, Metric
from bygones.analysis.predictions import Predictions, require_input
from bygones.core.errors import DesignError
from bygones.core.study_facts import facts_of


def default_metrics(outcomes: xr.Dataset) -> tuple[str, ...]:
    """What is shown unless something else is asked for: the headline distance first.

    A second opinion that needs no probabilities where there are classes, and the two scores a reader asks
    for first where the right answers are known too.
    """
    classes = ("disagreement",) if "logits" in outcomes else ()
    scores = ("accuracy", "nll") if "labels" in outcomes else ()
    return (headline_metric(outcomes), *classes, *scores)


def headline_metric(outcomes: xr.Dataset) -> str:
    """Return the distance that a study leads with: the declared one, else tv, or rms of values."""
    return facts_of(outcomes).headline or ("tv" if "logits" in outcomes else "rms")


def per_seed(
    outcomes: xr.Dataset, metric: str, arm: str, reference: str = "control"
) -> xr.DataArray:
    """The paired numbers themselves, dims (seed, step): D(arm, reference) or Y(arm) − Y(reference).

    `reference` is the name of an arm; "control" and "sham" also find the arm of that role.
    """
    facts, arms = METRICS[metric], Arms.of(outcomes)
    pair = [arms.index(arm), arms.index(reference)]
    held = require_input(outcomes, facts)
    numbers = np.empty((held.sizes["seed"], held.sizes["step"]))
    for s in range(held.sizes["seed"]):
        treated, other = Predictions(held.values[s, pair])[facts.input_kind]
        if facts.kind == "distance":
            numbers[s] = facts(treated, other)
        else:
            labels = outcomes["labels"].values
            numbers[s] = facts(treated, labels) - facts(other, labels)
    return xr.DataArray(
        numbers,
        dims=("seed", "step"),
        coords={"seed": outcomes["seed"], "step": outcomes["step"]},
        name=metric,
        attrs={"arm": arm, "reference": reference, "unit": facts.unit},
    )


def effect(
    outcomes: xr.Dataset,
    arm: str,
    step: int,
    metric: str = "tv",
    estimator: Estimator = paired_t,
) -> Effect:
    """The effect of one arm by one probe step, in one metric, with all its references."""
    arms = Arms.of(outcomes)
    if arms.index(arm) == arms.control:
        raise DesignError(
            f"'{arm}' is the control, which every effect is measured against, so it has none of "
            f"its own; ask for one of: {', '.join(arms.treated)}."
        )
    return _effects(outcomes, [arm], [step], [metric], estimator)[0]


def all_effects(
    outcomes: xr.Dataset,
    metrics: Sequence[str] = ("tv",),
    estimator: Estimator = paired_t,
    steps: Iterable[int] | None = None,
) -> list[Effect]:
    """Every treated arm by every probe step in every metric, the metric changing fastest."""
    chosen = [int(step) for step in (outcomes["step"].values if steps is None else steps)]
    return _effects(outcomes, Arms.of(outcomes).treated, chosen, metrics, estimator)


def washout(effects_of_one_arm: Sequence[Effect], share: float = 0.01) -> Washout:
    """The first horizon from which an effect stays below a share of what another seed does.

    Gone is where the upper end of the interval is below `share · ceiling`. What cannot be compared
    (no interval, no ceiling) counts as standing: that it is gone has to be shown.
    """
    kinds = sorted({(found.arm, found.metric) for found in effects_of_one_arm})
    if len(kinds) != 1:
        listed = ", ".join(f"{arm} in {metric}" for arm, metric in kinds) or "nothing"
        raise DesignError(f"a washout follows one arm in one metric over its steps; got {listed}.")
    ((arm, metric),) = kinds
    if METRICS[metric].kind != "distance":
        raise DesignError(
            f"a washout is measured against the ceiling, which only distances have, and '{metric}' "
            f"is a score; try 'tv'."
        )
    over_time = sorted(effects_of_one_arm, key=lambda found: found.horizon)
    horizons = [found.horizon for found in over_time]
    standing = [place for place, found in enumerate(over_time) if not _is_gone(found, share)]
    if not standing:
        return Washout(arm, metric, share, None, horizons[0])
    last = standing[-1]
    gone_by = horizons[last + 1] if last + 1 < len(horizons) else None
    return Washout(arm, metric, share, horizons[last], gone_by)


def _is_gone(found: Effect, share: float) -> bool:
    return found.ceiling is not None and found.estimate.high < share * found.ceiling.value


# ------------------------------------------------------------------ how it is computed


@dataclass(frozen=True)
class _Reading:
    """What one metric says at one step."""

    moved: np.ndarray  # (R, A): distance from the control, or score less the control's
    levels: np.ndarray | None  # (R, A): the scores themselves
    between: np.ndarray | None  # (R, R): distance of control s (row) from control s′ (column)


def _effects(
    outcomes: xr.Dataset,
    names: Sequence[str],
    steps: Sequence[int],
    metrics: Sequence[str],
    estimator: Estimator,
) -> list[Effect]:
    facts = facts_of(outcomes)
    arms = Arms(facts.arms)
    chosen = {name: METRICS[name] for name in metrics}
    readings: dict[tuple[int, str], _Reading] = {}
    ceilings: dict[tuple[int, str], Estimate | None] = {}
    for step in steps:
        for name, reading in _read(outcomes, arms.control, chosen, step).items():
            readings[step, name] = reading
            ceilings[step, name] = _ceiling(reading)  # of the step, whatever the arm
    return [
        _one_effect(
            arms,
            arm,
            (step, step - facts.fork_at),
            name,
            readings[step, name],
            ceilings[step, name],
            estimator,
        )
        for arm in names
        for step in steps
        for name in chosen
    ]


def _read(
    outcomes: xr.Dataset, control: int, metrics: Mapping[str, Metric], step: int
) -> dict[str, _Reading]:
    """Every metric at one step. One seed's arms are in float64 at a time, and all controls."""
    h = step_index(outcomes, step)
    held = {name: require_input(outcomes, facts) for name, facts in metrics.items()}
    if not held:
        return {}
    block = next(iter(held.values())).values[:, :, h]  # (R, A, N, C); outcomes hold only one kind
    R, A = block.shape[:2]
    first = {name: np.empty((R, A)) for name in metrics}
    for s in range(R):
        views = Predictions(block[s])
        for name, facts in metrics.items():
            seen = views[facts.input_kind]
            other = seen[control] if facts.kind == "distance" else outcomes["labels"].values
            first[name][s] = facts(seen, other)
    controls = Predictions(block[:, control])
    readings = {}
    for name, facts in metrics.items():
        if facts.kind == "distance":
            readings[name] = _Reading(
                first[name], None, _between(facts, controls[facts.input_kind])
            )
        else:
            levels = first[name]
            readings[name] = _Reading(levels - levels[:, [control]], levels, None)
    return readings


def _between(facts: Metric, controls: np.ndarray) -> np.ndarray:
    """Distances between the seeds' controls, (R, N, C) -> (R, R); a diverged seed is all NaN."""
    between = np.empty((len(controls), len(controls)))
    for s, control in enumerate(controls):
        if facts.symmetric:
            between[s:, s] = facts(controls[s:], control)
            between[s, s:] = between[s:, s]
        else:
            between[:, s] = facts(controls, control)
    return between


def _ceiling(reading: _Reading) -> Estimate | None:
    if reading.between is None or np.isfinite(np.diagonal(reading.between)).sum() < 2:
        return None
    return jackknife(reading.between, statistic=mean_over_pairs)


def _one_effect(
    arms: Arms,
    arm: str,
    when: tuple[int, int],
    metric: str,
    reading: _Reading,
    ceiling: Estimate | None,
    estimator: Estimator,
) -> Effect:
    """Estimate one arm's effect with its references. `when`: the probe step, and steps since the fork."""
    a, sham, null = arms.index(arm), arms.sham, arms.null_of(arm)
    moved = reading.moved
    fraction = None
    if reading.between is not None and ceiling is not None and ceiling.value > 0.0:
        fraction = jackknife(moved[:, a], reading.between, statistic=_share_of_ceiling)
    correlation, ratio = None, None
    if reading.levels is not None:
        correlation, ratio = pairing_gain(reading.levels[:, a], reading.levels[:, arms.control])
    return Effect(
        arm=arm,
        sentence=arms[arm].sentence,
        metric=metric,
        step=when[0],
        horizon=when[1],
        estimate=estimator(moved[:, a]),
        floor=None if sham is None else estimator(moved[:, sham]),
        null=None if null is None else estimator(moved[:, null]),
        excess=None if null is None else estimator(moved[:, a] - moved[:, null]),
        ceiling=ceiling,
        fraction=fraction,
        num_diverged=int(np.isnan(moved[:, a]).sum()),
        pair_correlation=correlation,
        variance_ratio=ratio,
        null_is=arms.describe_null(null),
    )


def _share_of_ceiling(moved: np.ndarray, between: np.ndarray) -> float:
    """effect / ceiling; NaN where there is no ceiling."""
    ceiling = mean_over_pairs(between)
    return float(moved.mean() / ceiling) if ceiling > 0.0 else math.nan


def pairing_gain(treated: np.ndarray, control: np.ndarray) -> tuple[float | None, float | None]:
    """Correlation within pairs, and (Var treated + Var control) / Var(treated − control).

    None where they do not exist: fewer than two pairs, or nothing varies.
    """
    both = np.isfinite(treated) & np.isfinite(control)
    if both.sum() < 2:
        return None, None
    (var_treated, covariance), (_, var_control) = np.cov(treated[both], control[both])
    var_paired = float(np.var(treated[both] - control[both], ddof=1))
    product = var_treated * var_control
    correlation = float(covariance / math.sqrt(product)) if product > 0.0 else None
    ratio = float((var_treated + var_control) / var_paired) if var_paired > 0.0 else None
    return correlation, ratio
