"""Treatment effects: how far a treatment moved the function, estimated with all its references.

Shapes: R seeds, A arms, H probe steps, N inputs, C classes.

For seed s, with p_s(arm) the probed outputs of that arm:

    effect     mean_s of D(p_s(treated), p_s(control))      or Y(p_s(treated)) − Y(p_s(control))
    floor      the same for the sham arm (negative control), which changes nothing
    null       the same for the matched null: a random change of the same size
    excess     mean_s of (treated − null), paired by seed
    draws      an arm that is itself a random change (another order, other streams, a nudge) has no null,
               since that would be another draw of it: the effect is the mean over the draws' distances
    ceiling    mean over pairs s ≠ s′ of D(p_s(control), p_s′(control)): another seed
    fraction   effect / ceiling

Where arms are repeated within each seed (siblings, forks; `analysis/repeats.py`), each of these numbers of a
seed is the mean over its repeats, and the seed stays the unit.

A distance is never negative, so its interval leaves out zero for any change at all: that is why
none is printed without these. Floor, null and excess are estimated as the effect is; ceiling and
fraction are statistics of all the seeds at once and take the jackknife, with the same kind of interval.
Which kind is the rule that the study records: `by_skewness`, or the confidence sequence if seeds were
added until an interval was narrow enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import xarray as xr

from bygones.analysis.arms import Arms, step_index
from bygones.analysis.effect import Effect, Washout
from bygones.analysis.estimators import (
    ESTIMATORS,
    Estimate,
    Estimator,
    by_skewness,
    confidence_sequence,
    hierarchical,
    jackknife,
    mean_over_pairs,
    pair_means_without_each,
)
from bygones.analysis.exact_washout import exact_washout
from bygones.analysis.metrics import METRICS, Metric
from bygones.analysis.observed_models import unreached
from bygones.analysis.predictions import Predictions, require_input
from bygones.analysis.repeats import mean_of_finite, repeats, variance_components
from bygones.analysis.resolution import resolution
from bygones.analysis.share import share_limit, share_of_ceiling
from bygones.core.errors import DesignError
from bygones.core.study_facts import StudyFacts, facts_of


def default_metrics(outcomes: xr.Dataset) -> tuple[str, ...]:
    """Return the metrics that are shown by default: the headline distance first.

    For a classifier disagreement too, which needs no probabilities; with labels, accuracy and NLL.
    """
    classes = ("disagreement",) if "logits" in outcomes else ()
    scores = ("accuracy", "nll") if "labels" in outcomes else ()
    return (headline_metric(outcomes), *classes, *scores)


def headline_metric(outcomes: xr.Dataset) -> str:
    """Return the distance that a study leads with: the declared one, else tv, or rms of values."""
    return facts_of(outcomes).headline or ("tv" if "logits" in outcomes else "rms")


def estimator_of(facts: StudyFacts) -> Estimator:
    """Return the estimator that a study's record names for its effects; `by_skewness` if it names none."""
    return ESTIMATORS[facts.interval or "by_skewness"]


def per_seed(
    outcomes: xr.Dataset, metric: str, arm: str, reference: str = "control"
) -> xr.DataArray:
    """Return the paired differences, dims (seed, step): D(arm, reference) or Y(arm) − Y(reference).

    `reference` is the name of an arm; "control" and "sham" also find the arm of that role. Where arms are
    repeated within each seed, the mean over its repeats that are finite.
    """
    found = [_per_seed_once(one, metric, arm, reference) for one in repeats(outcomes)]
    if len(found) == 1:
        return found[0]
    return found[0].copy(data=mean_of_finite(np.stack([one.values for one in found]), axis=0))


def _per_seed_once(outcomes: xr.Dataset, metric: str, arm: str, reference: str) -> xr.DataArray:
    """Return the paired differences of one repeat, dims (seed, step)."""
    facts, arms = METRICS[metric], Arms.of(outcomes)
    pair = [arms.index(arm), arms.index(reference)]
    outputs = require_input(outcomes, facts)
    numbers = np.empty((outputs.sizes["seed"], outputs.sizes["step"]))
    for s in range(outputs.sizes["seed"]):
        treated, other = Predictions(outputs.values[s, pair])[facts.input_kind]
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


def effect_per_seed(outcomes: xr.Dataset, metric: str, arm: str) -> xr.DataArray:
    """Return what an arm's effect is the mean of, dims (seed, step): `per_seed`, averaged over draws.

    An arm that is itself a random change has more than one draw (see `Arms.draws`).
    """
    arms, kind = Arms.of(outcomes), METRICS[metric].kind
    pairs = [
        per_seed(outcomes, metric, arms.names[one], arms.names[other])
        for one, other in arms.draws(arm)
        if other == arms.control or kind == "distance"
    ]
    return pairs[0].copy(data=np.mean([pair.values for pair in pairs], axis=0))


def effect(
    outcomes: xr.Dataset,
    arm: str,
    step: int,
    metric: str = "tv",
    estimator: Estimator | None = None,
) -> Effect:
    """Estimate the effect of one arm by one probe step, in one metric, with all its references.

    `estimator`: the study's own, `estimator_of`, if not given.
    """
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
    estimator: Estimator | None = None,
    steps: Iterable[int] | None = None,
) -> list[Effect]:
    """Estimate every treated arm's effect by every probe step in every metric; the metric changes fastest."""
    chosen = [int(step) for step in (outcomes["step"].values if steps is None else steps)]
    return _effects(outcomes, Arms.of(outcomes).treated, chosen, metrics, estimator)


def washout(effects_of_one_arm: Sequence[Effect], share: float = 0.01) -> Washout:
    """Find the first horizon from which an effect stays below a share of the ceiling.

    An effect is gone where the upper limit of its share of the ceiling, which knows the errors of both, is
    below `share` (`share_limit`: one-sided, 97.5% at a 95% interval). Without a ceiling, or with too few
    seeds for a limit, it counts as standing: its absence has to be shown.
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
    return found.share_limit is not None and found.share_limit < share


# ------------------------------------------------------------------ computation


_Draws = Sequence[tuple[int, int]]  # see `Arms.draws`


@dataclass(frozen=True)
class _MetricAtStep:
    """The numbers of one metric at one step; K repeats a seed."""

    moved: np.ndarray  # (R, K, A): distance from the control, or score less the control's
    levels: np.ndarray | None  # (R, K, A): the scores themselves
    between: np.ndarray | None  # (R, R): distance of control s (row) from control s′ (column)
    resolution: float | None  # what rounding alone moves


def _effects(
    outcomes: xr.Dataset,
    names: Sequence[str],
    steps: Sequence[int],
    metrics: Sequence[str],
    estimator: Estimator | None,
) -> list[Effect]:
    facts = facts_of(outcomes)
    estimator = estimator_of(facts) if estimator is None else estimator
    arms = Arms(facts.arms)
    chosen = {name: METRICS[name] for name in metrics}
    reach = {arm: unreached(outcomes, arm) for arm in names}
    equal = {arm: exact_washout(outcomes, arm) for arm in names}
    readings: dict[tuple[int, str], _MetricAtStep] = {}
    ceilings: dict[tuple[int, str], Estimate | None] = {}
    for step in steps:
        for name, reading in _read_repeats(outcomes, arms, chosen, step).items():
            readings[step, name] = reading
            # of the step, whatever the arm
            ceilings[step, name] = _ceiling(reading, _over_seeds(estimator))
    return [
        _one_effect(
            facts,
            arm,
            step,
            name,
            readings[step, name],
            ceilings[step, name],
            estimator,
            reach[arm],
            equal[arm],
        )
        for arm in names
        for step in steps
        for name in chosen
    ]


def _read_repeats(
    outcomes: xr.Dataset, arms: Arms, metrics: Mapping[str, Metric], step: int
) -> dict[str, _MetricAtStep]:
    """Compute every metric at one step of each repeat; what is between seeds is averaged over repeats."""
    h = step_index(outcomes, step)
    read = [_read(one, arms, metrics, int(one["step"].values[h])) for one in repeats(outcomes)]

    def joined(name: str) -> _MetricAtStep:
        found = [one[name] for one in read]
        levels = [one.levels for one in found if one.levels is not None]
        between = [one.between for one in found if one.between is not None]
        known = [one.resolution for one in found if one.resolution is not None]
        return _MetricAtStep(
            np.concatenate([one.moved for one in found], axis=1),
            np.concatenate(levels, axis=1) if levels else None,
            _mean_between(between),
            max(known, default=None),
        )

    return {name: joined(name) for name in metrics}


def _mean_between(between: Sequence[np.ndarray]) -> np.ndarray | None:
    """Average the distances between seeds over repeats, those that are finite; None without any."""
    if len(between) < 2:
        return between[0] if between else None
    return mean_of_finite(np.stack(between), axis=0)


def _read(
    outcomes: xr.Dataset, arms: Arms, metrics: Mapping[str, Metric], step: int
) -> dict[str, _MetricAtStep]:
    """Compute every metric at one step of one repeat, K = 1.

    Only one seed's arms, and all controls, are in float64 at a time.
    """
    h = step_index(outcomes, step)
    outputs = {name: require_input(outcomes, facts) for name, facts in metrics.items()}
    if not outputs:
        return {}
    # (R, A, N, C); outcomes hold only one kind.
    block = next(iter(outputs.values())).values[:, :, h]
    R, A = block.shape[:2]
    drawn = [arms.draws(name) for name in arms.treated if arms[name].redraw]
    moved = {name: np.empty((R, A)) for name in metrics}
    levels = {name: np.empty((R, A)) for name, facts in metrics.items() if facts.kind == "score"}
    for s in range(R):
        views = Predictions(block[s])
        for name, facts in metrics.items():
            seen = views[facts.input_kind]
            if facts.kind == "distance":
                moved[name][s] = _distances(facts, seen, arms.control, drawn)
            else:
                levels[name][s] = facts(seen, outcomes["labels"].values)
                moved[name][s] = _score_differences(levels[name][s], arms.control, drawn)
    branches = [Predictions(block[:, branch]) for branch in arms.branches()]
    labels = outcomes["labels"].values if "labels" in outcomes else None
    return {
        name: _MetricAtStep(
            moved[name][:, None],
            levels[name][:, None] if name in levels else None,
            _between(facts, [branch[facts.input_kind] for branch in branches])
            if facts.kind == "distance"
            else None,
            resolution(block[:, arms.control], facts, labels),
        )
        for name, facts in metrics.items()
    }


def _distances(
    facts: Metric, seen: np.ndarray, control: int, drawn: Iterable[_Draws]
) -> np.ndarray:
    """Compute one seed's distances from the control, (A, N, C) -> (A,).

    Of an arm that is itself a random change, the mean over the pairs of its draws.
    """
    from_control = facts(seen, seen[control])
    moved = from_control.copy()
    for draws in drawn:
        apart = [
            from_control[one] if other == control else facts(seen[[one]], seen[other])[0]
            for one, other in draws
        ]
        moved[draws[0][0]] = np.mean(apart)
    return moved


def _score_differences(levels: np.ndarray, control: int, drawn: Iterable[_Draws]) -> np.ndarray:
    """Compute one seed's scores less the control's, (A,) -> (A,), likewise averaged over draws.

    The difference of two draws says nothing of either: it is 0 on average.
    """
    moved = levels - levels[control]
    for draws in drawn:
        alike = [one for one, other in draws if other == control]
        moved[draws[0][0]] = np.mean(levels[alike]) - levels[control]
    return moved


def _between(facts: Metric, branches: Sequence[np.ndarray]) -> np.ndarray:
    """Compute distances between seeds, each branch (R, N, C) -> (R, R): the mean over pairs of branches.

    The branches of a seed are its control, and what is drawn by the same law. The diagonal is 0; a seed of
    which one has diverged is all NaN.
    """
    total = np.zeros((len(branches[0]), len(branches[0])))
    for one, other in product(branches, branches):
        for s, reference in enumerate(other):
            first = s if facts.symmetric else 0
            total[first:, s] += facts(one[first:], reference)
    if facts.symmetric:
        total = np.tril(total) + np.tril(total, -1).T
    total /= len(branches) ** 2
    finite = np.isfinite(np.diagonal(total))
    np.fill_diagonal(total, np.where(finite, 0.0, math.nan))
    return total


def _over_repeats(estimator: Estimator, numbers: np.ndarray) -> Estimate:
    """Estimate from one number a seed and repeat, (R, K)."""
    if numbers.shape[1] == 1:
        return estimator(numbers[:, 0])
    return hierarchical(numbers, interval=estimator)


def _over_seeds(estimator: Estimator) -> Estimator | None:
    """Return the interval of what is jackknifed over seeds: this estimator's if it can be, else Student's."""
    return estimator if estimator in (by_skewness, confidence_sequence) else None


def _ceiling(reading: _MetricAtStep, interval: Estimator | None) -> Estimate | None:
    if reading.between is None or np.isfinite(np.diagonal(reading.between)).sum() < 2:
        return None
    return jackknife(
        reading.between,
        statistic=mean_over_pairs,
        interval=interval,
        leave_one_out=pair_means_without_each,
    )


def _one_effect(
    facts: StudyFacts,
    arm: str,
    step: int,
    metric: str,
    reading: _MetricAtStep,
    ceiling: Estimate | None,
    estimator: Estimator,
    unreached: str,
    equal_from: int | None,
) -> Effect:
    """Estimate one arm's effect with its references."""
    arms = Arms(facts.arms)
    a, sham, null = arms.index(arm), arms.sham, arms.null_of(arm)
    num_draws = len(arms.draws(arm)) if METRICS[metric].kind == "distance" else 1
    moved = reading.moved
    fraction, limit = None, None
    if reading.between is not None and ceiling is not None:
        if ceiling.value > (reading.resolution or 0.0):  # of a ceiling that is rounding, no share
            interval, of_seeds = _over_seeds(estimator), mean_of_finite(moved[:, :, a], axis=1)
            fraction = share_of_ceiling(of_seeds, reading.between, interval)
            limit = share_limit(of_seeds, reading.between, fraction, ceiling)
    correlation, ratio = None, None
    if reading.levels is not None:
        of_arm, of_control = (
            mean_of_finite(reading.levels[:, :, i], axis=1) for i in (a, arms.control)
        )
        correlation, ratio = pairing_gain(of_arm, of_control)
    return Effect(
        arm=arm,
        sentence=arms[arm].sentence,
        metric=metric,
        step=step,
        horizon=step - facts.fork_at,
        estimate=_over_repeats(estimator, moved[:, :, a]),
        floor=None if sham is None else _over_repeats(estimator, moved[:, :, sham]),
        null=None if null is None else _over_repeats(estimator, moved[:, :, null]),
        excess=None
        if null is None
        else _over_repeats(estimator, moved[:, :, a] - moved[:, :, null]),
        ceiling=ceiling,
        fraction=fraction,
        num_diverged=int(np.isnan(moved[:, :, a]).all(axis=1).sum()),
        pair_correlation=correlation,
        variance_ratio=ratio,
        null_is=arms.describe_null(null),
        unreached=unreached,
        no_null=arms.no_null(arm),
        redraw=arms[arm].redraw,
        num_draws=num_draws,
        share_limit=limit,
        resolution=reading.resolution,
        components=variance_components(moved[:, :, a], facts.repeats),
        by_fork=_by_fork(facts, moved[:, :, a], estimator),
        equal_from=equal_from,
    )


def _by_fork(
    facts: StudyFacts, moved: np.ndarray, estimator: Estimator
) -> tuple[tuple[int, Estimate], ...]:
    """Estimate the effect at each fork alone, from (R, K); empty where there is one fork."""
    forks = [repeat.fork_at for repeat in facts.repeats]
    chosen = {fork: [k for k, at in enumerate(forks) if at == fork] for fork in forks}
    if len(chosen) < 2:
        return ()
    return tuple((fork, _over_repeats(estimator, moved[:, ks])) for fork, ks in chosen.items())


def pairing_gain(treated: np.ndarray, control: np.ndarray) -> tuple[float | None, float | None]:
    """Return the correlation within pairs, and (Var treated + Var control) / Var(treated − control).

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
