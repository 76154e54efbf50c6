"""Which design pays: seeds and steps for one half-width, as a study is, and with repeats, draws or pairs.

For an effect that is the mean of m_s over n seeds, with variance v for one repeat and none of what follows:

    as it is       v                              P + B steps a seed
    siblings r     σ²_b + σ²_w / r                P + r B,   r* = √(σ²_w/σ²_b · P/B) is the cheapest
    forks F        σ²_b + σ²_w / F                P + F B + the steps between the first and the last fork
    all draws      that of the mean over draws    P + B, since they are trained anyway
    antithetic     that of the odd or even part   P + B

P: steps to the fork, B: steps of all arms after it. The components of variance are those of seeds that have
repeats (`analysis/repeats.py`); the others can be told from any. Siblings and draws keep the estimand; with
forks it is the mean over fork times, and an antithetic pair gives one part of a score's response. Cochran,
Sampling Techniques (3rd ed. 1977), section 10.6, has the r* of two-stage sampling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr

from bygones.analysis.antithetic import antithetic, opposites
from bygones.analysis.arms import Arms
from bygones.analysis.effects import effect, headline_metric, per_seed
from bygones.analysis.power import half_width, pairs_for_half_width
from bygones.analysis.repeats import VarianceComponents, repeats
from bygones.core.errors import DesignError
from bygones.core.study_facts import facts_of

MOST_SIBLINGS = 16
FORKS = (2, 4)
FEWEST = 8  # seeds from which on intervals are promised to cover
_RESPONSES = ("nll", "accuracy")


@dataclass(frozen=True)
class Design:
    """What one design takes for an interval of ± `half_width` on one arm's number, by the stored seeds.

    `steps`: to train in all, with the steps to the fork of every seed. `estimand`: what it estimates.
    """

    arm: str
    metric: str
    name: str
    seeds: int
    steps: int
    half_width: float
    estimand: str

    def __str__(self) -> str:
        return (
            f"{self.arm}, {self.metric}: {self.name}: {self.seeds} seeds, {self.steps:,} steps for "
            f"± {self.half_width:.2g} ({self.estimand})"
        )


@dataclass(frozen=True)
class Costs:
    """Steps of one seed: up to the fork, of all arms after it, and between forks where there are several."""

    past: int
    after: int

    def steps(self, siblings: int = 1, forks: int = 1, between: int = 0) -> int:
        """Steps of one seed with so many repeats."""
        return self.past + siblings * forks * self.after + between * (forks - 1)


def best_siblings(
    components: VarianceComponents, costs: Costs, target: float, *, most: int = MOST_SIBLINGS
) -> tuple[int, int]:
    """Return the number of siblings that takes the fewest steps for a half-width, and the seeds it takes.

    About r* = √(σ²_w/σ²_b · P/B), found by trying each: few seeds have wide intervals, and no fewer than
    `FEWEST` are taken.

    >>> parts = VarianceComponents(between=1.0, within=4.0, siblings=2, forks=(300,))
    >>> best_siblings(parts, Costs(past=900, after=100), 0.5)
    (7, 27)
    """
    seeds = {
        r: max(
            FEWEST,
            pairs_for_half_width(target, math.sqrt(components.between + components.within / r)),
        )
        for r in range(1, most + 1)
    }
    r = min(seeds, key=lambda r: seeds[r] * costs.steps(siblings=r))
    return r, seeds[r]


def compare_designs(
    outcomes: xr.Dataset, costs: Costs, *, num_seeds: int | None = None, metric: str | None = None
) -> list[Design]:
    """Return what each design takes for the interval that `num_seeds` seeds give as the study is.

    For every arm's effect at the last horizon; `num_seeds`: as many as are stored, if not given; `metric`:
    the headline. Designs whose gain these seeds cannot tell are left out: siblings and forks need seeds
    that have them (a pilot with `siblings=2`, or two forks), antithetic pairs the opposite arm. No design is
    given fewer than eight seeds, from which on intervals are promised to cover. Raises DesignError below
    three stored seeds.
    """
    metric, step = metric or headline_metric(outcomes), int(outcomes["step"].values[-1])
    if outcomes.sizes["seed"] < 3:
        raise DesignError(
            f"which design pays is told from three stored seeds or more; there are "
            f"{outcomes.sizes['seed']}."
        )
    wanted = max(FEWEST, num_seeds or int(outcomes.sizes["seed"]))
    found: list[Design] = []
    for arm in Arms.of(outcomes).treated:
        spreads = _one_repeat(outcomes, arm, metric)
        if spreads is not None and spreads[0] > 0.0:
            parts = effect(outcomes, arm, step, metric).components
            found += _of_arm(arm, metric, spreads, parts, costs, wanted)
    return [*found, *_pairs(outcomes, costs, wanted, step)]


def _of_arm(
    arm: str,
    metric: str,
    spreads: tuple[float, float | None],
    parts: VarianceComponents | None,
    costs: Costs,
    wanted: int,
) -> list[Design]:
    """Return what the designs take for one arm. `spreads`: see `_one_repeat`."""
    spread, single = spreads
    target = half_width(wanted, spread)

    def row(name: str, seeds: int, steps: int, estimand: str = "the effect") -> Design:
        return Design(arm, metric, name, seeds, seeds * steps, target, estimand)

    found = [row("as it is", wanted, costs.steps())]
    if single is not None:
        seeds = pairs_for_half_width(target, single)
        found.append(row("one pair of draws instead of all", seeds, costs.steps()))
    if parts is not None and parts.siblings > 1 and len(parts.forks) == 1:
        r, seeds = best_siblings(parts, costs, target)
        name = f"{r} siblings" if r > 1 else "siblings do not pay"
        found.append(row(name, seeds if r > 1 else wanted, costs.steps(siblings=r)))
    if parts is not None and parts.siblings == 1:
        gap = (parts.forks[-1] - parts.forks[0]) // (len(parts.forks) - 1)
        for num in FORKS:
            spread = math.sqrt(parts.between + parts.within / num)
            seeds = max(FEWEST, pairs_for_half_width(target, spread))
            steps = costs.steps(forks=num, between=gap)
            found.append(
                row(f"{num} forks, {gap} steps apart", seeds, steps, "mean over fork times")
            )
    return found


def _one_repeat(outcomes: xr.Dataset, arm: str, metric: str) -> tuple[float, float | None] | None:
    """Return the standard deviation of a seed's number in one repeat; and with one pair of draws for all.

    The second one is None for an arm of which there is one draw only.
    """
    arms = Arms.of(outcomes)
    variances: list[float] = []
    single: list[float] = []
    for one in repeats(outcomes):
        last = one.isel(step=[-1])
        pairs = [
            per_seed(last, metric, arms.names[a], arms.names[b]).values[:, 0]
            for a, b in arms.draws(arm)
        ]
        mean = np.mean(pairs, axis=0)
        mean = mean[np.isfinite(mean)]
        if len(mean) < 3:
            return None
        variances.append(float(mean.var(ddof=1)))
        single += [float(np.nanvar(pair, ddof=1)) for pair in pairs]
    several = len(arms.draws(arm)) > 1
    return math.sqrt(np.mean(variances)), math.sqrt(np.mean(single)) if several else None


def _pairs(outcomes: xr.Dataset, costs: Costs, wanted: int, step: int) -> list[Design]:
    """Return what antithetic pairs take for the interval that their arms alone give, in scores."""
    found: list[Design] = []
    scores = _RESPONSES if "labels" in outcomes and "logits" in outcomes else ()
    for arm, _ in opposites(outcomes):
        for metric in scores:
            pair = antithetic(outcomes, arm, step=step, metric=metric)
            if pair.seeds_spared is None:
                continue
            target, part = half_width(wanted, 1.0), 1.0 / math.sqrt(pair.seeds_spared)
            seeds = max(FEWEST, pairs_for_half_width(target, part))
            unit = 0.5 * (pair.effect.high - pair.effect.low)
            what = (
                "the even part: the effect" if pair.is_random else "the odd part: linear response"
            )
            for name, num, estimand in (
                ("the arm alone", wanted, "the effect"),
                ("with its opposite", seeds, what),
            ):
                steps = num * costs.steps()
                found.append(Design(arm, metric, name, num, steps, unit, estimand))
    return found


def how_to_tell(outcomes: xr.Dataset) -> str:
    """Say which designs the stored seeds cannot judge, and which pilot would; "" where there is none."""
    told = facts_of(outcomes).repeats
    missing: list[str] = []
    if not any(repeat.sibling for repeat in told):
        missing.append("siblings (a pilot with --siblings 2)")
    if len({repeat.fork_at for repeat in told}) < 2:
        missing.append("forks (a pilot with --later-forks STEP)")
    if not opposites(outcomes):
        missing.append("antithetic pairs (add `opposite_arm` of a nudge, kick or dose)")
    return f"Cannot be told from these seeds: {', '.join(missing)}." if missing else ""
