"""Shorten a study: the same arms, followed for fewer steps."""

from __future__ import annotations

from dataclasses import replace

from bygones.core.values import Window
from bygones.study.design import Arm, Study
from bygones.training.interventions import Permute, SwapWindows


def shorten(study: Study, steps: int) -> Study:
    """Return the study with its horizons up to `steps`, at least two, and windows cut at the last one.

    What rearranges a window of the order is not cut, and horizons are kept until it is over. A family of
    comparisons that was declared for a later horizon becomes the default one. Arms that begin to differ
    later than the last horizon are left out.
    """
    rearranged = [
        one.window.stop - study.fork_at
        for arm in study.arms
        for one in arm.treatments
        if isinstance(one.intervention, SwapWindows | Permute)
    ]
    least = max([*sorted(study.horizons)[:2], *rearranged])
    far = next((horizon for horizon in study.horizons if horizon >= least), study.horizons[-1])
    kept = tuple(horizon for horizon in study.horizons if horizon <= max(steps, far))
    end = study.fork_at + kept[-1]
    arms = tuple(arm for arm in (_cut(arm, end) for arm in study.arms) if arm.treatments)
    names, family = {arm.name for arm in arms}, study.family
    if family and not (set(family.horizons) <= set(kept) and set(family.arms) <= names):
        family = None
    return replace(study, horizons=kept, arms=arms, family=family)


def _cut(arm: Arm, end: int) -> Arm:
    """Return the arm with its windows ending at `end`, and without those that begin later."""
    treatments = tuple(
        replace(one, window=Window(one.window.start, min(one.window.stop, end)))
        for one in arm.treatments
        if one.window.start < end
    )
    return replace(arm, treatments=treatments)
