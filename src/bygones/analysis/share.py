"""Share of the ceiling: an effect as a part of what another seed would change, with its interval."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy import special

from bygones.analysis.estimators import Estimate, jackknife, mean_over_pairs
from bygones.analysis.estimators.by_skewness import SKEWED
from bygones.analysis.upper_limit import upper_limit

ON_THE_LOG_SCALE = "skewness-corrected jackknife, also on the log scale"


def share_of_ceiling(
    moved: np.ndarray, between: np.ndarray, interval: Callable[..., Estimate], *, level: float = 0.95
) -> Estimate:
    """Estimate effect / ceiling by the jackknife over seeds.

        mean_s moved_s / mean_{s≠s′} between_ss′

    `moved`: (R,), distance of each seed's treated run from its control; `between`: (R, R), distances between
    the controls. `interval` is the estimator whose interval is taken over the pseudo-values. Where
    `by_skewness` finds these skewed, each end is the farther one of its interval and of Student's on the log
    scale, θ · exp(±t · error of log θ): a ratio is skewed whatever it is made of.
    """
    found = jackknife(moved, between, statistic=_ratio, level=level, interval=interval)
    if not found.method.startswith(SKEWED.removesuffix(" t")):
        return found
    logs = jackknife(moved, between, statistic=_log_ratio, level=level)
    if not (math.isfinite(logs.low) and math.isfinite(logs.high)):
        return found
    low, high = (math.exp(min(end, 700.0)) for end in (logs.low, logs.high))
    return replace(
        found, low=min(found.low, low), high=max(found.high, high), method=ON_THE_LOG_SCALE
    )


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
    return max(share.high, math.exp(limit) if limit < 700.0 else math.inf)


def _ratio(moved: np.ndarray, between: np.ndarray) -> float:
    """Return effect / ceiling; NaN where there is no ceiling."""
    ceiling = mean_over_pairs(between)
    return float(moved.mean() / ceiling) if ceiling > 0.0 else math.nan


def _log_ratio(moved: np.ndarray, between: np.ndarray) -> float:
    ratio = _ratio(moved, between)
    return math.log(ratio) if ratio > 0.0 else math.nan
