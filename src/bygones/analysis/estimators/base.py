"""Estimate: a number with its confidence interval, and the arithmetic that estimators share."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np
import scipy
from numpy.typing import ArrayLike

from bygones.core.errors import DesignError

PAIRED_T = "paired t"


@dataclass(frozen=True)
class Estimate:
    """A number, its interval, how many seed pairs stand behind it and by which method.

    `low` and `high` are the ends of the `level` confidence interval: NaN where there are fewer than
    two pairs, infinite where the method cannot bound the truth with so few (`note` says which).
    `num_pairs` counts the pairs used, `num_dropped` those left out because they were not finite.
    `p_value` is two-sided, for the hypothesis that the truth is 0: at most 1 − level exactly where
    the interval leaves out 0 (but for pairs all alike, see
    `estimate_without_interval`), None where there is none.
    `error`: the standard error that the interval was made from, `skewness`: the pairs' skewness by which
    the interval was chosen; None where the method has none.

    >>> print(Estimate(0.0081, 0.0075, 0.0087, level=0.95, num_pairs=32, method="paired t"))
    0.0081 [95% CI 0.0075, 0.0087]
    """

    value: float
    low: float
    high: float
    level: float
    num_pairs: int
    method: str
    num_dropped: int = 0
    note: str = ""
    p_value: float | None = None
    error: float | None = None
    skewness: float | None = None

    def covers(self, number: float) -> bool:
        """Return whether the interval contains a number; an interval that does not exist contains all.

        >>> Estimate(2.0, 1.0, 3.0, 0.95, 8, "paired t").covers(0.0)
        False
        """
        return not (number < self.low or number > self.high)

    def scaled(self, factor: float) -> Estimate:
        """Return the estimate in another unit, `factor > 0` of which make one of this."""
        error = None if self.error is None else factor * self.error
        value, low, high = (factor * number for number in (self.value, self.low, self.high))
        return replace(self, value=value, low=low, high=high, error=error)

    @property
    def number(self) -> str:
        """The value alone, to the digits that its interval supports."""
        return _round_to_error(self.value, self._half_width)

    @property
    def interval(self) -> str:
        """The interval alone, in words when there is none or an end of it is infinite."""
        percent = f"{100.0 * self.level:g}%"
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            return f"[no {percent} CI]"
        ends = (_round_to_error(end, self._half_width) for end in (self.low, self.high))
        return f"[{percent} CI {', '.join(ends)}]"

    @property
    def _half_width(self) -> float:
        return 0.5 * (self.high - self.low)

    def __str__(self) -> str:
        return f"{self.number} {self.interval}"


class SampleFacts(TypedDict):
    """The fields of an `Estimate` that do not depend on the numbers: its level, pairs and method."""

    level: float
    num_pairs: int
    num_dropped: int
    method: str


def _round_to_error(number: float, error: float) -> str:
    """Round a number to its error, by the rule of the Particle Data Group.

    Two digits of the error are kept if they are 35 or less, one if they are more (PDG, Review of
    Particle Physics, introduction, section 5.3). Without an error: three significant digits.

    >>> _round_to_error(0.81234, 0.0213), _round_to_error(0.81234, 0.0613)
    ('0.812', '0.81')
    >>> _round_to_error(3.14159e-7, math.nan)
    '3.14e-07'
    """
    if math.isnan(number):
        return "not a number"
    if number == 0.0 and not error > 0.0:
        return "0"
    if error > 0.0 and math.isfinite(error):
        power = math.floor(math.log10(error))
        place = power - 1 if error / 10.0**power < 3.55 else power
    elif number == 0.0 or math.isinf(number):
        return f"{number:g}"
    else:
        place = math.floor(math.log10(abs(number))) - 2
    if place < -7:
        # A whole run of zeros is hard to read: powers of ten, to the same place.
        digits = 0
        if number != 0.0:
            digits = max(0, math.floor(math.log10(abs(number))) - place)
        return f"{number:.{digits}e}"
    return f"{round(number, -place):.{max(0, -place)}f}"


def finite_pairs(differences: ArrayLike) -> tuple[np.ndarray, int]:
    """Return the finite numbers of one number a seed pair, and how many were left out."""
    numbers = np.asarray(differences, dtype=np.float64)
    if numbers.ndim != 1:
        raise DesignError(
            f"one number a seed pair is wanted, shape (R,); got shape {numbers.shape}. Repeats within "
            f"seeds are not more seeds: give them to 'hierarchical', or average them first."
        )
    kept = numbers[np.isfinite(numbers)]
    return kept, numbers.size - kept.size


def describe_pairs(
    differences: ArrayLike, level: float, method: str
) -> tuple[np.ndarray, float, SampleFacts]:
    """Return the finite pairs of a sample, their mean (NaN of none), and what an `Estimate` says of them."""
    kept, num_dropped = finite_pairs(differences)
    mean = float(kept.mean()) if kept.size else math.nan
    facts: SampleFacts = {
        "level": level,
        "num_pairs": kept.size,
        "num_dropped": num_dropped,
        "method": method,
    }
    return kept, mean, facts


def seed_means(differences: ArrayLike) -> tuple[np.ndarray, int, str]:
    """Average the finite repeats of each seed, (R, K) or (R,) -> (R,); seeds left out; and a note.

    >>> seed_means([[1.0, 3.0], [math.nan, 5.0], [math.nan, math.nan]])
    (array([2., 5.]), 1, "repeats that are not finite, left out of their seed's mean: 1")
    """
    numbers = np.asarray(differences, dtype=np.float64)
    if numbers.ndim not in (1, 2):
        raise DesignError(
            f"numbers of seed pairs are (R,), or (R, K) with repeats; got {numbers.shape}."
        )
    numbers = numbers.reshape(numbers.shape[0], -1) if numbers.size else np.empty((0, 1))
    finite = np.isfinite(numbers)
    counts = finite.sum(axis=1)
    kept = counts > 0
    # Measured from each seed's first repeat: the mean of equal numbers is that number, to the bit.
    first = np.take_along_axis(numbers, np.argmax(finite, axis=1)[:, None], axis=1)[kept]
    further = np.where(finite[kept], numbers[kept] - first, 0.0)
    means = first[:, 0] + further.sum(axis=1) / counts[kept]
    lost = int(np.sum(~finite[kept]))
    note = f"repeats that are not finite, left out of their seed's mean: {lost}" if lost else ""
    return means, int(np.sum(~kept)), note


def estimate_without_interval(
    value: float, *, level: float, num_pairs: int, num_dropped: int, method: str
) -> Estimate:
    """Return the estimate where no interval can be computed: too few pairs, or pairs all alike.

    Pairs all alike still have a p-value, that of the exact sign-flip test: 2^(1 − pairs), or 1 at 0.

    >>> print(estimate_without_interval(0.5, level=0.95, num_pairs=1, num_dropped=0, method="paired t"))
    0.500 [no 95% CI]
    """
    if num_pairs < 2:
        low = high = math.nan
        note, p_value = "fewer than 2 finite pairs: no interval", None
    else:
        low = high = value
        note = "every pair gave the same number: the interval has no width"
        p_value = 1.0 if value == 0.0 else 2.0 ** (1 - num_pairs)
    return Estimate(value, low, high, level, num_pairs, method, num_dropped, note, p_value)


def standard_error(kept: np.ndarray) -> float:
    """Compute s / √n of pairs that are not all alike; spreads too small to be squared survive."""
    spread = float(np.ptp(kept))
    return spread * float(((kept - kept.mean()) / spread).std(ddof=1)) / math.sqrt(kept.size)


def estimate_from_t(
    value: float,
    error: float,
    degrees: int,
    *,
    level: float,
    num_pairs: int,
    num_dropped: int,
    method: str,
    note: str = "",
) -> Estimate:
    """Return value ± t · error, t the (1 + level)/2 quantile of Student's t with so many degrees of freedom.

    >>> found = estimate_from_t(1.0, 0.5, 7, level=0.95, num_pairs=8, num_dropped=0, method="paired t")
    >>> print(found, round(found.p_value, 3))
    1.0 [95% CI -0.2, 2.2] 0.086
    """
    half = float(scipy.special.stdtrit(degrees, 0.5 * (1.0 + level))) * error
    ratio = abs(value) / error if error > 0.0 else math.inf if value else 0.0
    p_value = 2.0 * float(scipy.special.stdtr(degrees, -ratio))
    ends = (value - half, value + half)
    return Estimate(value, *ends, level, num_pairs, method, num_dropped, note, p_value, error)


def estimate_from_draws(
    value: float,
    draws: np.ndarray,
    tolerance: float = 0.0,
    *,
    level: float,
    num_pairs: int,
    num_dropped: int,
    method: str,
) -> Estimate:
    """Return the percentile interval between two order statistics of B draws, and its p-value.

        [r₍ₖ₎, r₍B+1−k₎],  k = ⌊(B + 1)(1 − level)/2⌋;  unbounded where k = 0
        p = 2 · min(1 + #{r ≤ 0}, 1 + #{r ≥ 0}) / (B + 1), at most 1

    r₍₁₎ ≤ … ≤ r₍B₎: the draws, (B,), in any order; those within `tolerance` of 0 count as 0.
    """
    num = draws.size
    k = math.floor((num + 1) * 0.5 * (1.0 - level) * (1.0 + 1e-12))
    low, high = -math.inf, math.inf
    if k:
        ends = np.partition(draws, (k - 1, num - k))
        low, high = float(ends[k - 1]), float(ends[num - k])
    above, below = int(np.sum(draws >= -tolerance)), int(np.sum(draws <= tolerance))
    p_value = min(1.0, 2.0 * (1 + min(above, below)) / (num + 1))
    note = "" if math.isfinite(low) and math.isfinite(high) else infinite_interval_note(num_pairs)
    return Estimate(value, low, high, level, num_pairs, method, num_dropped, note, p_value)


def infinite_interval_note(num_pairs: int, fewest: int | None = None) -> str:
    """Return the note of an interval that has an infinite end. `fewest`: pairs at which it has none."""
    note = f"{num_pairs} such pairs are too few for this method: its interval is unbounded"
    return note if fewest is None else f"{note} below {fewest} pairs"


def fewest_for_sign_flips(level: float) -> int:
    """Return the fewest pairs of which a flip of signs can be rare enough: 2^(1 − n) ≤ 1 − level.

    >>> fewest_for_sign_flips(0.95), fewest_for_sign_flips(0.99)
    (6, 8)
    """
    return math.ceil(1.0 - math.log2(1.0 - level) - 1e-9)


def estimate_by_student(differences: ArrayLike, level: float) -> Estimate:
    """Return the mean of a sample, (R,), with Student's t interval; see `paired_t`."""
    kept, mean, facts = describe_pairs(differences, level, PAIRED_T)
    n = kept.size
    if n < 2 or np.all(kept == kept[0]):
        return estimate_without_interval(mean, **facts)
    return estimate_from_t(mean, standard_error(kept), n - 1, **facts)
