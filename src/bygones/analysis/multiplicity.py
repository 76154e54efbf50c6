"""Multiple comparisons: a declared family of effects, and its adjusted p-values (Holm, Benjamini–Hochberg).

One interval in twenty of level 95% misses. So the family that is read together is declared before the
run (arms, metrics and horizons), keeps its size whatever the results, and is printed:

    Holm                 the chance of even one false finding in the family is at most alpha
    Benjamini–Hochberg   of the findings, the expected share of false ones is at most alpha

Holm for the few comparisons that a study is about; Benjamini–Hochberg for a grid that is searched.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from bygones.analysis.effect import Effect
from bygones.core.catalogue import unknown_name
from bygones.core.checks import require_integer, require_items, require_text
from bygones.core.errors import DesignError
from bygones.core.text import format_count

Method = Literal["holm", "bh"]
_METHODS = {"holm": "Holm", "bh": "Benjamini–Hochberg"}


@dataclass(frozen=True)
class Family:
    """The comparisons that are read together: every arm in every metric at every horizon.

    >>> print(Family("main", arms=("reset",), metrics=("tv", "nll"), horizons=(1, 300)))
    family 'main': 1 arm × 2 metrics × 2 horizons = 4 comparisons (reset; tv, nll; 1, 300 steps on), Holm
    """

    name: str
    arms: tuple[str, ...]
    metrics: tuple[str, ...]
    horizons: tuple[int, ...]
    method: Method = "holm"

    def __post_init__(self) -> None:
        require_text(self.name, "a family's name")
        if self.method not in _METHODS:
            raise unknown_name("adjustment", str(self.method), _METHODS)
        for what, check, example in (
            ("arms", require_text, '("reset",)'),
            ("metrics", require_text, '("tv",)'),
            ("horizons", require_integer, "(1, 300)"),
        ):
            given = getattr(self, what)
            names = require_items(given, f"a family's {what}", partial(check, what=what), example)
            object.__setattr__(self, what, names)
            if not names or len(set(names)) < len(names):
                raise DesignError(
                    f"the family '{self.name}' needs {what}, each once; got {list(names)}."
                )

    @property
    def size(self) -> int:
        return len(self.arms) * len(self.metrics) * len(self.horizons)

    def __str__(self) -> str:
        counts = [
            format_count(len(names), what)
            for what, names in (
                ("arm", self.arms),
                ("metric", self.metrics),
                ("horizon", self.horizons),
            )
        ]
        size = format_count(self.size, "comparison")
        steps = f"{', '.join(map(str, self.horizons))} steps on"
        named = "; ".join([", ".join(self.arms), ", ".join(self.metrics), steps])
        return f"family '{self.name}': {' × '.join(counts)} = {size} ({named}), {_METHODS[self.method]}"


@dataclass(frozen=True)
class Comparison:
    """One member of a family. `p_value` and `adjusted` are None where there is nothing to test by."""

    arm: str
    metric: str
    horizon: int
    value: float
    p_value: float | None
    adjusted: float | None
    found: bool
    note: str = ""

    def __str__(self) -> str:
        where = f"{self.arm}, {self.metric}, {self.horizon} steps on"
        if self.p_value is None or self.adjusted is None:
            return f"{where}: no p-value ({self.note})"
        verdict = "found" if self.found else "not found"
        return f"{where}: p = {self.p_value:.2g}, adjusted {self.adjusted:.2g}, {verdict}"


@dataclass(frozen=True)
class Adjusted:
    """A family with its adjusted comparisons; `str` is the statement to print beside any of its findings."""

    family: Family
    alpha: float
    comparisons: tuple[Comparison, ...]

    @property
    def found(self) -> tuple[Comparison, ...]:
        return tuple(comparison for comparison in self.comparisons if comparison.found)

    def __str__(self) -> str:
        if self.family.method == "holm":
            meaning = f"the chance of even one false finding is at most {100 * self.alpha:g}%"
        else:
            meaning = f"the expected share of false findings is at most {100 * self.alpha:g}%"
        said = f"{len(self.found)} of {self.family.size} found in {self.family}: {meaning}"
        untested = [comparison for comparison in self.comparisons if comparison.p_value is None]
        if untested:
            said += f"; {len(untested)} without a p-value count as not found"
        return f"{said}."

    def rows(self) -> list[dict[str, Any]]:
        """Return one flat row a comparison, for a table or JSON."""
        return [dataclasses.asdict(comparison) for comparison in self.comparisons]


def p_value(effect: Effect) -> float | None:
    """Return an effect's two-sided p-value, from the estimator it was made with.

    For a score: that the difference is 0. For a distance: that its excess over the matched null is 0,
    since a distance itself is never negative and above 0 for any change at all. None without a matched
    null, with fewer than two pairs, from an estimator that has no p-value, or where the number is within the
    resolution of the arithmetic.
    """
    judged = effect.estimate if effect.facts.kind == "score" else effect.excess
    return None if judged is None or effect.is_within_resolution(judged) else judged.p_value


def adjust(effects: Sequence[Effect], family: Family, *, alpha: float = 0.05) -> Adjusted:
    """Adjust the p-values of the effects that a family declares, for the whole family.

        Holm:                p₍ᵢ₎ ← max over j ≤ i of min(1, (m − j + 1) p₍ⱼ₎)
        Benjamini–Hochberg:  p₍ᵢ₎ ← min over j ≥ i of min(1, m p₍ⱼ₎ / j)

    m: the declared size. A comparison without a p-value stays in the count as p = 1, so that failing to
    test cannot make the rest look better. Effects outside the family are passed over; one that the
    family names and is not there raises. Holm needs nothing of how the comparisons depend on one another,
    Benjamini–Hochberg that they do positively, as horizons of one arm do. Holm, A simple sequentially
    rejective multiple test procedure, Scand. J. Statist. 6 (1979), 65–70; Benjamini & Hochberg,
    Controlling the false discovery rate, J. R. Statist. Soc. B 57 (1995), 289–300.
    """
    from bygones.analysis.statsmodels_bridge import adjusted  # statsmodels takes a second to load

    there = {(e.arm, e.metric, e.horizon): e for e in effects}
    for place, (what, names) in enumerate(
        (("arm", family.arms), ("metric", family.metrics), ("horizon", family.horizons))
    ):
        known = dict.fromkeys(str(key[place]) for key in there)
        for name in map(str, names):
            if name not in known:
                raise unknown_name(f"{what} among these effects", name, known)
    members: list[Effect] = []
    for arm in family.arms:
        for metric in family.metrics:
            for horizon in family.horizons:
                if (arm, metric, horizon) not in there:
                    raise DesignError(
                        f"the family '{family.name}' declares {arm} in {metric} at horizon {horizon}, "
                        f"and there is no such effect among the {len(there)} given."
                    )
                members.append(there[arm, metric, horizon])
    found = [p_value(effect) for effect in members]
    after = adjusted(np.array([1.0 if p is None else p for p in found]), family.method)
    comparisons = tuple(
        Comparison(
            arm=effect.arm,
            metric=effect.metric,
            horizon=effect.horizon,
            value=_judged_value(effect),
            p_value=p,
            adjusted=None if p is None else float(q),
            found=p is not None and bool(q <= alpha),
            note="" if p is not None else _why_none(effect),
        )
        for effect, p, q in zip(members, found, after, strict=True)
    )
    return Adjusted(family, alpha, comparisons)


def family_of(effects: Sequence[Effect], name: str = "all", method: Method = "holm") -> Family:
    """Return the family of all these effects: each arm, metric and horizon among them."""
    return Family(
        name,
        arms=tuple(dict.fromkeys(effect.arm for effect in effects)),
        metrics=tuple(dict.fromkeys(effect.metric for effect in effects)),
        horizons=tuple(sorted({effect.horizon for effect in effects})),
        method=method,
    )


def _judged_value(effect: Effect) -> float:
    judged = effect.estimate if effect.facts.kind == "score" else effect.excess
    return effect.estimate.value if judged is None else judged.value


def _why_none(effect: Effect) -> str:
    judged = effect.estimate if effect.facts.kind == "score" else effect.excess
    if judged is None:
        return effect.no_null or "no matched null was run"
    if effect.is_within_resolution(judged):
        return "within the resolution of the arithmetic"
    return judged.note if judged.num_pairs < 2 else f"{judged.method} has none"
