"""Power analysis: the number of seeds for an interval of a given width, or to detect an effect.

A pilot of a few seeds gives the spread of the paired differences; everything else is arithmetic:

    σ_pair² = Var(treated) + Var(control) − 2 ρ √(Var(treated) Var(control))
    half-width of n pairs = t_{n−1} · σ_pair / √n
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from bygones.analysis.estimators import half_width_in_spreads
from bygones.analysis.estimators.base import finite_pairs, standard_error
from bygones.core.errors import DesignError

MOST_PAIRS = 1_000_000


def spread_of_pairs(spread_treated: float, spread_control: float, correlation: float) -> float:
    """Return the standard deviation of treated − control, from those of the two and their correlation.

    >>> round(spread_of_pairs(1.0, 1.0, 0.98), 3), round(spread_of_pairs(1.0, 1.0, 0.0), 3)
    (0.2, 1.414)
    """
    product = spread_treated * spread_control
    variance = spread_treated**2 + spread_control**2 - 2.0 * correlation * product
    return math.sqrt(max(0.0, variance))


def require_half_width(value: float | None) -> None:
    """Raise `DesignError` unless a half-width is finite and above 0; None asks for none."""
    if value is not None and not 0 < value < math.inf:
        raise DesignError(f"a half-width is a number above 0, in the metric's unit; got {value}.")


def half_width(num_pairs: int, spread: float, *, level: float = 0.95) -> float:
    """Return the half-width of the paired t interval of n pairs with this standard deviation: t · σ/√n.

    >>> round(half_width(8, 1.0), 3)
    0.836
    """
    if num_pairs < 2:
        return math.inf
    return (
        float(special.stdtrit(num_pairs - 1, 0.5 * (1.0 + level))) * spread / math.sqrt(num_pairs)
    )


def pairs_for_half_width(
    target: float,
    spread: float,
    *,
    level: float = 0.95,
    assurance: float | None = None,
    anytime: bool = False,
) -> int:
    """Return the fewest seed pairs whose interval is at most ± target.

        t_{n−1} · σ · √(χ²_{n−1, assurance}/(n − 1)) / √n ≤ target

    Without `assurance` the sample's spread is taken to be `spread`, which it exceeds about half the
    time; with it (0.8, say) the interval is as narrow as that with this probability, pairs being
    normal. χ²_{ν,q}: the q quantile of chi-squared with ν degrees of freedom. `anytime` plans for the
    confidence sequence, at whose width one may stop (then `assurance` is the chance to have reached it
    by then, if one looks there only). The quantile itself depends on n: the search is exact.
    Kupper & Hafner, How appropriate are popular sample size formulas?, Am. Stat. 43 (1989), 101–105.

    >>> [pairs_for_half_width(0.5, 1.0), pairs_for_half_width(0.5, 1.0, assurance=0.8)]
    [18, 22]
    """
    _positive(target=target)
    if not (math.isfinite(spread) and spread >= 0.0):
        raise DesignError(f"a spread is a finite number that is not negative; got {spread!r}.")

    def narrow(n: int) -> bool:
        likely = spread
        if assurance is not None:
            likely *= math.sqrt(float(special.chdtri(n - 1, 1.0 - assurance)) / (n - 1))
        if anytime:
            # Its spread has n below the line.
            wide = half_width_in_spreads(n, level=level) * math.sqrt((n - 1) / n)
            return math.isfinite(wide) and wide * likely <= target
        return half_width(n, likely, level=level) <= target

    return _fewest(narrow, f"a half-width of {target:g} at a spread of {spread:g}")


def power(num_pairs: int, effect: float, spread: float, *, level: float = 0.95) -> float:
    """Return the power of the paired t test at 1 − level: the chance that n pairs detect this effect.

        P(|T| > t_{n−1}),  T noncentral t with n − 1 degrees of freedom, centre √n · effect/σ

    >>> round(power(10, 1.0, 1.0), 3)
    0.803
    """
    return _power(num_pairs, effect, spread, level)


def pairs_for_effect(
    effect: float, spread: float, *, power: float = 0.8, level: float = 0.95
) -> int:
    """Return the fewest seed pairs that detect an effect this large with this power.

    The paired t test's power is that of the noncentral t, and grows with n.

    >>> pairs_for_effect(1.0, 1.0), pairs_for_effect(0.5, 1.0)
    (10, 34)
    """
    _positive(effect=abs(effect))
    if not power < 1.0:
        raise DesignError(f"no number of pairs has a power of {power!r}: it is below 1.")
    return _fewest(
        lambda n: _power(n, effect, spread, level) >= power,
        f"an effect of {effect:g} at a spread of {spread:g}",
    )


def detectable_effect(
    num_pairs: int, spread: float, *, power: float = 0.8, level: float = 0.95
) -> float:
    """Return the smallest effect that n pairs detect with this power; infinite below two pairs.

    `power` lies between 1 − level, which no effect at all has, and 1.

    >>> round(detectable_effect(10, 1.0), 3)
    0.996
    """
    if not 1.0 - level < power < 1.0:
        raise DesignError(f"power lies between 1 − level and 1, both left out; got {power!r}.")
    if num_pairs < 2:
        return math.inf
    high = 1.0
    while _power(num_pairs, high, 1.0, level) < power:
        high *= 2.0
    root = optimize.brentq(
        lambda e: _power(num_pairs, e, 1.0, level) - power, 1e-9, high, xtol=1e-9
    )
    return float(root) * spread


# ------------------------------------------------------------------ from a pilot


@dataclass(frozen=True)
class SeedsNeeded:
    """Number of seed pairs by a pilot; `str` is the sentence.

    `cautious` is the same number if the true spread is at the upper end of the pilot's one-sided 80%
    interval for it: a spread from few pairs is itself uncertain, and plans made on it fail half the time.
    """

    num_pairs: int
    cautious: int
    purpose: str
    spread: float
    spread_high: float
    pilot_pairs: int
    note: str = ""

    def __str__(self) -> str:
        said = (
            f"{self.num_pairs} seed pairs for {self.purpose}, the pairs' standard deviation being "
            f"{self.spread:.3g} in {self.pilot_pairs} pilot pairs; {self.cautious} if it is the "
            f"{self.spread_high:.3g} that these cannot rule out (80% upper limit)"
        )
        return f"{said} ({self.note})." if self.note else f"{said}."


def seeds_needed(
    pilot: ArrayLike,
    *,
    half_width: float | None = None,
    effect: float | None = None,
    power: float = 0.8,
    level: float = 0.95,
) -> SeedsNeeded:
    """Plan seed pairs for a half-width, or for an effect at a power, from a pilot's paired differences.

    `pilot` has shape (R,), at least two finite numbers. Give `half_width` or `effect`, not both. The
    upper limit of the spread is s · √((R − 1)/χ²_{R−1, 0.2}): Browne, On the use of a pilot sample for
    sample size determination, Stat. Med. 14 (1995), 1933–1940.

    >>> print(seeds_needed([0.9, 1.1, 1.0, 1.2], half_width=0.1))
    9 seed pairs for a half-width of 0.1 at 95%, the pairs' standard deviation being 0.129 in 4 pilot pairs; \
22 if it is the 0.223 that these cannot rule out (80% upper limit).
    """
    if (half_width is None) == (effect is None):
        raise DesignError("seeds are planned for a half_width or for an effect: give one of them.")
    kept, num_dropped = finite_pairs(pilot)
    if kept.size < 2:
        raise DesignError(
            f"a spread needs two finite pilot pairs or more; got {kept.size} ({num_dropped} not finite)."
        )
    n = kept.size
    alike = bool(np.all(kept == kept[0]))
    spread = 0.0 if alike else standard_error(kept) * math.sqrt(n)
    spread_high = spread * math.sqrt((n - 1) / float(special.chdtri(n - 1, 0.8)))

    def needed(sigma: float) -> int:
        if half_width is not None:
            return pairs_for_half_width(half_width, sigma, level=level)
        return pairs_for_effect(effect or 0.0, sigma, power=power, level=level)

    if half_width is not None:
        purpose = f"a half-width of {half_width:g} at {100 * level:g}%"
    else:
        purpose = f"an effect of {effect:g} with power {power:g} at level {1 - level:.3g}"
    notes = ["every pilot pair gave the same number: its spread is not known"] if alike else []
    notes += [f"{num_dropped} pilot pairs were not finite"] if num_dropped else []
    return SeedsNeeded(
        needed(spread), needed(spread_high), purpose, spread, spread_high, n, "; ".join(notes)
    )


# ------------------------------------------------------------------ searching


def _power(num_pairs: int, effect: float, spread: float, level: float) -> float:
    from bygones.analysis.statsmodels_bridge import power_of_t  # statsmodels takes a second to load

    if num_pairs < 2:
        return 0.0
    if spread == 0.0:
        return 1.0 if effect else 0.0
    _positive(spread=spread)
    return power_of_t(abs(effect) / spread, num_pairs, 1.0 - level)


def _positive(**named: float) -> None:
    for name, number in named.items():
        if not (math.isfinite(number) and number > 0.0):
            raise DesignError(f"{name} has to be a finite number above 0; got {number!r}.")


def _fewest(enough: Callable[[int], bool], purpose: str) -> int:
    """Return the smallest n ≥ 2 that is enough, where every larger one is too."""
    high = 2
    while not enough(high):
        high *= 2
        if high > MOST_PAIRS:
            raise DesignError(f"{purpose} would take more than {MOST_PAIRS:,} seed pairs.")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return max(high, 2)
