"""Regime map: the rules one by one, and worlds whose regime is known."""

from __future__ import annotations

import math

import pytest

from bygones.analysis.estimators import Estimate
from bygones.core.errors import DesignError
from bygones.core.values import Window
from bygones.dynamics.regime_map import classify, jobs_of, regime_map
from bygones.store import MemoryStore
from bygones.study.design import Arm, Study
from bygones.training.interventions import Kick
from bygones.training.recipe import Recipe
from bygones.training.treatment import Treatment
from bygones.zoo.worlds import heavy_ball, scalar_maps

SMALL, LARGE = (0.1, 0.2), (0.4, 0.9)
NONE = (math.nan, math.nan)


def ends(pair: tuple[float, float]) -> Estimate:
    return Estimate(sum(pair) / 2, *pair, 0.95, 8, "paired t")


@pytest.mark.parametrize(
    ("error", "cosine", "unsettled", "growth", "exponent", "churn", "regime"),
    [
        (SMALL, (0.96, 1.0), 1e-3, (-1, -0.5), (0.9, 1.1), NONE, "linear"),
        (SMALL, (0.96, 1.0), 1e-1, (-1, -0.5), (0.9, 1.1), NONE, "cannot tell"),
        ((0.1, 0.3), (0.96, 1.0), 1e-3, (-1, -0.5), (0.9, 1.1), NONE, "cannot tell"),
        (SMALL, (0.9, 1.0), 1e-3, (-1, -0.5), (0.9, 1.1), NONE, "cannot tell"),
        (LARGE, (0.5, 0.9), 1e-3, (-1, -0.5), (0.9, 1.1), NONE, "non-linear, stable"),
        (LARGE, (0.5, 0.9), 1e-3, (0.1, 0.5), (0.9, 1.1), NONE, "cannot tell"),
        (LARGE, (0.5, 0.9), 1e-3, (0.1, 0.5), (0.0, 0.2), NONE, "chaotic"),
        (LARGE, (0.5, 0.9), 1e-3, (0.1, 0.5), (0.2, 0.3), (0.8, 1.1), "chaotic"),
        (LARGE, (0.5, 0.9), 1e-3, (0.1, 0.5), (0.2, 0.3), (0.7, 1.1), "cannot tell"),
        (LARGE, (0.5, 0.9), 1e-3, NONE, (0.0, 0.2), NONE, "cannot tell"),
        (NONE, NONE, math.inf, (-1, -0.5), NONE, NONE, "cannot tell"),
    ],
)
def test_the_rules(error, cosine, unsettled, growth, exponent, churn, regime) -> None:
    given = [ends(error), ends(cosine), unsettled, ends(growth), ends(exponent), ends(churn)]
    assert classify(*given) == regime


def study(recipe: Recipe, by: float, horizons: tuple[int, ...], seeds: int = 3) -> Study:
    kick = Arm("kick", Treatment("weights", Kick({"w": by}), Window(2, 3)))
    return Study(recipe, [kick], fork_at=2, horizons=horizons, seeds=range(seeds), name="world")


def test_a_heavy_ball_is_linear_at_every_rate_and_dose_and_is_stored() -> None:
    store, done = MemoryStore(), list[int]()
    one = study(Recipe.of(heavy_ball.recipe), 0.5, (3, 20))
    found = regime_map(one, store, rates=(0.05, 0.5), on_job=done.append)
    assert done == [0, 1, 2, 0, 1, 2]
    again = regime_map(one, store, rates=(0.05, 0.5), on_job=done.append)
    assert len(done) == 6
    assert str(again) == str(found)
    assert {cell.regime for cell in found.cells} == {"linear"}
    assert len(found.cells) == 2 * 5 * 2
    assert max(abs(cell.exponent.value - 1.0) for cell in found.cells) < 1e-6
    assert "Learning rate 0.05, horizon 20: linear at doses 0.01 to 1." in str(found)


def test_the_logistic_map_is_chaotic_once_every_dose_has_grown_to_its_size() -> None:
    found = regime_map(study(Recipe.of(scalar_maps.recipe), 1e-3, (1, 40), 8), rates=(0.1,))
    by_horizon = {h: {c.regime for c in found.cells if c.horizon == h} for h in (1, 40)}
    assert "chaotic" in by_horizon[40] <= {"chaotic", "cannot tell"}
    assert "chaotic" not in by_horizon[1]
    assert all(c.growth.covers(math.log(2)) for c in found.cells if c.horizon == 40)


def test_what_cannot_be_mapped_is_refused() -> None:
    one = study(Recipe.of(heavy_ball.recipe), 0.5, (3,))
    with pytest.raises(DesignError, match="span 2 decades"):
        jobs_of(one, MemoryStore(), rates=(0.1,), doses=(0.1, 1.0))
    with pytest.raises(DesignError, match="learning rates above 0"):
        jobs_of(one, MemoryStore(), rates=(0.0,))
