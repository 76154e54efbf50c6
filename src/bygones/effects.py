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

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import log_softmax

from bygones.catalogue import unknown
from bygones.errors import DesignError
from bygones.estimators import Estimate, Estimator, jackknife, mean_over_pairs, paired_t
from bygones.metrics import METRICS, Metric

# ------------------------------------------------------------------ what is reported


@dataclass(frozen=True)
class Effect:
    """What one arm did to the function by one step, in one metric; `str` is the sentence.

    `horizon` counts optimizer steps since the fork. `pair_correlation` (of treated and control)
    and `variance_ratio` (Var unpaired / Var paired: what pairing by seed was worth) exist for
    scores only. A reference that the study cannot give is None, and the sentence says so.
    """

    arm: str
    sentence: str
    metric: str
    step: int
    horizon: int
    estimate: Estimate
    floor: Estimate | None
    null: Estimate | None
    excess: Estimate | None
    ceiling: Estimate | None
    fraction: Estimate | None
    num_diverged: int
    pair_correlation: float | None
    variance_ratio: float | None
    null_is: str = "a random change as large"  # what the matched null of this arm does

    @property
    def facts(self) -> Metric:
        """The member of the metric catalogue that this was measured with."""
        return METRICS[self.metric]

    @property
    def beyond_floor(self) -> bool | None:
        """Whether it can be told from the sham; None without a sham.

        A floor of exactly zero is beaten by any distance that is not; every other comparison needs
        two intervals that do not meet.
        """
        if self.floor is None:
            return None
        if self.facts.kind == "distance" and _exactly_zero(self.floor):
            return not _exactly_zero(self.estimate)
        return self.estimate.low > self.floor.high or self.estimate.high < self.floor.low

    @property
    def beyond_null(self) -> bool | None:
        """Whether the interval of the excess leaves out zero; None without a matched null."""
        return None if self.excess is None else not self.excess.covers(0.0)

    def __str__(self) -> str:
        if self.estimate.num_pairs == 0:
            return (
                f"{_capital(self.sentence)} cannot be judged at step {self.step}: "
                f"all {_count(self.num_diverged, 'seed pair')} diverged."
            )
        parts = [self._what_moved(), self._beside_sham_and_null()]
        alike = [
            f"from {other}"
            for other, beyond in (
                ("the sham", self.beyond_floor),
                ("the matched null", self.beyond_null),
            )
            if beyond is False
        ]
        if alike:
            parts.append(f"it cannot be told {' or '.join(alike)}")
        if self.facts.kind == "distance":
            parts.append(self._beside_another_seed())
        return "; ".join(parts) + "."

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON: a number that is not finite becomes None."""
        return _plain(dataclasses.asdict(self))

    def _what_moved(self) -> str:
        unit, estimate = self.facts.unit, self.estimate.scaled(self.facts.scale)
        is_distance = self.facts.kind == "distance"
        verb = "moved the function" if is_distance else f"changed {self.facts.label}"
        said = (
            f"{_capital(self.sentence)} {verb} by {_amount(estimate)} {unit} at step {self.step}, "
            f"{_count(self.horizon, 'step')} on {estimate.interval}, "
            f"{_count(estimate.num_pairs, 'seed pair')}, {estimate.method}"
        )
        if self.num_diverged:
            num_all = estimate.num_pairs + estimate.num_dropped
            said += f" ({self.num_diverged} of {num_all} pairs diverged and are left out)"
        if estimate.note and not _exactly_zero(estimate):
            said += f" ({estimate.note})"
        return said

    def _beside_sham_and_null(self) -> str:
        is_distance, scale = self.facts.kind == "distance", self.facts.scale
        if self.floor is None:
            said = "no sham was run"
        else:
            floor = self.floor.scaled(scale)
            said = f"doing nothing (sham) {'moves' if is_distance else 'changes'} it by "
            said += "exactly 0" if _exactly_zero(floor) else str(floor)
        if self.null is None or self.excess is None:
            return f"{said}, and no matched null was run"
        said += f", its matched null ({self.null_is}) by {_amount(self.null.scaled(scale))}"
        if self.null.num_dropped:
            said += f" (of which {_count(self.null.num_dropped, 'pair')} diverged)"
        word = "excess" if is_distance else "difference"
        return f"{said}, so the {word} is {self.excess.scaled(scale)}"

    def _beside_another_seed(self) -> str:
        if self.ceiling is None:
            return "there is no other seed to compare it with"
        said = f"another seed moves it {_amount(self.ceiling)}"
        if self.fraction is not None:
            percent = self.fraction.scaled(100.0)
            said += f", of which this is {percent.number}% {percent.interval}"
        return said


@dataclass(frozen=True)
class Washout:
    """When an effect was gone, bracketed between two probe steps; `str` is the sentence.

    `last_standing` is the last horizon where it stood (None: it never did), `gone_by` the first
    from which it stayed gone (None: it still stands at the last horizon). It is gone where the
    upper end of its interval is below `share` of the ceiling.
    """

    arm: str
    metric: str
    share: float
    last_standing: int | None
    gone_by: int | None

    def __str__(self) -> str:
        limit = f"{100.0 * self.share:g}% of another seed ({METRICS[self.metric].unit})"
        if self.gone_by is None:
            last = _count(self.last_standing or 0, "step")
            return f"{self.arm}: not below {limit} by the last horizon, {last} on."
        if self.last_standing is None:
            return f"{self.arm}: below {limit} at every horizon, from {self.gone_by} steps on."
        return (
            f"{self.arm}: not below {limit} {_count(self.last_standing, 'step')} on, "
            f"below it from {self.gone_by} on."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return _plain(dataclasses.asdict(self))


# ------------------------------------------------------------------ what is asked


def probabilities(outcomes: xr.Dataset) -> xr.DataArray:
    """Predicted class probabilities: softmax of the logits in float64, NaN where a run diverged."""
    logits = _eaten(outcomes, METRICS["tv"])
    return logits.copy(data=_Views(logits.values).probabilities).rename("probabilities")


def usual_metrics(outcomes: xr.Dataset) -> tuple[str, ...]:
    """What is shown unless something else is asked for: the headline distance first.

    A second opinion that needs no probabilities where there are classes, and the two scores a reader asks
    for first where the right answers are known too.
    """
    classes = ("disagreement",) if "logits" in outcomes else ()
    scores = ("accuracy", "nll") if "labels" in outcomes else ()
    default = "tv" if "logits" in outcomes else "rms"
    return (outcomes.attrs.get("headline", default), *classes, *scores)


def per_seed(
    outcomes: xr.Dataset, metric: str, arm: str, reference: str = "control"
) -> xr.DataArray:
    """The paired numbers themselves, dims (seed, step): D(arm, reference) or Y(arm) − Y(reference).

    `reference` is the name of an arm; "control" and "sham" also find the arm of that role.
    """
    facts, design = METRICS[metric], _Design(outcomes)
    pair = [design.place(arm), design.place(reference)]
    held = _eaten(outcomes, facts)
    numbers = np.empty((held.sizes["seed"], held.sizes["step"]))
    for s in range(held.sizes["seed"]):
        treated, other = _Views(held.values[s, pair])[facts.eats]
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
    design = _Design(outcomes)
    if design.place(arm) == design.control:
        raise DesignError(
            f"'{arm}' is the control, which every effect is measured against, so it has none of "
            f"its own; ask for one of: {', '.join(design.treated)}."
        )
    return _effects(outcomes, design, [arm], [step], [metric], estimator)[0]


def all_effects(
    outcomes: xr.Dataset,
    metrics: Sequence[str] = ("tv",),
    estimator: Estimator = paired_t,
    steps: Iterable[int] | None = None,
) -> list[Effect]:
    """Every treated arm by every probe step in every metric, the metric changing fastest."""
    design = _Design(outcomes)
    asked = design.steps if steps is None else [int(step) for step in steps]
    return _effects(outcomes, design, design.treated, asked, metrics, estimator)


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


class _Design:
    """Who is who among the arms, and where; read off the outcomes' attributes."""

    def __init__(self, outcomes: xr.Dataset) -> None:
        self.arms: list[dict] = outcomes.attrs["arms"]
        self.fork_at = int(outcomes.attrs["fork_at"])
        self.steps: list[int] = outcomes["step"].values.tolist()
        self.names = [arm["name"] for arm in self.arms]
        self.treated = [arm["name"] for arm in self.arms if arm["role"] == "treated"]
        self.control = self.place("control")

    def place(self, name: str) -> int:
        """Where an arm is along the arm dimension; the control and the sham go by role too."""
        for place, arm in enumerate(self.arms):
            if name == arm["name"]:
                return place
        for place, arm in enumerate(self.arms):
            if name == arm["role"] and name in ("control", "sham"):
                return place
        raise unknown("arm", name, self.names)

    def place_of_step(self, step: int) -> int:
        if step not in self.steps:
            raise unknown("probe step", str(step), map(str, self.steps))
        return self.steps.index(step)

    @property
    def sham(self) -> int | None:
        return next((i for i, arm in enumerate(self.arms) if arm["role"] == "sham"), None)

    def null_is(self, place: int | None) -> str:
        """What a null arm does, in words."""
        said = None if place is None else self.arms[place].get("noun")
        return said or "a random change as large"

    def null_of(self, name: str) -> int | None:
        return next(
            (
                place
                for place, arm in enumerate(self.arms)
                if arm["role"] == "null" and arm["null_of"] == name
            ),
            None,
        )


class _Views:
    """What a probe saw, (..., N, C), in each of the forms that metrics eat; float64, made once."""

    def __init__(self, held: np.ndarray) -> None:
        numbers = np.asarray(held, dtype=np.float64)
        # An infinite logit has no softmax: it is a run that diverged without a NaN of its own.
        self._held = np.where(np.isfinite(numbers), numbers, np.nan)

    def __getitem__(self, eats: str) -> np.ndarray:
        return getattr(self, eats)

    @property
    def values(self) -> np.ndarray:
        return self._held

    @property
    def logits(self) -> np.ndarray:
        return self._held

    @cached_property
    def log_probabilities(self) -> np.ndarray:
        return np.asarray(log_softmax(self._held, axis=-1))

    @cached_property
    def probabilities(self) -> np.ndarray:
        return np.exp(self.log_probabilities)


@dataclass(frozen=True)
class _Reading:
    """What one metric says at one step."""

    moved: np.ndarray  # (R, A): distance from the control, or score less the control's
    levels: np.ndarray | None  # (R, A): the scores themselves
    between: np.ndarray | None  # (R, R): distance of control s (row) from control s′ (column)


def _effects(
    outcomes: xr.Dataset,
    design: _Design,
    arms: Sequence[str],
    steps: Sequence[int],
    metrics: Sequence[str],
    estimator: Estimator,
) -> list[Effect]:
    chosen = {name: METRICS[name] for name in metrics}
    readings: dict[tuple[int, str], _Reading] = {}
    ceilings: dict[tuple[int, str], Estimate | None] = {}
    for step in steps:
        for name, reading in _read(outcomes, design, chosen, step).items():
            readings[step, name] = reading
            ceilings[step, name] = _ceiling(reading)  # of the step, whatever the arm
    return [
        _one_effect(design, arm, step, name, readings[step, name], ceilings[step, name], estimator)
        for arm in arms
        for step in steps
        for name in chosen
    ]


def _read(
    outcomes: xr.Dataset, design: _Design, metrics: Mapping[str, Metric], step: int
) -> dict[str, _Reading]:
    """Every metric at one step. One seed's arms are in float64 at a time, and all controls."""
    h, control = design.place_of_step(step), design.control
    held = {name: _eaten(outcomes, facts) for name, facts in metrics.items()}
    if not held:
        return {}
    block = next(iter(held.values())).values[:, :, h]  # (R, A, N, C); outcomes hold only one kind
    R, A = block.shape[:2]
    first = {name: np.empty((R, A)) for name in metrics}
    for s in range(R):
        views = _Views(block[s])
        for name, facts in metrics.items():
            seen = views[facts.eats]
            other = seen[control] if facts.kind == "distance" else outcomes["labels"].values
            first[name][s] = facts(seen, other)
    controls = _Views(block[:, control])
    readings = {}
    for name, facts in metrics.items():
        if facts.kind == "distance":
            readings[name] = _Reading(first[name], None, _between(facts, controls[facts.eats]))
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
    design: _Design,
    arm: str,
    step: int,
    metric: str,
    reading: _Reading,
    ceiling: Estimate | None,
    estimator: Estimator,
) -> Effect:
    a, sham, null = design.place(arm), design.sham, design.null_of(arm)
    moved = reading.moved
    fraction = None
    if reading.between is not None and ceiling is not None and ceiling.value > 0.0:
        fraction = jackknife(moved[:, a], reading.between, statistic=_share_of_ceiling)
    correlation, ratio = None, None
    if reading.levels is not None:
        correlation, ratio = worth_of_pairing(
            reading.levels[:, a], reading.levels[:, design.control]
        )
    return Effect(
        arm=arm,
        sentence=design.arms[a]["sentence"],
        metric=metric,
        step=step,
        horizon=step - design.fork_at,
        estimate=estimator(moved[:, a]),
        floor=None if sham is None else estimator(moved[:, sham]),
        null=None if null is None else estimator(moved[:, null]),
        excess=None if null is None else estimator(moved[:, a] - moved[:, null]),
        ceiling=ceiling,
        fraction=fraction,
        num_diverged=int(np.isnan(moved[:, a]).sum()),
        pair_correlation=correlation,
        variance_ratio=ratio,
        null_is=design.null_is(null),
    )


def _share_of_ceiling(moved: np.ndarray, between: np.ndarray) -> float:
    """effect / ceiling; NaN where there is no ceiling."""
    ceiling = mean_over_pairs(between)
    return float(moved.mean() / ceiling) if ceiling > 0.0 else math.nan


def worth_of_pairing(treated: np.ndarray, control: np.ndarray) -> tuple[float | None, float | None]:
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


def _eaten(outcomes: xr.Dataset, facts: Metric) -> xr.DataArray:
    """The variable that a metric eats, or the reason why it cannot."""
    wanted = "values" if facts.eats == "values" else "logits"
    if wanted not in outcomes:
        held = "plain values" if "values" in outcomes else "logits"
        instead = "rms" if "values" in outcomes else "logit_rms"
        raise DesignError(
            f"the metric '{facts.name}' needs {wanted}, and these outcomes hold {held}; "
            f"try '{instead}'."
        )
    return outcomes[wanted]


# ------------------------------------------------------------------ how it is put in words


def _exactly_zero(estimate: Estimate) -> bool:
    return estimate.value == 0.0 and not (estimate.low < 0.0 or estimate.high > 0.0)


def _amount(estimate: Estimate) -> str:
    return "exactly 0" if _exactly_zero(estimate) else estimate.number


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _capital(phrase: str) -> str:
    return phrase[:1].upper() + phrase[1:]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value
