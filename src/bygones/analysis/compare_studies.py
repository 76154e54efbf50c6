"""Comparison of studies: how much history matters across models, data and regimes."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr

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
    """
    if len(studies) < 2:
        raise DesignError(f"a comparison needs at least two studies; got {len(studies)}.")
    shares: dict[str, dict[str, Estimate]] = {}
    for label, outcomes in zip(_labels(studies), studies, strict=True):
        for found in _last_effects(outcomes):
            if found.fraction is not None:
                shares.setdefault(found.arm, {})[label] = found.fraction
    if not shares:
        raise DesignError("none of these studies has an effect with a ceiling to compare by.")
    return [pool(found, f"{arm}, as a share of another seed") for arm, found in shares.items()]


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
