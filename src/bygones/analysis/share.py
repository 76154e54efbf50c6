"""Share of the ceiling: an effect as a part of what another seed would change, with interval and limit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import special

from bygones.analysis.estimators import (
    Estimate,
    by_skewness,
    jackknife,
    mean_over_pairs,
    means_without_each,
    pair_means_without_each,
)
from bygones.analysis.skewness import SKEWED_FROM
from bygones.analysis.upper_limit import upper_limit

ON_THE_LOG_SCALE = "jackknife on the log scale"
_TOO_LARGE = 700.0  # a logarithm whose exponential is no number any more


def share_of_ceiling(
    moved: np.ndarray,
    between: np.ndarray,
    interval: Callable[..., Estimate] | None = by_skewness,
    *,
    level: float = 0.95,
) -> Estimate:
    """Estimate θ = effect / ceiling by the jackknife over seeds.

        θ = mean_s moved_s / mean_{s≠s′} between_ss′

    `moved`: (R,), distance of each seed's treated run from its control; `between`: (R, R), distances between
    the controls. `interval` is the estimator whose interval is taken over the pseudo-values of θ, None for
    Student's. Where it measures a skewness beyond 0.3 in them, it is taken over those of log θ instead, and
    its ends are raised to powers of e: a ratio is skewed even where its parts are not. `method` says which.
    """
    pairs: dict[str, Any] = {"level": level, "interval": interval}
    found = jackknife(moved, between, statistic=_ratio, leave_one_out=_ratios_without_each, **pairs)
    if found.skewness is None or abs(found.skewness) <= SKEWED_FROM:
        return found
    logs = jackknife(
        moved, between, statistic=_log_ratio, leave_one_out=_log_ratios_without_each, **pairs
    )
    if not (math.isfinite(logs.low) and math.isfinite(logs.high)):
        return found
    low, high = (math.exp(end) if end < _TOO_LARGE else math.inf for end in (logs.low, logs.high))
    return replace(found, low=low, high=high, method=ON_THE_LOG_SCALE)


def share_limit(
    moved: np.ndarray, between: np.ndarray, share: Estimate, ceiling: Estimate
) -> float:
    """Return the upper limit of a share that a claim of its smallness is judged by.

        log limit = log θ + √((log U − log effect)² + (t · error of log ceiling)²),   not below `share.high`

    U: the upper limit of the effect, `upper_limit`; θ: the share. Both errors are taken to be independent,
    which is careful, as a seed that moves far is far from others too.
    """
    n, level = share.num_pairs, 0.5 * (1.0 + share.level)
    if not share.value > 0.0:
        return share.high
    kept = np.isfinite(moved) & np.isfinite(np.diagonal(between))
    effect = float(moved[kept].mean())
    in_logs = math.log(upper_limit(moved[kept], level=level) / effect)
    t = float(special.stdtrit(n - 1, level)) if n > 1 else math.inf
    of_ceiling = t * (ceiling.error or 0.0) / ceiling.value
    limit = math.log(share.value) + math.hypot(in_logs, of_ceiling)
    return max(share.high, math.exp(limit) if limit < _TOO_LARGE else math.inf)


def _ratio(moved: np.ndarray, between: np.ndarray) -> float:
    """Return effect / ceiling; NaN where there is no ceiling."""
    ceiling = mean_over_pairs(between)
    return float(moved.mean() / ceiling) if ceiling > 0.0 else math.nan


def _log_ratio(moved: np.ndarray, between: np.ndarray) -> float:
    ratio = _ratio(moved, between)
    return math.log(ratio) if ratio > 0.0 else math.nan


def _ratios_without_each(moved: np.ndarray, between: np.ndarray) -> np.ndarray:
    """Return effect / ceiling without each seed; NaN where there is no ceiling."""
    ceilings = pair_means_without_each(between)
    return means_without_each(moved) / np.where(ceilings > 0.0, ceilings, math.nan)


def _log_ratios_without_each(moved: np.ndarray, between: np.ndarray) -> np.ndarray:
    ratios = _ratios_without_each(moved, between)
    return np.log(np.where(ratios > 0.0, ratios, math.nan))
