"""Equivalence test (TOST): whether an effect lies within a margin declared before the run."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from bygones.analysis.arms import Arms, values_at
from bygones.analysis.effects import effect_per_seed, per_seed
from bygones.analysis.estimators import Estimate, confidence_sequence, paired_t
from bygones.analysis.estimators.base import finite_pairs
from bygones.analysis.metrics import METRICS
from bygones.analysis.upper_limit import FEWEST, p_value_below, upper_limit
from bygones.core.errors import DesignError
from bygones.core.study_facts import facts_of
from bygones.core.text import format_count, to_plain

_T, _DISTANCE, _ANYTIME = (
    "two one-sided t tests",
    "one-sided test for distances",
    "anytime-valid test",
)


@dataclass(frozen=True)
class Equivalence:
    """Result of two one-sided tests against ±margin; `str` is the sentence.

    `p_lower` speaks against a truth of −margin or less, `p_upper` against +margin or more. `estimate`
    has the interval of level 1 − 2 · alpha, which lies inside ±margin exactly where both are at most
    alpha (but for pairs all alike, whose p-values are those of the exact sign-flip test, and for an
    anytime-valid interval, which is the wider). `test` names the tests; `needs`: the pairs without which
    nothing can be told, where there are fewer.
    """

    estimate: Estimate
    margin: float
    alpha: float
    p_lower: float
    p_upper: float
    test: str = _T
    needs: int | None = None

    @property
    def p_value(self) -> float:
        """The p-value of both tests together: the larger of the two."""
        return max(self.p_lower, self.p_upper)

    @property
    def equivalent(self) -> bool:
        """Whether the truth is shown to lie within ±margin."""
        return self.p_value <= self.alpha

    def __str__(self) -> str:
        shown = "equivalent within" if self.equivalent else "not shown to be within"
        found = self.estimate
        pairs = format_count(found.num_pairs, "seed pair")
        if self.needs is not None:
            return f"cannot tell whether it is within ±{self.margin:g}: needs {self.needs} pairs, has {pairs}"
        said = f"{shown} ±{self.margin:g}: {found}, {pairs}, {self.test}, p = {self.p_value:.2g}"
        if found.num_dropped:
            said += f" ({found.num_dropped} not finite and left out)"
        return f"{said} ({found.note})" if found.note else said

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON: a number that is not finite becomes None."""
        plain = dataclasses.asdict(self)
        plain["estimate"] = to_plain(plain["estimate"])
        return plain | {"p_value": self.p_value, "equivalent": self.equivalent}


def tost(
    differences: ArrayLike,
    margin: float,
    *,
    alpha: float = 0.05,
    distances: bool = False,
    anytime: bool = False,
) -> Equivalence:
    """Test by two one-sided paired t tests (TOST) that the mean difference lies within ±margin.

        p_lower = P(T ≥ (mean + margin)/(s/√n)),  p_upper = P(T ≤ (mean − margin)/(s/√n))

    T: Student's t with n − 1 degrees of freedom. Equivalent where both are at most alpha. An interval
    that merely includes zero is *no* finding of this kind: with few pairs it includes everything.

    `distances`: the numbers are distances, never below 0 and skewed; p_upper is then that of the upper limit
    for distances (`analysis/upper_limit.py`), since at a truth of exactly the margin the t test calls 8 to
    24% of lognormal ones equivalent where 5% was asked, and this one 5% (docs/coverage.md). It needs three.
    `anytime`: seeds were added until an interval was narrow; each p-value is then at least that of the
    confidence sequence at the margin, which holds at any stopping time.

    `differences` has shape (R,); numbers that are not finite are left out and counted. Fewer than two
    pairs show nothing: p = 1. Pairs all alike (a sham) have no spread to test with and take the exact
    one-sided sign-flip test, p = 2^−n. The margin has to be declared before the run: one chosen after
    seeing the interval is met at will. Assumes what `paired_t` does, but of distances.
    Schuirmann, A comparison of the two one-sided tests procedure and the power approach, J. Pharmacokinet.
    Biopharm. 15 (1987), 657–680; statsmodels computes it (`ttost_mean`).

    >>> print(tost([0.001, -0.002, 0.0, 0.001, 0.002, -0.001], 0.01))
    equivalent within ±0.01: 0.0002 [90% CI -0.0010, 0.0014], 6 seed pairs, two one-sided t tests, p = 7.8e-06
    """
    from bygones.analysis.statsmodels_bridge import one_sided  # statsmodels takes a second to load

    if not (math.isfinite(margin) and margin > 0.0):
        raise DesignError(f"a margin of equivalence is a finite number above 0; got {margin!r}.")
    level = 1.0 - 2.0 * alpha
    kept, _ = finite_pairs(differences)
    estimate = paired_t(differences, level=level)
    fewest = FEWEST if distances else 2
    if kept.size < fewest:
        return Equivalence(estimate, margin, alpha, 1.0, 1.0, needs=fewest)
    if np.all(kept == kept[0]):
        alike = 0.5**kept.size
        p_lower, p_upper = (
            alike if inside else 1.0 for inside in (kept[0] > -margin, kept[0] < margin)
        )
        return Equivalence(estimate, margin, alpha, p_lower, p_upper)
    p_lower, p_upper = one_sided(kept / margin, -1.0, 1.0)
    test = _T
    if distances:
        p_upper, test = p_value_below(kept, margin), _DISTANCE
        high = upper_limit(kept, level=1.0 - alpha)
        estimate = dataclasses.replace(estimate, high=high, method=_DISTANCE)
    if anytime:
        estimate, test = confidence_sequence(differences, level=level), _ANYTIME
        p_lower = max(p_lower, _anytime(kept + margin, above=True))
        p_upper = max(p_upper, _anytime(kept - margin, above=False))
    return Equivalence(estimate, margin, alpha, p_lower, p_upper, test)


def _anytime(shifted: np.ndarray, *, above: bool) -> float:
    """Return the anytime-valid p-value for a mean of 0 or less (`above`), or of 0 or more."""
    found = confidence_sequence(shifted)
    on_this_side = found.value > 0.0 if above else found.value < 0.0
    return found.p_value if on_this_side and found.p_value is not None else 1.0


def equivalent_effect(
    outcomes: xr.Dataset,
    arm: str,
    step: int,
    margin: float,
    metric: str = "tv",
    *,
    over_null: bool = False,
    alpha: float = 0.05,
) -> Equivalence:
    """Test whether an arm's effect by one probe step is within ±margin, in the metric's own unit.

    A score's difference can lie on either side of 0. A distance cannot be negative: for it the finding
    reads "moved the function by less than the margin", and is tested as a distance. With `over_null` it is
    the excess over the matched null that is tested, which is signed again. Where the study's seeds were added
    until an interval was narrow, the test holds at any such stop.
    """
    numbers = effect_per_seed(outcomes, metric, arm)
    if over_null:
        arms = Arms.of(outcomes)
        null = arms.null_of(arm)
        if null is None:
            raise DesignError(
                f"the effect of '{arm}' cannot be compared with a matched null: {arms.no_null(arm)}."
            )
        numbers = numbers - per_seed(outcomes, metric, arms.names[null])
    if step not in numbers["step"].values:
        steps = ", ".join(map(str, numbers["step"].values))
        raise DesignError(
            f"no probe reads {METRICS[metric].label} at step {step}; there is {steps}."
        )
    return tost(
        values_at(numbers, step=step),
        margin,
        alpha=alpha,
        distances=METRICS[metric].kind == "distance" and not over_null,
        anytime=facts_of(outcomes).stopping is not None,
    )
