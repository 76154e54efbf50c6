"""Pairing gain: the variance reduction by pairing runs of one seed, per metric and horizon.

Two runs of one seed share their noise until they have drifted apart. While they do, the difference of
the two varies far less than either; afterwards pairing buys nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import xarray as xr
from scipy import special

from bygones.analysis.arms import Arms, values_at
from bygones.analysis.effects import all_effects, pairing_gain, per_seed
from bygones.analysis.metrics import METRICS

PAYS_FROM = 1.25


@dataclass(frozen=True)
class PairingGain:
    """Variance reduction by pairing for one arm, metric and horizon; `str` is the sentence.

    `variance_ratio` is Var(unpaired)/Var(paired) = (Var a + Var b)/Var(a − b): without pairing, about
    so many times as many seeds are needed. None where nothing varies, or with fewer than two pairs.
    For a score a is the treated level and b the control's; for a distance, which is itself of pairs,
    a is the distance of the treated arm and b that of its matched null.
    """

    arm: str
    metric: str
    horizon: int
    num_pairs: int
    correlation: float | None
    variance_ratio: float | None

    @property
    def worth_it_from(self) -> float:
        """The variance ratio from which pairing pays: 1.25, or more at fewer than 8 pairs.

        Pairing halves the degrees of freedom, so that it shortens the interval only if the ratio is
        above (t_{n−1}/t_{2n−2})²: 1.22 at 8 pairs, 1.09 at 16, 1.04 at 32 (at 95%). 1.25 is that price
        at 8 pairs rounded up; a gain below a quarter is also within the error of a ratio of variances.
        """
        return max(PAYS_FROM, price_of_pairing(self.num_pairs))

    @property
    def pays(self) -> bool | None:
        return None if self.variance_ratio is None else self.variance_ratio >= self.worth_it_from

    def __str__(self) -> str:
        where = f"{self.arm}, {METRICS[self.metric].label}, {self.horizon} steps on"
        if self.variance_ratio is None:
            return (
                f"{where}: what pairing is worth cannot be told, as nothing varies between seeds."
            )
        correlation = "" if self.correlation is None else f" (correlation {self.correlation:.2f})"
        said = f"{where}: pairing by seed is worth {self.variance_ratio:.3g} times the seeds{correlation}"
        if self.pays:
            return f"{said}."
        return (
            f"{said}, below {self.worth_it_from:.3g}: pairing has stopped paying, the arms have drifted "
            f"apart as far as two seeds, and only more seeds narrow this interval."
        )


def price_of_pairing(num_pairs: int, *, level: float = 0.95) -> float:
    """Return (t_{n−1}/t_{2n−2})²: the variance ratio below which pairing makes the interval longer.

    >>> [round(price_of_pairing(n), 2) for n in (3, 8, 16, 32)]
    [2.4, 1.22, 1.09, 1.04]
    """
    if num_pairs < 2:
        return math.inf
    rank = 0.5 * (1.0 + level)
    paired, unpaired = (
        float(special.stdtrit(df, rank)) for df in (num_pairs - 1, 2 * num_pairs - 2)
    )
    return (paired / unpaired) ** 2


def pairing_gains(
    outcomes: xr.Dataset,
    metrics: Sequence[str] = ("accuracy", "nll"),
    steps: Iterable[int] | None = None,
) -> list[PairingGain]:
    """Compute pair correlation and Var(unpaired)/Var(paired) of every treated arm, metric and horizon.

    A distance is compared with that of the matched null, arms without one being passed over.
    """
    arms = Arms.of(outcomes)
    found: list[PairingGain] = []
    for effect in all_effects(outcomes, metrics, steps=steps):
        kept = effect.estimate.num_pairs
        correlation, ratio = effect.pair_correlation, effect.variance_ratio
        if effect.facts.kind == "distance":
            null = arms.null_of(effect.arm)
            if effect.excess is None or null is None:
                continue
            kept = effect.excess.num_pairs
            one, other = (
                values_at(per_seed(outcomes, effect.metric, name), step=effect.step)
                for name in (effect.arm, arms.names[null])
            )
            correlation, ratio = pairing_gain(one, other)
        found.append(
            PairingGain(effect.arm, effect.metric, effect.horizon, kept, correlation, ratio)
        )
    return found
