"""Dose response: how the effect of a treatment grows with its size, and how much of it is curvature.

    δ(α) = z_α(h) − z_0(h)              z: the outputs on the probe set, α: the dose, of either sign
    odd part   ½ (δ(α) − δ(−α))         first order, and third, fifth, …
    even part  ½ (δ(α) + δ(−α))         curvature: ½ TᵀHT α² to second order, T: the tangent of α
    amplitude exponent                  slope of log ‖δ(α)‖ on log α, by Theil and Sen

An exponent of 1 with no even part is a linear memory. One near 0 says that any change has the same effect,
however small: chaos, or an update that takes signs alone.
Theil 1950; Sen 1968 (doi:10.1080/01621459.1968.10480934).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
import xarray as xr
from scipy.stats import theilslopes

from bygones.analysis.estimators import Estimate, by_skewness
from bygones.core.errors import DesignError
from bygones.core.study_facts import facts_of
from bygones.core.text import format_count
from bygones.core.values import Window
from bygones.dynamics.base import AbstractQuantity
from bygones.dynamics.responses import responses
from bygones.study.design import Arm, Study
from bygones.training.interventions import AbstractIntervention, Nudge, Scale
from bygones.training.probes import Values
from bygones.training.probes.base import AbstractProbe
from bygones.training.recipe import Recipe, build
from bygones.training.treatment import Treatment

LEAST_DECADES = 1.5  # of resolved doses, for an exponent
_ROUNDING = "rounding"  # the arm that is changed by about one unit in the last place
_RESOLVED = 3.0  # times the response to rounding
_MIRRORED = 0.5  # largest share of the even part in responses that mirror each other


@dataclass(frozen=True)
class DoseCurve:
    """Responses of an arm to its doses; `str` is the sentence.

    `sizes`, `even` [R, H, D]: the root mean square of ‖δ(α)‖ and ‖δ(−α)‖, and the norm of the even part.
    `resolved` [R, H, D]: False where rounding is as large as the response. `exponent`: by horizon, NaN of
    seeds with fewer than 1.5 decades of resolved doses. `even_share`: by horizon, the even part's share of
    the response at the largest dose.
    """

    arm: str
    horizons: tuple[int, ...]
    doses: tuple[float, ...]
    sizes: np.ndarray
    even: np.ndarray
    resolved: np.ndarray
    exponent: tuple[Estimate, ...]
    even_share: tuple[Estimate, ...]

    def floor(self, place: int = -1) -> float:
        """Return the largest dose that rounding hides in some seed, at one of the horizons; 0 if none."""
        hidden = ~self.resolved[:, place].all(axis=0)
        return float(np.max(np.array(self.doses)[hidden], initial=0.0))

    def __str__(self) -> str:
        exponent, even, floor = self.exponent[-1], self.even_share[-1], self.floor()
        grows = (
            f"the response grows as dose to the power {exponent}"
            if exponent.num_pairs
            else f"no exponent can be told, since fewer than {LEAST_DECADES:g} decades of doses stand out"
        )
        rounding = (
            f"rounding hides doses up to {floor:g}" if floor else "rounding hides none of them"
        )
        return (
            f"{self.arm}, doses {self.doses[0]:g} to {self.doses[-1]:g}, horizon {self.horizons[-1]}: "
            f"{grows}; at dose {self.doses[-1]:g} the even part is {even.scaled(100.0)}% of it; {rounding}; "
            f"{format_count(even.num_pairs, 'seed')}, {even.method}."
        )


@dataclass(frozen=True)
class DoseResponse(AbstractQuantity):
    """Responses to doses ±α of a source, over at least 1.5 decades.

    `along` "treatment": x ← (1 ∓ α)·x, so that dose 1 is a reset that keeps the counters. "random":
    x ← x ± α·‖x‖·u, as large a change of each leaf in a random direction u. `doses` ascend, up to 1.

    >>> from bygones.study.measure import measure
    >>> from bygones.zoo.worlds import heavy_ball
    >>> quantity = DoseResponse("moments", doses=(0.01, 0.1, 1.0), horizons=(5,))
    >>> outcomes = measure(quantity.design(Recipe.of(heavy_ball.recipe), fork_at=3, seeds=range(2)))
    >>> found = quantity.estimate(outcomes)
    >>> round(found.exponent[0].value, 9), found.floor()
    (1.0, 0.0)
    """

    source: str
    leaves: str = "*"
    doses: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0)
    horizons: tuple[int, ...] = (1, 10, 100)
    along: Literal["treatment", "random"] = "treatment"
    probe: AbstractProbe = field(default_factory=Values)

    def __post_init__(self) -> None:
        ascending = all(a < b for a, b in zip(self.doses, self.doses[1:], strict=False))
        if len(self.doses) < 2 or not ascending or not 0 < self.doses[0] <= self.doses[-1] <= 1:
            raise DesignError(
                f"doses are two or more numbers above 0 and up to 1, in ascending order; got "
                f"{list(self.doses)}."
            )
        if math.log10(self.doses[-1] / self.doses[0]) < LEAST_DECADES - 1e-9:
            raise DesignError(
                f"an amplitude exponent needs doses over {LEAST_DECADES:g} decades or more; got "
                f"{self.doses[0]:g} to {self.doses[-1]:g}. Add a smaller dose."
            )

    def design(self, recipe: Recipe, fork_at: int, seeds: Iterable[int]) -> Study:
        """Return a study with two arms for each dose, and one that is changed by about a rounding."""
        window = Window(fork_at, fork_at + 1)
        seeds = tuple(seeds)

        def arm(name: str, intervention: AbstractIntervention) -> Arm:
            return Arm(name, Treatment(self.source, intervention, window, self.leaves))

        arms = [arm(f"dose {dose:g}", self._dose(dose)) for dose in _both(self.doses)]
        unit = torch.finfo(next(build(recipe, seeds[0]).model.parameters()).dtype).eps
        arms.append(arm(_ROUNDING, Nudge(unit)))
        return Study(
            recipe,
            arms,
            fork_at=fork_at,
            horizons=self.horizons,
            seeds=seeds,
            name=f"dose response of {self.source}",
            probe=self.probe,
        )

    def _dose(self, dose: float) -> AbstractIntervention:
        return Scale(1.0 - dose) if self.along == "treatment" else Nudge(dose)

    def estimate(self, outcomes: xr.Dataset) -> DoseCurve:
        """Estimate exponent and even part at each horizon."""
        signed = {dose: responses(outcomes, f"dose {dose:g}") for dose in _both(self.doses)}
        rounding = np.linalg.norm(responses(outcomes, _ROUNDING), axis=-1)
        what = "scaling" if self.along == "treatment" else "random nudges of"
        leaves = "" if self.leaves == "*" else f" ({self.leaves})"
        return curve(
            f"{what} {self.source}{leaves} at step {facts_of(outcomes).fork_at}",
            self.horizons,
            self.doses,
            np.stack([[signed[sign * dose] for dose in self.doses] for sign in (1, -1)]),
            rounding,
        )


def curve(
    arm: str,
    horizons: Sequence[int],
    doses: Sequence[float],
    signed: np.ndarray,
    rounding: np.ndarray,
) -> DoseCurve:
    """Build the curve from responses to both signs [2, D, R, H, N] and to a rounding [R, H].

    A dose is not resolved where its response is below three times that to a rounding, and the responses to
    +α and −α do not mirror each other (the even part is half of them or more).
    """
    plus, minus = np.moveaxis(signed, 1, 3)  # [R, H, D, N]
    odd, even = (np.linalg.norm(0.5 * (plus + sign * minus), axis=-1) for sign in (-1, 1))
    sizes = np.hypot(odd, even)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(sizes > 0, even / sizes, 0.0)
    resolved = (sizes >= _RESOLVED * rounding[..., None]) | (share < _MIRRORED)
    resolved &= (sizes > 0) | ~(sizes > 0).any(axis=-1, keepdims=True)  # too small to change a bit
    exponents = np.array(
        [
            [amplitude_exponent(doses, *row) for row in zip(*seed, strict=True)]
            for seed in zip(sizes, resolved, strict=True)
        ]
    )
    share[~(sizes > 0)] = np.nan
    places = range(len(horizons))
    return DoseCurve(
        arm,
        tuple(horizons),
        tuple(doses),
        sizes,
        even,
        resolved,
        tuple(by_skewness(exponents[:, place]) for place in places),
        tuple(by_skewness(share[:, place, -1]) for place in places),
    )


def amplitude_exponent(
    doses: Sequence[float],
    sizes: np.ndarray,
    resolved: np.ndarray | None = None,
    least_decades: float = LEAST_DECADES,
) -> float:
    """Return the Theil–Sen slope of log size on log dose; NaN over fewer decades of resolved doses.

    >>> round(amplitude_exponent([0.01, 0.1, 1.0], np.array([1e-4, 1e-2, 1.0])), 9)
    2.0
    """
    kept = np.isfinite(sizes) & (sizes > 0)
    kept &= True if resolved is None else resolved
    x, y = np.log10(np.asarray(doses)[kept]), np.log10(sizes[kept])
    if x.size < 2 or np.ptp(x) < least_decades - 1e-9:
        return math.nan
    return float(theilslopes(y, x)[0])


def _both(doses: Sequence[float]) -> list[float]:
    return [sign * dose for dose in doses for sign in (1, -1)]
