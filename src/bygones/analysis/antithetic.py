"""Antithetic pairs: an arm and its opposite, whose response in a score is split into odd and even parts.

For seed s, with Y_s(+) the score of the arm, Y_s(−) that of its opposite and Y_s(0) the control's:

    odd_s  = (Y_s(+) − Y_s(−)) / 2                  the linear response, up to third order in the change
    even_s = (Y_s(+) + Y_s(−)) / 2 − Y_s(0)         the curvature, up to fourth order
    effect = odd + even = Y_s(+) − Y_s(0)

Each part is estimated over seeds. A change in a given direction (a kick, a dose) is asked for its linear
response: half the difference lacks the noise of the control, and where the two arms have drifted apart it
has a quarter of the variance of the effect. A change in a random direction (a nudge) has an odd part of 0 on
average, since both signs are equally likely: its effect is the even part, from which the odd one is taken out
as noise (antithetic variates; Hammersley & Morton, A new Monte Carlo technique, Proc. Camb. Phil. Soc. 52
(1956), 449–475). A distance does not see the sign, so there a pair is worth no more than another draw.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from bygones.analysis.arms import Arms, step_index
from bygones.analysis.effects import estimator_of, per_seed
from bygones.analysis.estimators import Estimate, Estimator
from bygones.analysis.metrics import METRICS
from bygones.core.errors import DesignError
from bygones.core.study_facts import facts_of
from bygones.core.text import capitalize, format_count, to_plain


@dataclass(frozen=True)
class Antithetic:
    """The odd and even part of one arm's response, in one score at one step; `str` is the sentence.

    `effect`: of the arm alone. `is_random`: whether the direction is random, so that the even part estimates
    the effect; else the odd part is the linear response. `seeds_spared`: how many times as many seeds the arm
    alone takes for an interval as narrow; None where it cannot be told.
    """

    arm: str
    sentence: str
    metric: str
    step: int
    horizon: int
    effect: Estimate
    odd: Estimate
    even: Estimate
    is_random: bool
    seeds_spared: float | None

    def __str__(self) -> str:
        facts = METRICS[self.metric]
        odd, even, effect = (e.scaled(facts.scale) for e in (self.odd, self.even, self.effect))
        unit = f" {facts.unit}" if facts.unit else ""
        said = f"{capitalize(self.sentence)}, and the opposite, {format_count(self.horizon, 'step')} on: "
        of = f"{format_count(odd.num_pairs, 'seed')}, {odd.method}"
        if self.is_random:
            said += (
                f"{facts.label} changes by {even}{unit} (even part, which is the effect of a change in a "
                f"random direction; {of}); the odd part, 0 on average, is {odd}{unit}"
            )
        else:
            said += (
                f"the linear response of {facts.label} is {odd}{unit} (odd part: half the difference of the "
                f"two; {of}); the even part is {even}{unit}"
            )
        said += f"; by the arm alone the change is {effect}{unit}"
        if self.seeds_spared is not None:
            said += f", which takes {self.seeds_spared:.2g} times as many seeds"
        return f"{said}."

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON."""
        return to_plain(dataclasses.asdict(self))


def opposites(outcomes: xr.Dataset) -> list[tuple[str, str]]:
    """Return the antithetic pairs of a study: each arm with its opposite."""
    return [
        (arm.opposite_of, arm.name)
        for arm in facts_of(outcomes).arms
        if arm.role == "treated" and arm.opposite_of
    ]


def antithetic(
    outcomes: xr.Dataset,
    arm: str,
    *,
    step: int,
    metric: str,
    estimator: Estimator | None = None,
) -> Antithetic:
    """Split an arm's response in a score into its odd and even part, by the arm with the opposite sign.

    Where the change is random, and another draw of it and of its opposite were run too, both draws are
    averaged. `estimator`: the study's own, if not given. Raises DesignError for a distance, or for an arm
    without an opposite (see `opposite_arm`).
    """
    arms = Arms.of(outcomes)
    if METRICS[metric].kind == "distance":
        raise DesignError(
            f"the sign of a change cannot be seen in a distance: '{metric}' of an arm and of its opposite "
            f"are alike, so that the pair brings nothing there. Ask for a score, such as 'nll'."
        )
    other = {one: opposite for one, opposite in opposites(outcomes)}.get(arms[arm].name)
    if other is None:
        raise DesignError(
            f"'{arm}' has no opposite in this study. Add `opposite_arm` of it to the study's arms."
        )
    estimator = estimator_of(facts_of(outcomes)) if estimator is None else estimator
    h, is_random = step_index(outcomes, step), bool(arms[arm].redraw)
    seen = outcomes.isel(step=[h])
    pairs = [(arms[arm].name, other)]
    if is_random:
        nulls = [
            one.name for name in pairs[0] for one in arms.with_role("null") if one.null_of == name
        ]
        pairs += [(nulls[0], nulls[1])] if len(nulls) == 2 else []
    plus, minus = _scores(seen, metric, pairs, 0), _scores(seen, metric, pairs, 1)
    odd, even = 0.5 * (plus - minus), 0.5 * (plus + minus)
    return Antithetic(
        arm=arms[arm].name,
        sentence=arms[arm].sentence,
        metric=metric,
        step=step,
        horizon=step - facts_of(outcomes).fork_at,
        effect=estimator(plus),
        odd=estimator(odd),
        even=estimator(even),
        is_random=is_random,
        seeds_spared=_ratio(plus, even if is_random else odd),
    )


def _scores(
    seen: xr.Dataset, metric: str, pairs: Sequence[tuple[str, str]], side: int
) -> np.ndarray:
    """Return each seed's change from the control, averaged over draws, (R,)."""
    return np.mean([per_seed(seen, metric, pair[side]).values[:, 0] for pair in pairs], axis=0)


def _ratio(alone: np.ndarray, paired: np.ndarray) -> float | None:
    """Return the ratio of two variances, None where it cannot be told."""
    both = np.isfinite(alone) & np.isfinite(paired)
    if both.sum() < 2 or not (below := float(np.var(paired[both], ddof=1))) > 0.0:
        return None
    return float(np.var(alone[both], ddof=1)) / below
