"""Contrast: the paired difference of any two arms, and the difference of two such differences.

For seed s, with p_s(A) the probed outputs of arm A:

    m_s(A, B)   = D(p_s(A), p_s(B))  for a distance,   Y(p_s(A)) − Y(p_s(B))  for a score
    contrast    = mean_s of m_s(A, B)                             of two arms
                = mean_s of [m_s(A, A′) − m_s(B, B′)]             of two pairs of arms
    since h₀    = the same of m_s(h) − m_s(h₀): what was added since an earlier step

A distance is never negative, so its contrast of two arms is said beside floor and ceiling. All the others
are signed, and are 0 where there is no difference.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr

from bygones.analysis.arms import Arms, step_index
from bygones.analysis.effects import effect, estimator_of, per_seed
from bygones.analysis.estimators import Estimate, Estimator
from bygones.analysis.metrics import METRICS
from bygones.core.errors import DesignError
from bygones.core.study_facts import facts_of
from bygones.core.text import format_count, to_plain

Pair = tuple[str, str]


@dataclass(frozen=True, eq=False)
class Contrast:
    """A contrast at one step, in one metric; `str` is the sentence.

    `left`, `right`: the two arms, or two pairs of arms. `per_seed`: the number of each seed, dim (seed),
    that `estimate` is the mean of; NaN where a run diverged. `floor`, `ceiling`: of a distance between two
    arms, what the sham moves and what another seed does; else None.
    """

    metric: str
    left: str | Pair
    right: str | Pair
    step: int
    horizon: int
    since: int | None
    per_seed: xr.DataArray
    estimate: Estimate
    floor: Estimate | None
    ceiling: Estimate | None

    @property
    def is_signed(self) -> bool:
        """Whether it can be of either sign, so that 0 means no difference."""
        return _is_signed(self.metric, self.left, self.since)

    def __str__(self) -> str:
        facts, scale = METRICS[self.metric], METRICS[self.metric].scale
        found = self.estimate.scaled(scale)
        unit = f" {facts.unit}" if facts.unit else ""
        when = f"at step {self.step}, {format_count(self.horizon, 'step')} on"
        if self.since is not None:
            when += f", less the same at step {self.since}"
        of = f"{found.interval}, {format_count(found.num_pairs, 'seed pair')}, {found.method}"
        if found.num_dropped:
            of += f", {format_count(found.num_dropped, 'pair')} diverged and left out"
        note = f" ({found.note})" if found.note else ""
        if not self.is_signed:
            return (
                f"{self.left} and {self.right} are {found.number}{unit} apart {when} {of}{note}"
                f"{self._beside(scale)}."
            )
        measured = "" if facts.kind == "distance" else f" in {facts.label}"
        p = "" if found.p_value is None else f", p = {found.p_value:.2g}"
        return (
            f"{_name(self.left)} less {_name(self.right)}: {found.number}{unit}{measured} {when} "
            f"{of}{p}{note}."
        )

    def _beside(self, scale: float) -> str:
        said, floor = "", None if self.floor is None else self.floor.scaled(scale)
        if floor is not None:
            none = floor.value == floor.low == floor.high == 0.0
            said = f"; sham and control are {'exactly 0' if none else floor} apart"
        if self.ceiling is not None:
            said += f", the controls of two seeds {self.ceiling.scaled(scale)}"
        return said

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON: a number that is not finite becomes None."""
        told = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        told["per_seed"] = dict(
            zip(
                map(str, self.per_seed["seed"].values.tolist()),
                self.per_seed.values.tolist(),
                strict=True,
            )
        )
        for name in ("estimate", "floor", "ceiling"):
            told[name] = None if told[name] is None else dataclasses.asdict(told[name])
        return to_plain(told)


def contrast(
    outcomes: xr.Dataset,
    left: str | Pair,
    right: str | Pair = "control",
    *,
    step: int,
    metric: str = "tv",
    since: int | None = None,
    estimator: Estimator | None = None,
) -> Contrast:
    """Estimate the paired contrast of two arms, or of two pairs of arms, at one probe step.

    `left`, `right`: names of arms, "control" and "sham" included; or both a pair (arm, reference), and then
    the difference of the two pairs' distances or differences is estimated. `since`: an earlier probe step,
    at which the same is subtracted. With both it is a back-flow: whether the distance of two histories
    grows more in one setting than in another. `estimator`: the study's own, if not given. Raises DesignError
    where an arm is compared with itself or a pair with an arm, UnknownName for an arm, step or metric that
    is not there.
    """
    facts, pairs = METRICS[metric], _pairs(left, right)
    estimator = estimator_of(facts_of(outcomes)) if estimator is None else estimator
    _check(Arms.of(outcomes), pairs)
    step_index(outcomes, step)  # raises where there is no such probe step
    if since is not None and step_index(outcomes, since) >= step_index(outcomes, step):
        raise DesignError(f"a contrast since step {since} is at a later step; got step {step}.")
    seen = outcomes.sel(step=[step] if since is None else [since, step])
    numbers = [per_seed(seen, metric, *pair) for pair in pairs]
    at_steps = numbers[0].values if len(numbers) == 1 else numbers[0].values - numbers[1].values
    of_seed = at_steps[:, -1] if since is None else at_steps[:, -1] - at_steps[:, 0]
    floor, ceiling = None, None
    if not _is_signed(metric, left, since):
        floor, ceiling = _references(outcomes, step, metric, estimator)
    return Contrast(
        metric=metric,
        left=left,
        right=right,
        step=step,
        horizon=step - facts_of(outcomes).fork_at,
        since=since,
        per_seed=xr.DataArray(
            of_seed,
            dims=("seed",),
            coords={"seed": outcomes["seed"]},
            name=metric,
            attrs={"unit": facts.unit},
        ),
        estimate=estimator(of_seed),
        floor=floor,
        ceiling=ceiling,
    )


def _is_signed(metric: str, left: str | Pair, since: int | None) -> bool:
    return METRICS[metric].kind == "score" or not isinstance(left, str) or since is not None


def _pairs(left: str | Pair, right: str | Pair) -> list[Pair]:
    """Return the pairs of arms that a contrast is made of: one, or two."""
    if isinstance(left, str) and isinstance(right, str):
        return [(left, right)]
    if not isinstance(left, str) and not isinstance(right, str):
        return [left, right]
    raise DesignError(
        f"a contrast is of two arms, or of two pairs (arm, reference); got {left!r} and {right!r}."
    )


def _check(arms: Arms, pairs: Sequence[Pair]) -> None:
    for one, other in pairs:
        if arms.index(one) == arms.index(other):
            raise DesignError(f"'{one}' is compared with itself, which gives 0; name two arms.")
    if len(pairs) == 2 and pairs[0] == pairs[1]:
        raise DesignError(f"{pairs[0]} is compared with itself, which gives 0; name two pairs.")


def _references(
    outcomes: xr.Dataset, step: int, metric: str, estimator: Estimator
) -> tuple[Estimate | None, Estimate | None]:
    """Return the floor and the ceiling at a step, which belong to the study and to no arm."""
    treated = Arms.of(outcomes).treated
    if not treated:
        return None, None
    found = effect(outcomes, treated[0], step, metric, estimator)
    return found.floor, found.ceiling


def _name(side: str | Pair) -> str:
    return side if isinstance(side, str) else f"({side[0]} against {side[1]})"
