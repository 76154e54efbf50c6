"""Repeats within a seed: siblings and forks, averaged before anything is said; the seed stays the unit.

For seed s, repeat k and fork f(k), of F forks, R seeds and K repeats, with m_sk the number of that repeat:

    m_s   = mean over k of m_sk                       what every estimate is made from
    σ²_w  = Σ_s,k (m_sk − m_s − f̄(k) + m̄)² / (R K − R − F + 1)      within seeds: between continuations
    σ²_b  = Var(m_s) − σ²_w / K                       between seeds: between the shared pasts

f̄(k): the mean over seeds and siblings of the fork of k; m̄: the mean of all. For siblings this is the one-way
analysis of variance with random effects (Searle, Casella & McCulloch, Variance Components, 1992, section
3.6); where there are several forks, the difference between fork times is taken out first. σ²_b is unbiased,
so it can be below 0 where it is small; it is then given as 0.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from bygones.core.study_facts import RepeatFacts, StudyFacts, facts_of


def repeats(outcomes: xr.Dataset) -> list[xr.Dataset]:
    """Return the outcomes of each repeat, as those of a study without repeats; the first one is at `fork_at`.

    Steps and windows are those of the repeat's own fork. A study without repeats is its only one.
    """
    facts = facts_of(outcomes)
    if not facts.repeats:
        return [outcomes]
    return [_repeat(outcomes, facts, index) for index in range(len(facts.repeats))]


def _repeat(outcomes: xr.Dataset, facts: StudyFacts, index: int) -> xr.Dataset:
    """Return one repeat: its variables under their plain names, and its own fork in the facts."""
    names = [str(name) for name in outcomes.data_vars]
    plain = [name for name in names if "@" not in name]
    later = facts.repeats[index].fork_at - facts.fork_at
    arms = tuple(
        replace(
            arm,
            treatments=tuple(
                replace(t, window=(t.window[0] + later, t.window[1] + later))
                for t in arm.treatments
            ),
        )
        for arm in facts.arms
    )
    told = replace(facts, arms=arms, fork_at=facts.fork_at + later, repeats=())
    taken = {name: f"{name}@{index}" if f"{name}@{index}" in names else name for name in plain}
    chosen = xr.Dataset(
        {name: outcomes[taken[name]].variable for name in plain},
        coords=outcomes.coords,
        attrs=told.to_dict(),
    )
    chosen["step"] = outcomes["step"].values + later
    return chosen


def mean_of_finite(numbers: np.ndarray, axis: int) -> np.ndarray:
    """Average the finite numbers along an axis; NaN where there are none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a mean of nothing
        return np.nanmean(np.where(np.isfinite(numbers), numbers, np.nan), axis=axis)


@dataclass(frozen=True)
class VarianceComponents:
    """Variances of the number that an effect is the mean of: between seeds, and within them; with both units.

    `siblings`, `forks`: how many there are of each; their product is the number of repeats a seed.
    """

    between: float
    within: float
    siblings: int
    forks: tuple[int, ...]

    @property
    def share_between(self) -> float | None:
        """The share of a single repeat's variance that lies between seeds: no repeat narrows that."""
        total = self.between + self.within
        return self.between / total if total > 0.0 else None

    @property
    def seeds_spared(self) -> float | None:
        """How many times as many seeds it takes without repeats: (σ²_b + σ²_w)/(σ²_b + σ²_w/K)."""
        num_repeats = self.siblings * len(self.forks)
        left = self.between + self.within / num_repeats
        return (self.between + self.within) / left if left > 0.0 else None


def variance_components(
    numbers: np.ndarray, told: Sequence[RepeatFacts]
) -> VarianceComponents | None:
    """Estimate both components from one number a seed and repeat, (R, K); None below two seeds or repeats.

    Seeds of which a repeat is not finite are left out.
    """
    numbers = numbers[np.isfinite(numbers).all(axis=1)]
    R, K = numbers.shape
    forks = tuple(dict.fromkeys(repeat.fork_at for repeat in told))
    degrees = R * K - R - len(forks) + 1
    if R < 2 or K < 2 or degrees < 1:
        return None
    fork_of = np.array([forks.index(repeat.fork_at) for repeat in told])
    effects = np.array([numbers[:, fork_of == f].mean() for f in range(len(forks))])
    rest = numbers - effects[fork_of]
    rest = rest - rest.mean(axis=1, keepdims=True)
    within = float((rest**2).sum()) / degrees
    between = float(numbers.mean(axis=1).var(ddof=1)) - within / K
    return VarianceComponents(max(between, 0.0), within, K // len(forks), forks)
