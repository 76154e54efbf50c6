"""Comparison of studies: how much history matters across models, data and regimes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import xarray as xr

from bygones.analysis.arms import Arms, values_at
from bygones.analysis.effect import Effect
from bygones.analysis.effects import all_effects, headline_metric
from bygones.analysis.estimators import Estimate
from bygones.analysis.meta_analysis import Pooled, pool
from bygones.core.errors import DesignError
from bygones.core.study_facts import facts_of


def side_by_side(studies: Sequence[xr.Dataset]) -> list[Pooled]:
    """Pool the studies' effects at their last horizon, arm by arm, as a share of another seed.

    Arms are matched by name. The share of the ceiling is on one scale across models and data, which the
    distances themselves are not. An arm that one study alone has is kept, and nothing is pooled there.
    Raises DesignError where two studies have runs in common: pooling would count them twice.
    """
    if len(studies) < 2:
        raise DesignError(f"a comparison needs at least two studies; got {len(studies)}.")
    _check_independent(studies)
    shares: dict[str, dict[str, Estimate]] = {}
    for label, outcomes in zip(_labels(studies), studies, strict=True):
        for found in _last_effects(outcomes):
            if found.fraction is not None:
                shares.setdefault(found.arm, {})[label] = found.fraction
    if not shares:
        raise DesignError("none of these studies has an effect with a ceiling to compare by.")
    return [pool(found, f"{arm}, as a share of another seed") for arm, found in shares.items()]


def _check_independent(studies: Sequence[xr.Dataset]) -> None:
    for (one, first), (other, second) in combinations(
        zip(_labels(studies), studies, strict=True), 2
    ):
        shared = sorted({*first["seed"].values.tolist()} & {*second["seed"].values.tolist()})
        if shared and _same_program(first, second, shared[0]):
            raise DesignError(
                f"{one} and {other} trained the same runs: one recipe, and {len(shared)} seeds in common, "
                f"like {shared[0]}. Pooled, they would count twice, and the interval would be too short. "
                f"Give each study once, and compare studies of other recipes or of other seeds."
            )


def _same_program(one: xr.Dataset, other: xr.Dataset, seed: int) -> bool:
    """Return whether two studies ran one program: by its digest, or by equal losses of one seed's control."""
    programs = [facts_of(outcomes).digests.get("recipe") for outcomes in (one, other)]
    if all(programs):
        return programs[0] == programs[1]
    controls = [_losses_of_control(outcomes, seed) for outcomes in (one, other)]
    length = min(map(len, controls))
    return length > 0 and bool(
        np.array_equal(controls[0][:length], controls[1][:length], equal_nan=True)
    )


def _losses_of_control(outcomes: xr.Dataset, seed: int) -> np.ndarray:
    if "train_loss" not in outcomes:
        return np.empty(0)
    arm = Arms.of(outcomes).names[Arms.of(outcomes).control]
    return values_at(outcomes["train_loss"], seed=seed, arm=arm)


def _last_effects(outcomes: xr.Dataset) -> list[Effect]:
    return all_effects(
        outcomes, metrics=(headline_metric(outcomes),), steps=[int(outcomes["step"][-1])]
    )


def _labels(studies: Sequence[xr.Dataset]) -> list[str]:
    """Return the studies' names, numbered where two have the same."""
    names = [facts_of(outcomes).study for outcomes in studies]
    return [
        name if names.count(name) == 1 else f"{name} ({place})"
        for place, name in enumerate(names, start=1)
    ]
