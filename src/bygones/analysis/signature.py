"""Signature: a published result that a study should reproduce, and whether its outcomes show it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from bygones.analysis.arms import Arms, step_index
from bygones.analysis.effect import Effect, describe_share
from bygones.analysis.effects import effect, headline_metric
from bygones.analysis.estimators import Estimate
from bygones.analysis.metrics import METRICS
from bygones.analysis.predictions import Predictions, require_input
from bygones.core.study_facts import facts_of


@dataclass(frozen=True)
class Signature:
    """One published result, and what was seen of it.

    `name`: the result in a few words. `expected`: what should be seen, as a clause. `paper`: where it was
    published. `observed`: the numbers with their intervals, or why there are none. `met`: True where the
    outcomes show it, False where they show that it does not hold, None where they cannot tell.

    >>> slow = Signature("a slow teacher helps", "decay 0 is worse", "Tarvainen & Valpola 2017")
    >>> print(slow.seen("accuracy −0.09 [−0.15, −0.03]", True))
    A slow teacher helps: met. Expected: decay 0 is worse. Seen: accuracy −0.09 [−0.15, −0.03].
    """

    name: str
    expected: str
    paper: str
    observed: str = ""
    met: bool | None = None

    def seen(self, observed: str, met: bool | None) -> Signature:
        """Return the signature with what was seen of it."""
        return replace(self, observed=observed, met=met)

    def unless_followed(self, outcomes: xr.Dataset, *horizons: int) -> Signature | None:
        """Return the signature as one that cannot be told, where a horizon was not observed; else None.

        A shorter study has fewer horizons: `signature.unless_followed(outcomes, 400) or …`.
        """
        fork = facts_of(outcomes).fork_at
        there = {int(step) - fork for step in outcomes["step"].values}
        missing = sorted(set(horizons) - there)
        if not missing:
            return None
        why = f"not observed {missing[-1]} steps after the fork (the last time was {max(there)})"
        return self.seen(why, None)

    @property
    def verdict(self) -> str:
        """The answer in words: "met", "not met" or "cannot tell"."""
        return {True: "met", False: "not met", None: "cannot tell"}[self.met]

    def __str__(self) -> str:
        name = self.name[:1].upper() + self.name[1:]
        return f"{name}: {self.verdict}. Expected: {self.expected}. Seen: {self.observed}."


def is_above(estimate: Estimate, bound: float) -> bool | None:
    """Return whether an estimate's interval is above a bound; False if it is below, None if they meet.

    >>> found = Estimate(2.0, 1.0, 3.0, 0.95, 8, "paired t")
    >>> is_above(found, 0.5), is_above(found, 4.0), is_above(found, 2.5)
    (True, False, None)
    """
    if estimate.low > bound:
        return True
    return False if estimate.high < bound else None


def is_below(estimate: Estimate, bound: float) -> bool | None:
    """Return whether an estimate's interval is below a bound; False if it is above, None if they meet."""
    above = is_above(estimate, bound)
    return None if above is None else not above


def all_of(*parts: bool | None) -> bool | None:
    """Return whether all parts hold: False where one does not, None where one cannot be told.

    >>> all_of(True, True), all_of(True, None), all_of(None, False)
    (True, None, False)
    """
    if False in parts:
        return False
    return None if None in parts else True


def effect_at(outcomes: xr.Dataset, arm: str, horizon: int, metric: str = "") -> Effect:
    """Estimate an arm's effect `horizon` steps after the fork; in the headline distance unless said."""
    step = facts_of(outcomes).fork_at + horizon
    return effect(outcomes, arm, step, metric or headline_metric(outcomes))


def is_share_above(found: Effect, bound: float) -> bool | None:
    """Return whether an effect's share of another seed is above a bound.

    False where the upper limit of the share, by which its smallness is judged, is below the bound. None
    where neither can be told, as with too few seeds.
    """
    if found.fraction is not None and found.fraction.low > bound:
        return True
    return False if found.share_limit is not None and found.share_limit < bound else None


def share_of(found: Effect) -> str:
    """Return an effect's share of another seed in words, with its interval."""
    return "no share" if found.fraction is None else describe_share(found.fraction)


def score_per_seed(outcomes: xr.Dataset, arm: str, horizon: int, metric: str) -> np.ndarray:
    """Compute an arm's score, (R,), `horizon` steps after the fork."""
    facts = METRICS[metric]
    at = step_index(outcomes, facts_of(outcomes).fork_at + horizon)
    outputs = require_input(outcomes, facts).values[:, Arms.of(outcomes).index(arm), at]
    return facts(Predictions(outputs)[facts.input_kind], outcomes["labels"].values)
