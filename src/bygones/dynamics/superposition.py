"""Superposition: is the effect of several treatments the sum of their effects?

    δ(S)  = z_S(h) − z_0(h)                               S: a set of treatments, z: outputs on the probe set
    I(S)  = Σ_{T ⊆ S} (−1)^{|S| − |T|} δ(T)                 Möbius; of two: δ(AB) − δ(A) − δ(B)
    size  = ‖I(S)‖ / Σ_{i ∈ S} ‖δ({i})‖                     relative to the effects of the single treatments

In a linear memory every I(S) of two or more treatments is 0. Differences are taken of vectors, so nothing
cancels between inputs. Rota 1964 (doi:10.1007/BF00531932).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import xarray as xr

from bygones.analysis.estimators import Estimate, by_skewness
from bygones.core.errors import DesignError
from bygones.core.text import format_count
from bygones.dynamics.base import AbstractQuantity
from bygones.dynamics.responses import responses
from bygones.study.design import Arm, Study
from bygones.training.probes import Values
from bygones.training.probes.base import AbstractProbe
from bygones.training.recipe import Recipe

MOST_TREATMENTS = 4
_AND = " + "


@dataclass(frozen=True)
class Interactions:
    """Relative sizes of interactions over seeds; `str` is the sentence.

    `sizes`: by the names of the treatments of a set, an interval for each horizon.
    """

    horizons: tuple[int, ...]
    sizes: Mapping[tuple[str, ...], tuple[Estimate, ...]]

    def __str__(self) -> str:
        said = [
            f"{_AND.join(names)}: {one[-1].scaled(100.0)}%" for names, one in self.sizes.items()
        ]
        last = next(iter(self.sizes.values()))[-1]
        return (
            f"Departure from the sum of effects at horizon {self.horizons[-1]}, of the sizes of the single "
            f"effects: {'; '.join(said)}; {format_count(last.num_pairs, 'seed')}, {last.method}."
        )


@dataclass(frozen=True)
class Superposition(AbstractQuantity):
    """Interactions of two to four arms, from the arms of all their subsets: 2^k − 1 of them.

    >>> from bygones.core.values import Window
    >>> from bygones.study.measure import measure
    >>> from bygones.training.interventions import Reset, Scale
    >>> from bygones.training.treatment import Treatment
    >>> from bygones.zoo.worlds import heavy_ball
    >>> a = Arm("a", Treatment("moments", Reset(), Window(3, 4)))
    >>> b = Arm("b", Treatment("weights", Scale(0.5), Window(5, 6)))
    >>> quantity = Superposition((a, b), horizons=(9,))
    >>> outcomes = measure(quantity.design(Recipe.of(heavy_ball.recipe), fork_at=3, seeds=range(2)))
    >>> quantity.estimate(outcomes).sizes["a", "b"][0].value > 0.1    # halving what a has moved
    True
    """

    arms: tuple[Arm, ...]
    horizons: tuple[int, ...] = (1, 10, 100)
    probe: AbstractProbe = field(default_factory=Values)

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        if not 2 <= len(names) <= MOST_TREATMENTS or len(set(names)) < len(names):
            raise DesignError(
                f"a superposition is of 2 to {MOST_TREATMENTS} arms with names of their own; got "
                f"{', '.join(names) or 'none'}."
            )

    def subsets(self) -> list[tuple[Arm, ...]]:
        """List the sets of one arm or more, small ones first."""
        sizes = range(1, len(self.arms) + 1)
        return [chosen for size in sizes for chosen in combinations(self.arms, size)]

    def design(self, recipe: Recipe, fork_at: int, seeds: Iterable[int]) -> Study:
        """Return a study with an arm for each subset."""
        arms = [
            Arm(_name(chosen), [treatment for arm in chosen for treatment in arm.treatments])
            for chosen in self.subsets()
        ]
        return Study(
            recipe,
            arms,
            fork_at=fork_at,
            horizons=self.horizons,
            seeds=seeds,
            name=f"superposition of {_name(self.arms)}"[:200],
            probe=self.probe,
        )

    def estimate(self, outcomes: xr.Dataset) -> Interactions:
        """Estimate the relative size of the interaction of every set of two arms or more."""
        effects = {chosen: responses(outcomes, _name(chosen)) for chosen in self.subsets()}
        found: dict[tuple[str, ...], tuple[Estimate, ...]] = {}
        for chosen in self.subsets():
            if len(chosen) < 2:
                continue
            single = sum(np.linalg.norm(effects[(arm,)], axis=-1) for arm in chosen)
            with np.errstate(invalid="ignore", divide="ignore"):
                share = np.linalg.norm(interaction(effects, chosen), axis=-1) / single
            names = tuple(arm.name for arm in chosen)
            found[names] = tuple(by_skewness(share[:, i]) for i in range(share.shape[1]))
        return Interactions(self.horizons, found)


def interaction(effects: Mapping[Any, np.ndarray], of: tuple[Any, ...]) -> np.ndarray:
    """Return I(S) by Möbius inversion; `effects`: δ of S and of each of its subsets but the empty one.

    >>> effects = {("a",): np.array([1.0]), ("b",): np.array([2.0]), ("a", "b"): np.array([3.5])}
    >>> interaction(effects, ("a", "b"))
    array([0.5])
    """
    total = np.zeros_like(effects[of])
    for size in range(1, len(of) + 1):
        for subset in combinations(of, size):
            total = total + (-1.0) ** (len(of) - size) * effects[subset]
    return total


def _name(chosen: Iterable[Arm]) -> str:
    return _AND.join(arm.name for arm in chosen)
