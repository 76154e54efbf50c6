"""Meta-analysis: random-effects pooling of one effect over several studies, with a prediction interval.

How much history matters depends on model, data and regime. So studies are pooled as draws from such
settings (random effects). The *prediction* interval matters more than the mean: it says where the effect
of a further study is expected.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from bygones.analysis.estimators import Estimate
from bygones.core.errors import DesignError
from bygones.core.text import format_count, to_plain


@dataclass(frozen=True)
class Contribution:
    """One study in a pool. `weight` is its share of the pooled mean, None where it has none."""

    study: str
    estimate: Estimate
    error: float | None
    weight: float | None
    note: str = ""


@dataclass(frozen=True)
class Pooled:
    """The pooled effect of several studies; `str` is the sentence.

    `estimate` is the mean over settings (its `num_pairs` counts studies), `tau` the standard deviation
    of the true effects between them, `q` Cochran's statistic of all being equal, with its p-value,
    `i_squared` the share of the variation that is not sampling error, `predicted_low` and
    `predicted_high` the interval for the true effect in one more setting: infinite below 3 studies.
    """

    what: str
    estimate: Estimate
    predicted_low: float
    predicted_high: float
    tau: float
    q: float
    q_p_value: float
    i_squared: float
    contributions: tuple[Contribution, ...]

    def __str__(self) -> str:
        num, level = self.estimate.num_pairs, f"{100 * self.estimate.level:g}%"
        about = f"{self.what}: " if self.what else ""
        left_out = [c.study for c in self.contributions if c.weight is None]
        without = f"; without weight, and left out: {', '.join(left_out)}" if left_out else ""
        if num < 2:
            count = format_count(num, "study", "studies") if num else "no studies"
            return f"{about}{count} to pool: {self.estimate}{without}."
        said = f"{about}{self.estimate} over {num} studies ({self.estimate.method})"
        ends = (self.predicted_low, self.predicted_high)
        if all(map(math.isfinite, ends)):
            low, high = (dataclasses.replace(self.estimate, value=end).number for end in ends)
            said += f"; a further study is expected within {low} to {high} ({level} prediction interval)"
        else:
            said += "; two studies cannot say where a third would lie"
        return (
            f"{said}; between studies τ = {self.tau:.2g}, I² = {100 * self.i_squared:.0f}%, "
            f"Q = {self.q:.3g} on {num - 1} degree{'s' if num > 2 else ''} of freedom, "
            f"p = {self.q_p_value:.2g}{without}."
        )

    def rows(self) -> list[dict[str, Any]]:
        """Return the table: a row a study, then the pooled one and the prediction; None where not defined."""
        rows = [
            _row(c.study, c.estimate, c.estimate.num_pairs, c.weight, c.note)
            for c in self.contributions
        ]
        rows.append(_row("pooled", self.estimate, self.estimate.num_pairs, 1.0, self.estimate.note))
        further = dataclasses.replace(
            self.estimate, low=self.predicted_low, high=self.predicted_high
        )
        return [*rows, _row("a further study", further, None, None, "prediction interval")]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON: a number that is not finite becomes None."""
        plain = dataclasses.asdict(self)
        return to_plain(plain)


def pool(estimates: Mapping[str, Estimate], what: str = "", *, level: float = 0.95) -> Pooled:
    """Estimate the random-effects mean of one effect over several studies, by the name of the study.

        mean = Σ w_i y_i / Σ w_i,  w_i = 1/(s_i² + τ²);  interval: mean ± t_{k−1} / √Σ w_i
        prediction: mean ± t_{k−2} · √(τ² + 1/Σ w_i)

    y_i, s_i: a study's effect and its standard error (of an estimator that gives none: its half-width over
    Student's t with n_i − 1 degrees of freedom); k: studies;
    τ²: variance between them, by Paule and Mandel. With that τ² the interval is Hartung, Knapp, Sidik
    and Jonkman's, not let fall below the one that takes the s_i at their word.

    Pool what is on one scale: a share of the ceiling, an accuracy; not a logit RMS of two models. A study
    without an interval (fewer than two pairs), with an infinite one or with one of no width cannot be
    weighed: it stays in the table and is named. Of one study there is nothing to pool: its own estimate.
    Assumes studies independent and like draws from the settings meant, effects normal between them,
    and errors s_i known, which makes Q and I² somewhat too large where the studies have few pairs.
    Paule & Mandel, J. Res. Nat. Bur. Stand. 87 (1982), 377–385; Higgins, Thompson & Spiegelhalter, A
    re-evaluation of random-effects meta-analysis, J. R. Statist. Soc. A 172 (2009), 137–159 (the
    prediction interval); IntHout, Ioannidis & Borm, BMC Med. Res. Methodol. 14 (2014), 25 (why t_{k−1}).

    >>> from bygones.analysis.estimators import paired_t
    >>> studies = {"digits": [0.35, 0.39, 0.41], "mnist1d": [0.5, 0.6, 0.7], "spirals": [0.1, 0.2, 0.3]}
    >>> print(pool({name: paired_t(pairs) for name, pairs in studies.items()}, "share of another seed"))
    share of another seed: 0.4 [95% CI -0.1, 0.9] over 3 studies (random effects); a further study is \
expected within -2.4 to 3.2 (95% prediction interval); between studies τ = 0.19, I² = 92%, Q = 24.1 on 2 \
degrees of freedom, p = 5.7e-06.
    """
    if not estimates:
        raise DesignError("there is no study to pool.")
    errors = {name: _standard_error(estimate) for name, estimate in estimates.items()}
    weighed = [name for name, (error, _) in errors.items() if error is not None]
    weights: dict[str, float] = dict.fromkeys(weighed, 1.0)
    tau, q, q_p_value, i_squared = 0.0, 0.0, 1.0, 0.0
    left_out = len(errors) - len(weighed)
    facts: dict[str, Any] = {"level": level, "num_pairs": len(weighed), "num_dropped": left_out}
    low, high = -math.inf, math.inf
    if len(weighed) < 2:
        pooled = _of_one([estimates[name] for name in weighed], facts)
    else:
        from bygones.analysis.statsmodels_bridge import combined  # statsmodels loads slowly

        values = np.array([estimates[name].value for name in weighed])
        variances = np.array([errors[name][0] for name in weighed], dtype=np.float64) ** 2
        unit = float(np.sqrt(variances.mean()))  # errors of any size, with their squares in range
        found = combined(values / unit, variances / unit**2, level)
        tau = unit * math.sqrt(found.tau_squared)
        q, q_p_value, i_squared = found.q, found.q_p_value, found.i_squared
        weights = dict(zip(weighed, found.weights.tolist(), strict=True))
        ends = (unit * found.low, unit * found.high)
        pooled = Estimate(unit * found.mean, *ends, **facts, method="random effects")
        if len(weighed) > 2:
            t = float(special.stdtrit(len(weighed) - 2, 0.5 * (1.0 + level)))
            half = t * math.hypot(tau, unit * found.error)
            low, high = pooled.value - half, pooled.value + half
    contributions = tuple(
        Contribution(name, estimates[name], error, weights.get(name), note)
        for name, (error, note) in errors.items()
    )
    return Pooled(what, pooled, low, high, tau, q, q_p_value, i_squared, contributions)


def _standard_error(estimate: Estimate) -> tuple[float | None, str]:
    half = 0.5 * (estimate.high - estimate.low)
    if estimate.num_pairs < 2 or not math.isfinite(half) or not math.isfinite(estimate.value):
        return None, "no finite interval"
    if half <= 0.0:
        return None, "an interval of no width"
    if estimate.error is not None:
        return estimate.error, ""
    rank = 0.5 * (1.0 + estimate.level)
    return half / float(special.stdtrit(estimate.num_pairs - 1, rank)), ""


def _of_one(estimates: list[Estimate], facts: dict[str, Any]) -> Estimate:
    if not estimates:
        note = "no study has an interval to weigh it by"
        return Estimate(math.nan, math.nan, math.nan, **facts, method="none", note=note)
    note = "one study: nothing to pool, its own interval"
    return dataclasses.replace(
        estimates[0], num_pairs=1, num_dropped=facts["num_dropped"], note=note
    )


def _row(
    study: str, estimate: Estimate, num: int | None, weight: float | None, note: str
) -> dict[str, Any]:
    return to_plain(
        {
            "study": study,
            "estimate": estimate.value,
            "low": estimate.low,
            "high": estimate.high,
            "level": estimate.level,
            "num": num,
            "weight": weight,
            "note": note,
        }
    )
