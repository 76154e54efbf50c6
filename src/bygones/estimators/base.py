"""What an estimator gives back: one number with its interval, and how it came about."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Estimate:
    """A number, its interval, how many seed pairs stand behind it and by which method.

    `low` and `high` are the ends of the `level` confidence interval, NaN where there is none;
    `num_pairs` counts the pairs used, `num_dropped` those left out because they were not finite.

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

    def covers(self, number: float) -> bool:
        """Whether the interval holds this number; an interval that does not exist holds all.

        >>> Estimate(2.0, 1.0, 3.0, 0.95, 8, "paired t").covers(0.0)
        False
        """
        return not (number < self.low or number > self.high)

    def scaled(self, factor: float) -> Estimate:
        """The same estimate in another unit, `factor > 0` of which make one of this."""
        ends = {name: factor * getattr(self, name) for name in ("value", "low", "high")}
        return Estimate(**{**vars(self), **ends})

    @property
    def number(self) -> str:
        """The value alone, to the digits that its interval supports."""
        return _written(self.value, self._half_width)

    @property
    def interval(self) -> str:
        """The interval alone, in words when there is none."""
        percent = f"{100.0 * self.level:g}%"
        if math.isnan(self.low) or math.isnan(self.high):
            return f"[no {percent} CI]"
        ends = (_written(end, self._half_width) for end in (self.low, self.high))
        return f"[{percent} CI {', '.join(ends)}]"

    @property
    def _half_width(self) -> float:
        return 0.5 * (self.high - self.low)

    def __str__(self) -> str:
        return f"{self.number} {self.interval}"


def _written(number: float, error: float) -> str:
    """A number rounded to its error, by the rule of the Particle Data Group.

    Two digits of the error are kept if they are 35 or less, one if they are more (PDG, Review of
    Particle Physics, introduction, section 5.3). Without an error: three significant digits.

    >>> _written(0.81234, 0.0213), _written(0.81234, 0.0613), _written(3.14159e-7, math.nan)
    ('0.812', '0.81', '3.14e-07')
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
    """The finite numbers among one number a seed pair, and how many were left out."""
    numbers = np.asarray(differences, dtype=np.float64)
    kept = numbers[np.isfinite(numbers)]
    return kept, numbers.size - kept.size


def without_spread(
    value: float, *, level: float, num_pairs: int, num_dropped: int, method: str
) -> Estimate:
    """The estimate where no interval can be computed: too few pairs, or pairs all alike.

    >>> print(without_spread(0.5, level=0.95, num_pairs=1, num_dropped=0, method="paired t"))
    0.500 [no 95% CI]
    """
    if num_pairs < 2:
        low = high = math.nan
        note = "fewer than 2 finite pairs: no interval"
    else:
        low = high = value
        note = "every pair gave the same number: the interval has no width"
    return Estimate(value, low, high, level, num_pairs, method, num_dropped, note)
