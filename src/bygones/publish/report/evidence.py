"""Evidence beside the effects: multiplicity, equivalence, pairing, inputs moved, calibration. No drawing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from bygones.analysis.antithetic import Antithetic, antithetic, opposites
from bygones.analysis.breakdown import Group, breakdown
from bygones.analysis.calibration import ReliabilityCurve, brier_change, reliability_curves
from bygones.analysis.effect import Effect
from bygones.analysis.effects import all_effects
from bygones.analysis.equivalence import Equivalence, equivalent_effect
from bygones.analysis.estimators import Estimate
from bygones.analysis.function_field import FunctionField, function_field
from bygones.analysis.metrics import METRICS
from bygones.analysis.multiplicity import Adjusted, Family, adjust
from bygones.analysis.observed_models import observing
from bygones.analysis.pairing import PairingGain, pairing_gains
from bygones.core.study_facts import facts_of
from bygones.core.text import capitalize
from bygones.publish.verdicts import Kind, Reading, steps

_STANDING: tuple[tuple[Kind, ...], ...] = (
    ("beyond",), ("like", "less", "alone", "unclear"), ("gone", "never"),
)  # fmt: skip


@dataclass(frozen=True)
class Absence:
    """Equivalence test of one arm in one metric; `str` is the sentence."""

    arm: str
    sentence: str
    metric: str
    horizon: int
    result: Equivalence

    @property
    def shown(self) -> Equivalence:
        """The result in the unit that the metric is quoted in."""
        scale = METRICS[self.metric].scale
        estimate = self.result.estimate.scaled(scale)
        return dataclasses.replace(
            self.result, estimate=estimate, margin=scale * self.result.margin
        )

    def __str__(self) -> str:
        metric = METRICS[self.metric]
        what = "movement of the function" if metric.kind == "distance" else metric.label
        unit = f" ({metric.unit})" if metric.unit else ""
        said = f"{capitalize(self.sentence)}, {what}{unit}"
        return f"{said}, {steps(self.horizon)} on: {self.shown}."


@dataclass(frozen=True, eq=False)
class Moved:
    """Which inputs one arm moves, by class and by difficulty, and its calibration there.

    With too few pairs for simultaneous intervals there are no groups, and `field.too_few` says why.
    """

    arm: str
    horizon: int
    field: FunctionField
    images: np.ndarray | None
    by_class: tuple[Group, ...]
    by_difficulty: tuple[Group, ...]
    curves: tuple[ReliabilityCurve, ReliabilityCurve] | None  # treated, control
    brier: Mapping[str, Estimate] | None


@dataclass(frozen=True, eq=False)
class Evidence:
    """The evidence in a report's later sections; `moved` is None where no arm can be judged."""

    adjusted: Adjusted
    is_declared: bool
    absences: tuple[Absence, ...]
    pairing_gains: tuple[PairingGain, ...]
    antithetic: tuple[Antithetic, ...]
    moved: Moved | None
    models: Mapping[str, tuple[Effect, ...]]  # of each further model, the last effect of every arm


def gather(
    outcomes: xr.Dataset, effects: Sequence[Effect], readings: Sequence[Reading]
) -> Evidence:
    """Gather the evidence from the outcomes, and from the effects that are already estimated."""
    declared = facts_of(outcomes).family
    family = _default_family(readings) if declared is None else Family(**declared)
    return Evidence(
        adjusted=adjust(_with_those_of(family, outcomes, effects), family),
        is_declared=declared is not None,
        absences=tuple(_absences(outcomes, readings)),
        pairing_gains=tuple(_pairings(outcomes, effects, readings)),
        antithetic=tuple(_antithetic(outcomes, effects, readings)),
        moved=_moved(outcomes, readings),
        models=_models(outcomes, readings),
    )


def _models(outcomes: xr.Dataset, readings: Sequence[Reading]) -> dict[str, tuple[Effect, ...]]:
    """Return every arm's effect on each model beside the one that leads, in the order of the answer."""
    last, found = readings[0].last, {}
    rank = {reading.arm: place for place, reading in enumerate(readings)}
    for model in facts_of(outcomes).models[1:]:
        effects = all_effects(observing(outcomes, model), (last.metric,), steps=[last.step])
        shown = [effect for effect in effects if effect.arm in rank]
        found[model] = tuple(sorted(shown, key=lambda effect: rank[effect.arm]))
    return found


def _default_family(readings: Sequence[Reading]) -> Family:
    last = readings[0].last
    arms = tuple(reading.arm for reading in readings)
    return Family("default", arms, metrics=(last.metric,), horizons=(last.horizon,))


def _with_those_of(
    family: Family, outcomes: xr.Dataset, effects: Sequence[Effect]
) -> Sequence[Effect]:
    """Return the effects, with those of the family that are missing among them."""
    there = {(effect.arm, effect.metric, effect.horizon) for effect in effects}
    missing = [
        metric
        for metric in family.metrics
        if any((arm, metric, horizon) not in there for arm in family.arms for horizon in family.horizons)
    ]  # fmt: skip
    if not missing:
        return effects
    asked = [facts_of(outcomes).fork_at + horizon for horizon in family.horizons]
    further = all_effects(outcomes, missing, steps=asked)
    return [*effects, *(e for e in further if (e.arm, e.metric, e.horizon) not in there)]


def _absences(outcomes: xr.Dataset, readings: Sequence[Reading]) -> list[Absence]:
    last = readings[0].last
    at_last = outcomes.sel(step=[last.step])
    return [
        Absence(
            reading.arm, reading.last.sentence, metric, last.horizon,
            equivalent_effect(at_last, reading.arm, last.step, margin, metric),
        )
        for metric, margin in (facts_of(outcomes).margins or {}).items()
        for reading in readings
    ]  # fmt: skip


def _pairings(
    outcomes: xr.Dataset, effects: Sequence[Effect], readings: Sequence[Reading]
) -> list[PairingGain]:
    """Return the pairing gains of the headline distance and the shown scores, in the order of the answer."""
    shown = dict.fromkeys(effect.metric for effect in effects)
    metrics = [readings[0].last.metric, *(m for m in shown if METRICS[m].kind == "score")]
    found = [
        pairing
        for effect in readings[0].course  # a step at a time: a distance reads all steps it is given
        for pairing in pairing_gains(outcomes.sel(step=[effect.step]), metrics, steps=[effect.step])
    ]
    rank = {reading.arm: place for place, reading in enumerate(readings)}
    ranked = (pairing for pairing in found if pairing.arm in rank)
    return sorted(ranked, key=lambda p: (metrics.index(p.metric), rank[p.arm], p.horizon))


def _antithetic(
    outcomes: xr.Dataset, effects: Sequence[Effect], readings: Sequence[Reading]
) -> list[Antithetic]:
    """Return both parts of each antithetic pair's response in the shown scores, at the last horizon."""
    step = readings[0].last.step
    shown = dict.fromkeys(effect.metric for effect in effects)
    scores = [metric for metric in shown if METRICS[metric].kind == "score"]
    return [
        antithetic(outcomes, arm, step=step, metric=metric)
        for arm, _ in opposites(outcomes)
        for metric in scores
    ]


def leading(readings: Sequence[Reading]) -> tuple[Reading, Effect] | None:
    """Choose the arm whose field is shown, and the effect at whose step.

    The largest of those beyond their matched null; else the largest that still stands, at the last
    horizon; else the largest at its peak. None where nothing moved, or with fewer than two pairs.
    """
    for kinds in _STANDING:
        for reading in readings:
            at = reading.peak if kinds == _STANDING[-1] else reading.last
            if reading.kind in kinds and at.estimate.num_pairs >= 2:
                return reading, at
    return None


def _moved(outcomes: xr.Dataset, readings: Sequence[Reading]) -> Moved | None:
    chosen = leading(readings)
    if chosen is None:
        return None
    reading, at = chosen
    field = function_field(outcomes, reading.arm, at.step)
    is_labelled = field.labels is not None
    grouped = is_labelled and not field.too_few
    if field.note and is_labelled:  # so skewed that the intervals would cover too little
        field = function_field(outcomes, reading.arm, at.step, of="log_odds")
    return Moved(
        arm=reading.arm,
        horizon=at.horizon,
        field=field,
        images=outcomes["images"].values if "images" in outcomes else None,
        by_class=breakdown(field, "class") if grouped else (),
        by_difficulty=_by_difficulty(field) if grouped else (),
        curves=reliability_curves(outcomes, reading.arm, at.step) if is_labelled else None,
        brier=brier_change(outcomes, reading.arm, at.step) if is_labelled else None,
    )


def _by_difficulty(field: FunctionField) -> tuple[Group, ...]:
    _, num_inputs, _ = field.differences.shape
    return breakdown(field, "difficulty", num_groups=4) if num_inputs >= 4 else ()
