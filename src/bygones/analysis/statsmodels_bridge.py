"""Bridge to statsmodels: multiplicity, TOST, power and meta-analysis; the one file that imports it.

Arguments and results are plain numbers and arrays, so that no name of statsmodels is used elsewhere.
Imported by the modules that plan, adjust and pool, not by those that measure.
"""

from __future__ import annotations

import gc
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special
from statsmodels.stats.meta_analysis import combine_effects
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import DescrStatsW

Method = Literal["holm", "bh"]


def adjusted(p_values: np.ndarray, method: Method) -> np.ndarray:
    """Adjust p-values for multiple comparisons, (m,) -> (m,): "holm" or "bh" (Benjamini–Hochberg).

    >>> adjusted(np.array([0.01, 0.02, 0.04]), "holm").tolist()
    [0.03, 0.04, 0.04]
    """
    gc.freeze()  # it collects garbage, which takes a tenth of a second with torch's objects around
    try:
        found = multipletests(p_values, method={"holm": "holm", "bh": "fdr_bh"}[method])
    finally:
        gc.unfreeze()
    return np.asarray(found[1])


def one_sided(kept: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """Return the p-values of the two one-sided t tests: mean not above low, not below high."""
    _, above_low, below_high = DescrStatsW(kept).ttost_mean(low, high)
    return float(above_low[1]), float(below_high[1])


def power_of_t(effect: float, num_pairs: int, alpha: float) -> float:
    """Compute the power of the two-sided paired t test; `effect` in standard deviations of the pairs.

        P(|T| > t_{n−1, 1−α/2}),  T noncentral t with n − 1 degrees of freedom, centre √n · effect

    >>> round(power_of_t(1.0, 10, 0.05), 4)
    0.8031
    """
    power = float(TTestPower().power(effect, num_pairs, alpha))
    return power if math.isfinite(power) else _power_by_quadrature(effect, num_pairs, alpha)


def _power_by_quadrature(effect: float, num_pairs: int, alpha: float) -> float:
    """Compute the power by quadrature over the sample's spread: scipy's noncentral t fails far from 0."""
    degrees, centre = num_pairs - 1, math.sqrt(num_pairs) * effect
    ranks = (np.arange(20_000) + 0.5) / 20_000
    spread = np.sqrt(special.chdtri(degrees, ranks) / degrees)
    reach = float(special.stdtrit(degrees, 1.0 - 0.5 * alpha)) * spread
    power: np.ndarray = special.ndtr(centre - reach) + special.ndtr(-centre - reach)
    return float(np.mean(power))


@dataclass(frozen=True)
class Combined:
    """Random-effects pooling as statsmodels gives it: Paule–Mandel τ², Q and I² of the fixed one."""

    mean: float
    error: float  # standard error of the mean
    low: float
    high: float
    tau_squared: float
    q: float
    q_p_value: float
    i_squared: float
    weights: np.ndarray


def combined(effects: np.ndarray, variances: np.ndarray, level: float) -> Combined:
    """Pool two or more studies, (k,) effects and their sampling variances; t with k − 1 degrees."""
    with np.errstate(divide="ignore"):  # studies all alike: Q is 0 and I² has no value
        found = combine_effects(effects, variances, method_re="pm", use_t=True)
    low, high = found.conf_int(alpha=1.0 - level)[1]
    homogeneity = found.test_homogeneity()
    return Combined(
        mean=float(found.mean_effect_re),
        error=float(found.sd_eff_w_re),
        low=float(low),
        high=float(high),
        tau_squared=max(0.0, float(found.tau2)),
        q=float(found.q),
        q_p_value=float(homogeneity.pvalue),
        i_squared=max(0.0, float(found.i2)) if found.q > 0.0 else 0.0,
        weights=np.asarray(found.weights_rel_re),
    )
