"""Attribution: exact Shapley shares of the effect of several treatments together.

    φ_i = Σ_{S ∌ i} |S|! (k − |S| − 1)! / k! · (v(S ∪ {i}) − v(S)),   Σ_i φ_i = v(all)

k: treatments, S: a set of them, v(S): the value of all of S together, with v(∅) = 0. Two kinds of value:

    a score     v(S) = mean over s of Y_s(S) − Y_s(control)            signed
    function    v(S) = mean over s ≠ s′ of ⟨d_s(S), d_s′(S)⟩           the squared size of what seeds agree on

d_s(S): the difference of the outputs on the probe set; ⟨a, b⟩: the mean over inputs of the sum over
classes. A distance is no value: its noise adds up, and would be shared out too. All 2^k − 1 arms are trained,
from one tree, so that no sampling of orders is needed. Shapley, A value for n-person games (1953).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations
from math import factorial

import numpy as np
import xarray as xr

from bygones.analysis.arms import Arms
from bygones.analysis.estimators import (
    Estimate,
    by_skewness,
    jackknife,
    mean_over_pairs,
    pair_means_without_each,
)
from bygones.analysis.function_field import gram
from bygones.analysis.metrics import METRICS
from bygones.analysis.predictions import Predictions
from bygones.core.errors import DesignError
from bygones.core.text import format_count
from bygones.core.values import Window
from bygones.dynamics.base import AbstractQuantity
from bygones.study.design import Arm, Study
from bygones.training.interventions import Reset
from bygones.training.probes import Logits
from bygones.training.probes.base import AbstractProbe
from bygones.training.recipe import Recipe
from bygones.training.run import Run
from bygones.training.treatment import Treatment

MOST = 6
FUNCTION = "function"
_AND = " + "


@dataclass(frozen=True)
class Shares:
    """Shapley values by treatment and horizon, over seeds; `str` is the sentence.

    `total`: the value of all treatments together; at each horizon the Shapley values add up to it.
    """

    value: str
    horizons: tuple[int, ...]
    names: tuple[str, ...]
    shapley: tuple[tuple[Estimate, ...], ...]  # by treatment, then by horizon
    total: tuple[Estimate, ...]

    def __str__(self) -> str:
        total = self.total[-1]
        of = (
            "squared change of the function"
            if self.value == FUNCTION
            else f"change of {self.value}"
        )
        told = "Of all together 0 is not excluded, so that no shares are told: "
        parts = [f"{name} {one[-1]}" for name, one in zip(self.names, self.shapley, strict=True)]
        if not total.covers(0.0):
            told = ""
            shares = [one[-1].value / total.value for one in self.shapley]
            parts = [f"{part} ({share:.0%})" for part, share in zip(parts, shares, strict=True)]
        lost = ""
        if total.num_dropped:
            seeds = format_count(total.num_dropped, "seed")
            lost = f" {seeds} diverged in some arm and count nowhere."
        return (
            f"{format_count(len(self.names), 'treatment')} together, horizon {self.horizons[-1]}: "
            f"{of} {total}. {told}{'; '.join(parts)}; {format_count(total.num_pairs, 'seed')}, "
            f"{total.method}.{lost}"
        )


@dataclass(frozen=True)
class Attribution(AbstractQuantity):
    """Shapley values of one to six arms, from an arm for each of their sets.

    `value`: a score, such as "nll" or "accuracy", or "function".

    >>> from bygones.study.measure import measure
    >>> from bygones.training.interventions import Kick
    >>> from bygones.training.probes import Values
    >>> from bygones.zoo.worlds import heavy_ball
    >>> def kicked(by): return Arm(f"by {by}", Treatment("weights", Kick({"w": by}), Window(3, 4)))
    >>> quantity = Attribution((kicked(1.0), kicked(3.0)), horizons=(5,), probe=Values())
    >>> outcomes = measure(quantity.design(Recipe.of(heavy_ball.recipe), fork_at=3, seeds=range(3)))
    >>> small, large = quantity.estimate(outcomes).shapley       # ⟨1, 1 + 3⟩ and ⟨3, 1 + 3⟩
    >>> round(large[0].value / small[0].value, 6)
    3.0
    """

    arms: tuple[Arm, ...]
    horizons: tuple[int, ...] = (1, 10, 100)
    value: str = FUNCTION
    probe: AbstractProbe = field(default_factory=Logits)

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        if not 1 <= len(names) <= MOST or len(set(names)) < len(names):
            raise DesignError(
                f"an attribution is over 1 to {MOST} treatments with names of their own; got "
                f"{', '.join(names) or 'none'}. Choose some, or reset several under one name."
            )
        scores = [name for name in METRICS if METRICS[name].kind == "score"]
        if self.value not in (FUNCTION, *scores):
            raise DesignError(
                f"an attribution is of '{FUNCTION}' or of a score ({', '.join(scores)}); got '{self.value}'. "
                f"A distance is never negative, so that its noise would be shared out too."
            )

    def sets(self) -> list[tuple[Arm, ...]]:
        """List the sets of one arm or more, small ones first."""
        sizes = range(1, len(self.arms) + 1)
        return [chosen for size in sizes for chosen in combinations(self.arms, size)]

    def design(self, recipe: Recipe, fork_at: int, seeds: Iterable[int]) -> Study:
        """Return a study with an arm for each set."""
        arms = [
            Arm(_name(chosen), [treatment for arm in chosen for treatment in arm.treatments])
            for chosen in self.sets()
        ]
        return Study(
            recipe, arms, fork_at=fork_at, horizons=self.horizons, seeds=seeds, probe=self.probe,
            name=f"attribution to {_name(self.arms)}"[:200],
        )  # fmt: skip

    def estimate(self, outcomes: xr.Dataset) -> Shares:
        """Estimate the Shapley value of every arm at each horizon."""
        names = [arm.name for arm in self.arms]
        indices = [_indices(chosen, names) for chosen in self.sets()]
        games = np.zeros((2 ** len(names), *self._values(outcomes, _name(self.sets()[0])).shape))
        for index, chosen in zip(indices, self.sets(), strict=True):
            games[index] = self._values(outcomes, _name(chosen))
        games[-1] += 0.0 * games.sum(axis=0)  # a seed that diverged in one arm has no total either
        found = shapley(games)  # [k, H, R] of a score, [k, H, R, R] of the function
        interval = _between_seeds if self.value == FUNCTION else by_skewness
        places = range(len(self.horizons))
        return Shares(
            self.value, self.horizons, tuple(names),
            tuple(tuple(interval(one[place]) for place in places) for one in found),
            tuple(interval(games[-1][place]) for place in places),
        )  # fmt: skip

    def _values(self, outcomes: xr.Dataset, arm: str) -> np.ndarray:
        """Return the value of one set: by horizon, one number a seed, or one a pair of seeds."""
        arms = Arms.of(outcomes)
        both = arms.index(arm), arms.control
        if self.value != FUNCTION:
            if "labels" not in outcomes:
                raise DesignError(
                    f"'{self.value}' needs a probe with labels, and this one has none. Use '{FUNCTION}'."
                )
            facts, labels = METRICS[self.value], outcomes["labels"].values
            treated, control = (
                np.array([facts(Predictions(one)[facts.input_kind], labels) for one in seeds])
                for seeds in (outcomes["logits"].values[:, i].astype(np.float64) for i in both)
            )
            return (treated - control).T
        kind = "values" if "values" in outcomes else "probabilities"
        observed = outcomes["values" if kind == "values" else "logits"].values
        treated, control = (Predictions(observed[:, i])[kind] for i in both)
        gaps = treated - control  # [R, H, N, C]
        return np.stack([gram(gaps[:, place]) for place in range(gaps.shape[1])])


def shapley(games: np.ndarray) -> np.ndarray:
    """Return the Shapley values, [2^k, …] -> [k, …]; bit i of an index says that i is in the set.

    Linear in the game: of several games, or of one for each seed, each has its own. Glove game: 0 has a left
    glove, 1 and 2 a right one each, and only a pair is worth 1.

    >>> glove = np.array([0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    >>> shapley(glove).round(6).tolist()
    [0.666667, 0.166667, 0.166667]
    """
    k = len(games).bit_length() - 1
    found = np.zeros((k, *games.shape[1:]))
    for i in range(k):
        for index in range(len(games)):
            if not index >> i & 1:
                size = index.bit_count()
                weight = factorial(size) * factorial(k - size - 1) / factorial(k)
                found[i] += weight * (games[index | 1 << i] - games[index])
    return found


def resets(recipe: Recipe, at: int, seed: int, sources: Iterable[str] = ()) -> tuple[Arm, ...]:
    """Return an arm for each source that resets it at a step: by default all that can be (weights cannot).

    Raises `DesignError` for a source that the run does not have.
    """
    known = Run(recipe, seed).sources
    able = [n for n, s in known.items() if "resettable" in s.capabilities]
    chosen = list(sources) or able
    unknown = [name for name in chosen if name not in able]
    if unknown:
        raise DesignError(
            f"an attribution resets sources, and {', '.join(unknown)} cannot be reset here. Choose from "
            f"{', '.join(able) or 'none'}."
        )
    window = Window(at, at + 1)
    return tuple(Arm(name, Treatment(name, Reset(), window)) for name in chosen)


def _between_seeds(between: np.ndarray) -> Estimate:
    return jackknife(between, statistic=mean_over_pairs, leave_one_out=pair_means_without_each)


def _indices(chosen: Iterable[Arm], names: list[str]) -> int:
    return sum(1 << names.index(arm.name) for arm in chosen)


def _name(chosen: Iterable[Arm]) -> str:
    return _AND.join(arm.name for arm in chosen)
