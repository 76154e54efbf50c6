"""Reproducibility grade of a re-run: bitwise, numeric or statistical.

bitwise      outcomes, losses and ledgers are equal in every bit. Expected under the same contract, and
             demanded there: the same machine that gives other bits contradicts the bundle.
numeric      max |p - p'| <= tolerance over all predictions p; of values, relative to the largest.
statistical  for each re-run seed s and treated arm, its headline distance d_s to the control at the last
             step lies within the prediction interval of the n seeds that were not run again:
             mean ± t(1 - 0.025/m, n-1) · sd · sqrt(1 + 1/n), m the number of seeds and arms compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from scipy import special

from bygones.analysis.arms import Arms
from bygones.analysis.effects import headline_metric, per_seed
from bygones.analysis.predictions import probabilities
from bygones.core.errors import BundleError
from bygones.core.first_difference import first_differing_index
from bygones.core.text import capitalize
from bygones.store import AbstractStore
from bygones.store.ledger_diff import differing_fields
from bygones.store.outcomes import Manifest, ledger_lines, read_outcomes

_FEWEST = 3  # seeds that a prediction interval is drawn from


@dataclass(frozen=True)
class Grade:
    """How closely a re-run agrees; `str` is the sentence. `largest`: the largest difference of an output."""

    grade: Literal["bitwise", "numeric", "statistical"]
    seeds: tuple[int, ...]
    num_arms: int
    largest: float
    tolerance: float
    other: tuple[str, ...]

    def __str__(self) -> str:
        what = f"{len(self.seeds)} of the seeds ({', '.join(map(str, self.seeds))}) × {self.num_arms} arms"
        size, allowed = f"{self.largest:.2g}", f"the tolerance of {self.tolerance:g}"
        said = {
            "bitwise": "outcomes, losses and ledgers are equal to the bit",
            "numeric": f"outputs differ by at most {size}, within {allowed}",
            "statistical": f"outputs differ by up to {size}, more than {allowed}, but the effects lie within "
            f"what the bundle's other seeds predict",
        }[self.grade]
        under = f" Run under another contract: {', '.join(self.other)}." if self.other else ""
        return f"Run again, {what}: {self.grade}. {capitalize(said)}.{under}"


@dataclass(frozen=True)
class Side:
    """One side of the comparison: the recorded study, or the re-run."""

    store: AbstractStore
    manifest: Manifest

    def outcomes(self) -> xr.Dataset:
        return read_outcomes(self.store, self.manifest)

    @property
    def arms(self) -> list[str]:
        return Arms(self.manifest.facts.arms).names


def grade(recorded: Side, again: Side, tolerance: float, other: tuple[str, ...]) -> Grade:
    """Grade the seeds that were run again. `other`: terms of the contract that differ from the recorded one.

    Raises BundleError where no grade is reached, or where bits differ though the contract is the same.
    """
    seeds = again.manifest.seeds
    if (recorded.arms, recorded.manifest.steps) != (again.arms, again.manifest.steps):
        raise BundleError("the study was run again with other arms or steps than are recorded.")
    recorded_outcomes, now = recorded.outcomes(), again.outcomes()
    then = recorded_outcomes.sel(seed=seeds)
    difference = _describe_first_difference(recorded, again, then, now)
    largest = _largest(then, now, again.manifest.kind)
    made = (tuple(seeds), len(again.arms), largest, tolerance, other)
    if difference is None:
        return Grade("bitwise", *made)
    if not other:
        raise BundleError(
            f"{difference} Under the same contract it has to come out to the bit: what is recorded is not "
            f"what this code trains, or the recipe draws on something that is neither in it nor in its seed."
        )
    if largest <= tolerance:
        return Grade("numeric", *made)
    why = _unpredicted_effect(recorded_outcomes, now, seeds)
    if why is not None:
        raise BundleError(
            f"{difference} Under another contract ({', '.join(other)}) outputs may differ by {tolerance:g}; "
            f"they differ by {largest:.2g}, and {why}."
        )
    return Grade("statistical", *made)


def differing_terms(recorded: Mapping[str, Any], here: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the terms in which two contracts differ, in words."""
    return tuple(
        f"{name} {here.get(name)} (recorded: {recorded.get(name)})"
        for name in sorted(recorded.keys() | here.keys())
        if recorded.get(name) != here.get(name)
    )


def _describe_first_difference(
    recorded: Side, again: Side, then: xr.Dataset, now: xr.Dataset
) -> str | None:
    """Describe the first bit that differs; None if all are equal."""
    for seed in again.manifest.seeds:
        for arm in again.arms:
            place = f"seed {seed}, arm '{arm}'"
            mine = ledger_lines(recorded.store, recorded.manifest, seed, arm)
            theirs = ledger_lines(again.store, again.manifest, seed, arm)
            first = first_differing_index(mine, theirs)
            if first is not None:
                names = differing_fields(mine[first], theirs[first]) or ("step",)
                step = mine[first]["step"]
                return f"{place}: the ledgers part at step {step}, in {', '.join(names)}."
            if len(mine) != len(theirs):
                return f"{place}: one ledger has {len(mine)} entries and the other {len(theirs)}."
            for name in (name for name, one in now.data_vars.items() if "arm" in one.dims):
                step = _where(then[name].sel(seed=seed, arm=arm), now[name].sel(seed=seed, arm=arm))
                if step is not None:
                    return f"{place}: {name} {step} is another."
    return None


def _where(one: xr.DataArray, other: xr.DataArray) -> str | None:
    """Describe where two arrays differ in a bit, by their first dimension; None if they are equal."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return f"of {one.dtype} {list(one.shape)}"
    if one.ndim == 0:
        return None if one.values.tobytes() == other.values.tobytes() else "of this arm"
    for index in range(len(one)):
        if one.values[index].tobytes() != other.values[index].tobytes():
            at = one[one.dims[0]].values[index] if one.dims[0] in one.coords else index + 1
            return f"at step {at}"
    return None


def _largest(then: xr.Dataset, now: xr.Dataset, kind: str) -> float:
    """Return the largest difference of an output; infinite where only one of them diverged."""
    one, other = (probabilities(o) if kind == "logits" else o[kind] for o in (then, now))
    if one.shape != other.shape:
        return math.inf
    gone = np.isnan(one.values)
    if not np.array_equal(gone, np.isnan(other.values)):
        return math.inf
    scale = 1.0 if kind == "logits" else float(np.max(np.abs(one.values[~gone]), initial=0.0))
    gap = np.abs(one.values[~gone] - other.values[~gone])
    return float(np.max(gap, initial=0.0)) / (scale or 1.0)


def _unpredicted_effect(
    recorded_outcomes: xr.Dataset, now: xr.Dataset, seeds: list[int]
) -> str | None:
    """Describe an effect outside the prediction interval of the other seeds; None if all are inside."""
    others = [int(s) for s in recorded_outcomes["seed"].values if int(s) not in seeds]
    if len(others) < _FEWEST:
        return (
            f"there are {len(others)} other seeds in the bundle, where {_FEWEST} are needed to say what is "
            f"to be expected"
        )
    metric, treated = headline_metric(recorded_outcomes), Arms.of(recorded_outcomes).treated
    level = 1 - 0.025 / (len(treated) * len(seeds))
    for arm in treated:
        known = per_seed(recorded_outcomes.sel(seed=others), metric, arm).values[:, -1]
        known = known[np.isfinite(known)]
        if len(known) < _FEWEST:
            return f"of arm '{arm}' too few other seeds came to an end"
        mean, spread = known.mean(), known.std(ddof=1) * math.sqrt(1 + 1 / len(known))
        reach = float(special.stdtrit(len(known) - 1, level)) * spread
        for seed, found in zip(seeds, per_seed(now, metric, arm).values[:, -1], strict=True):
            if not abs(found - mean) <= reach:
                return (
                    f"seed {seed}, arm '{arm}': {metric} {found:.3g} at the last step, where the other seeds "
                    f"predict {mean:.3g} ± {reach:.2g}"
                )
    return None
