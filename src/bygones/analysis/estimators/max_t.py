"""Simultaneous band (max-T): many means at once, by the largest |t| under sign flips."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from bygones.analysis.estimators.base import Estimate, fewest_for_sign_flips
from bygones.core.keyed_rng import generator

METHOD = "max-T by sign flips"
NUM_FLIPS = 8192  # all of them up to 14 pairs; a 95 % level drawn from so many is good to 0.3 %
_BLOCK = 1 << 21  # numbers held at a time


@dataclass(frozen=True, eq=False)
class Band:
    """Means with intervals that all hold together, at the stated level: arrays of any one shape.

    `low`, `high` = `mean` ∓ `critical` · `standard_error`. Where every pair gave the same number the
    interval has no width. With fewer than two pairs it is NaN, with too few for the level it is
    infinite, and `note` says so.
    """

    mean: np.ndarray
    standard_error: np.ndarray
    critical: float
    level: float
    num_pairs: int
    num_dropped: int
    method: str
    note: str = ""

    @property
    def half_width(self) -> np.ndarray:
        # No spread stays no width, also where nothing bounds the others.
        flat = self.standard_error == 0.0
        return np.where(flat, 0.0, self.critical * np.where(flat, 1.0, self.standard_error))

    @property
    def low(self) -> np.ndarray:
        return self.mean - self.half_width

    @property
    def high(self) -> np.ndarray:
        return self.mean + self.half_width

    @property
    def t(self) -> np.ndarray:
        """mean / standard error; 0/0 is 0 (nothing there), anything else over 0 is infinite."""
        still = np.where(self.mean == 0.0, 0.0, np.copysign(np.inf, self.mean))
        flat = self.standard_error == 0.0
        return np.where(flat, still, self.mean / np.where(flat, 1.0, self.standard_error))

    def __getitem__(self, place: int | tuple[int, ...]) -> Estimate:
        """One of the means as an estimate, its interval still the simultaneous one."""
        return Estimate(
            float(self.mean[place]),
            float(self.low[place]),
            float(self.high[place]),
            self.level,
            self.num_pairs,
            self.method,
            self.num_dropped,
            self.note,
        )


def max_t(
    differences: ArrayLike, *, level: float = 0.95, seed: int = 0, num_flips: int = NUM_FLIPS
) -> Band:
    """Means over seed pairs with simultaneous intervals, as wide as the largest |t| may be by luck.

        d̄_j ± c · s_j / √n,   c: the `level` quantile over signs ε of max_j |t_j(ε ∘ (d − d̄))|

    d_sj: difference of pair s in coordinate j; s_j: its standard deviation (n − 1 below the line);
    t_j(e) = ē_j √n / s_j(e), studentised anew for each flip; ε ∈ {−1, 1}ⁿ: one sign a *pair*, the
    same in every coordinate, so that c knows how the coordinates hang together. All 2ⁿ flips where
    they are at most 2·`num_flips`, else `num_flips` drawn ones; `seed` is their only randomness.

    `differences` has shape (R, ...), the band (...). A pair with a number that is not finite is left
    out altogether, and counted. Assumes differences that are symmetric about their mean: covers
    0.94 to 0.98 where 0.95 is asked, for 1 to 1 000 normal or heavy-tailed coordinates and 6 to 32
    pairs, but far less where many coordinates are skewed (log-normal: 0.2 or less for 100 of them).
    Needs 1 − log₂(1 − level) pairs: 6 for 0.95; below that no flip is rare enough. Westfall & Young,
    Resampling-Based Multiple Testing (Wiley 1993), chapter 2 (single-step max-T).

    >>> band = max_t([[0.9, 0.1], [1.1, -0.2], [1.0, 0.3], [1.2, -0.1], [0.8, 0.2], [1.0, -0.3]])
    >>> (band.low > 0.0).tolist()
    [True, False]
    """
    numbers = np.asarray(differences, dtype=np.float64)
    kept = numbers[np.isfinite(numbers).all(axis=tuple(range(1, numbers.ndim)))]
    n, num_dropped = len(kept), len(numbers) - len(kept)
    band = partial(Band, level=level, num_pairs=n, num_dropped=num_dropped)
    shape: tuple[int, ...] = numbers.shape[1:]
    if n < 2:
        mean = kept[0] if n else np.full(shape, np.nan)
        note = "fewer than 2 finite pairs: no interval"
        return band(mean, np.full(shape, np.nan), math.nan, method=METHOD, note=note)
    flat = np.ptp(kept, axis=0) == 0.0
    first: np.ndarray = kept[0]
    mean = np.where(flat, first, kept.mean(axis=0))
    error = np.where(flat, 0.0, kept.std(axis=0, ddof=1) / math.sqrt(n))
    fewest = fewest_for_sign_flips(level)
    if n < fewest:
        note = f"fewer than {fewest} pairs: sign flips cannot bound anything at {level:.0%}"
        return band(mean, error, math.inf, method=METHOD, note=note)
    if flat.all():
        note = "every pair gave the same number: the interval has no width"
        return band(mean, error, 0.0, method=METHOD, note=note)
    exact = 2 ** (n - 1) <= num_flips
    num_used = 2 ** (n - 1) if exact else num_flips
    largest = np.sort(_largest_t((kept - mean)[:, ~flat], num_used, exact, seed))
    # Of drawn flips the band's own data is one more, so that c errs to the safe side.
    rank = math.ceil(level * (num_used if exact else num_used + 1))
    said = f"all {2 * num_used}" if exact else f"{num_used}"
    method = f"{METHOD} ({said})"
    return band(mean, error, float(largest[min(rank, num_used) - 1]), method=method)


def _largest_t(centred: np.ndarray, num_flips: int, exact: bool, seed: int) -> np.ndarray:
    """max_j |t_j| under each flip: (R, J) -> (num_flips,).

    Σ e² does not change with signs, so t² = (n − 1) r/(1 − r) with r = (Σ εe)² / (n Σ e²), which
    grows with r: one matrix product and one maximum.
    """
    n = len(centred)
    # Of size one first: the squares of very small numbers are not numbers any more.
    sized = centred / np.abs(centred).max(axis=0)
    unit = sized / np.sqrt((sized**2).sum(axis=0) * n)
    rows = max(1, _BLOCK // unit.shape[1])
    reach = [
        np.abs(signs @ unit).max(axis=1) ** 2 for signs in _signs(n, num_flips, exact, seed, rows)
    ]
    r = np.minimum(np.concatenate(reach), 1.0)
    with np.errstate(divide="ignore"):  # r = 1: all pairs equally far from the mean, t is infinite
        return np.sqrt((n - 1) * r / (1.0 - r))


def _signs(n: int, num_flips: int, exact: bool, seed: int, rows: int) -> Iterator[np.ndarray]:
    """Signs, (rows, n) at a time. Of two opposite flips one is enough: the first sign stays."""
    rng = generator(seed, METHOD)
    for start in range(0, num_flips, rows):
        count = min(rows, num_flips - start)
        if exact:
            bits = np.arange(start, start + count)[:, None] >> np.arange(n - 1)[None, :] & 1
        else:
            bits = rng.integers(0, 2, size=(count, n - 1))
        yield np.hstack([np.ones((count, 1)), 1.0 - 2.0 * bits])
