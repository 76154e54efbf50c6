"""Scales: axes of the figures of a report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from bygones.publish.verdicts import GONE_SHARE, Reading


@dataclass(frozen=True)
class Scale:
    """An axis from 0 up: linear, or logarithmic above `threshold` and linear between 0 and it."""

    high: float
    ticks: tuple[float, ...]
    threshold: float | None = None

    @property
    def low(self) -> float:
        """A little below 0, so that a mark at exactly 0 is not cut."""
        return -0.03 * self.high if self.threshold is None else -0.35 * self.threshold

    def apply(self, ax: Axes, axis: str) -> None:
        if self.threshold is not None:
            options = {"linthresh": self.threshold, "linscale": 0.45}
            (ax.set_xscale if axis == "x" else ax.set_yscale)("symlog", **options)
        (ax.set_xlim if axis == "x" else ax.set_ylim)(self.low, self.high)
        target = ax.xaxis if axis == "x" else ax.yaxis
        target.set_major_locator(FixedLocator(self.ticks))
        target.set_minor_locator(NullLocator())


def scale(values: Iterable[float], smallest: float) -> Scale:
    """Choose a scale on which both the small and the large of `values` can be read.

    Linear (honest lengths) while the values span less than a factor of 30; otherwise logarithmic
    down to the power of ten below `smallest`, the size under which a difference has no meaning.
    """
    positive = sorted(value for value in values if math.isfinite(value) and value > 0)
    if not positive:
        return Scale(1.0, (0.0, 1.0))
    largest = positive[-1]
    meaningful = [value for value in positive if value >= smallest]
    if not meaningful or largest / meaningful[0] < 30:
        high = 1.08 * largest
        ticks = MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(0.0, high)
        return Scale(high, tuple(float(tick) for tick in ticks if 0 <= tick <= high))
    bottom = math.floor(math.log10(max(smallest, largest * 1e-6)))
    top = math.floor(math.log10(largest))
    stride = 1 + (top - bottom) // 6
    decades = tuple(10.0**power for power in range(bottom, top + 1, stride))
    return Scale(1.5 * largest, (0.0, *decades), 10.0**bottom)


def horizon_scale(horizons: Sequence[int]) -> Scale:
    """Choose the scale of steps after the fork: logarithmic, with 0 shown, for widely spread horizons."""
    positive = sorted(horizon for horizon in horizons if horizon > 0)
    last = max(horizons)
    if not positive or last / positive[0] < 20:
        ticks = MaxNLocator(4, integer=True).tick_values(0, max(last, 1))
        high = 1.03 * max(last, 1)
        return Scale(high, tuple(float(tick) for tick in ticks if 0 <= tick <= high))
    decades = [10.0**power for power in range(int(math.log10(last)) + 1)]
    # The last horizon gets its own label; a decade that would touch it gives way.
    return Scale(1.12 * last, (0.0, *(tick for tick in decades if tick < last / 2), float(last)), 1)


def distance_scale(readings: Sequence[Reading]) -> Scale:
    """Choose one vertical scale for every arm's panel, so that panels can be compared by eye."""
    effects = [effect for reading in readings for effect in reading.course]
    values = [effect.estimate.value for effect in effects]
    values += [effect.estimate.high for effect in effects]
    values += [effect.null.high for effect in effects if effect.null is not None]
    ceilings = [effect.ceiling.value for effect in effects if effect.ceiling is not None]
    largest = max((value for value in values if math.isfinite(value)), default=0.0)
    reference = [value for value in ceilings if math.isfinite(value) and value > 0]
    smallest = GONE_SHARE * min(reference) if reference else largest / 1000
    return scale(values + ceilings, smallest)
