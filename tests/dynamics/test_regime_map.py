"""Regime map: the rules one by one, and worlds whose regime is known."""

from __future__ import annotations

import math
from typing import Any

import pytest

from bygones.analysis.estimators import Estimate
from bygones.core.errors import DesignError
from bygones.core.values import Window
from bygones.dynamics.regime_map import classify, jobs_of, regime_map
from bygones.store import MemoryStore
from bygones.study.design import Arm, Study
from bygones.training.interventions import Kick
from bygones.training.recipe import Recipe
from bygones.training.run import Run
from bygones.training.treatment import Treatment
from bygones.zoo.worlds import heavy_ball, scalar_maps

SMALL, LARGE = (0.1, 0.2), (0.4, 0.9)
NONE = (math.nan, math.nan)


def ends(pair: tuple[float, float], dropped: int = 0) -> Estimate:
    return Estimate(sum(pair) / 2, *pair, 0.95, 8 - dropped, "paired t", dropped)


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
        (LARGE, (0.96, 1.0), 1e-3, (-1, -0.5), (0.9, 1.1), NONE, "non-linear, stable"),
        (SMALL, (0.5, 0.9), 1e-3, (-1, 0.5), (0.9, 1.1), NONE, "non-linear, stable"),
        ((0.1, 0.3), (0.9, 1.0), 1e-3, (-1, 0.5), (0.0, 0.2), (0.8, 1.1), "cannot tell"),
        (LARGE, (0.5, 0.9), 1e-3, (-0.1, 0.5), (0.0, 0.2), NONE, "non-linear, stable"),
        ((0.2, 0.4), (0.96, 1.0), 1e-3, (-1, -0.5), (0.9, 1.1), NONE, "cannot tell"),
        (SMALL, (0.9, 0.97), 1e-3, (-1, -0.5), (0.9, 1.1), NONE, "cannot tell"),
        ((0.1, 0.25), (0.95, 1.0), 1e-2, (-1, -0.5), (0.9, 1.1), NONE, "linear"),
        (NONE, NONE, math.inf, (-1, -0.5), NONE, NONE, "cannot tell"),
    ],
)
def test_the_rules(error, cosine, unsettled, growth, exponent, churn, regime) -> None:
    given = [ends(error), ends(cosine), unsettled, ends(growth), ends(exponent), ends(churn)]
    assert classify(*given)[0] == regime
    assert (classify(*given)[1] != "") is (regime == "cannot tell")


STABLE = {"error": LARGE, "cosine": (0.5, 0.9), "growth": (-1, -0.5), "exponent": (0.9, 1.1)}


@pytest.mark.parametrize("part", ["error", "cosine", "growth"])
def test_missing_seeds_leave_nothing_to_decide(part: str) -> None:
    given: dict[str, Any] = {name: ends(pair) for name, pair in STABLE.items()}
    given["churn"] = ends(NONE)
    assert classify(unsettled=0.0, **given)[0] == "non-linear, stable"
    found = classify(unsettled=0.0, **{**given, part: ends(STABLE[part], 3)})
    assert found[0] == "cannot tell"
    assert found[1].startswith("3 of 8 seeds gave no ")
    assert classify(unsettled=0.0, **given, diverged=2) == ("cannot tell", "2 of 8 seeds diverged")


def test_an_exponent_of_some_seeds_alone_shows_no_chaos() -> None:
    for exponent, churn in (
        (ends((0.0, 0.2), 1), ends(NONE)),
        (ends((0.3, 0.4)), ends((0.9, 1.0), 1)),
    ):
        found = classify(ends(LARGE), ends((0.5, 0.9)), 0.0, ends((0.1, 0.5)), exponent, churn)
        assert found[0] == "cannot tell"


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


def test_seeds_that_diverge_are_counted_and_decide_nothing() -> None:
    """The logistic map leaves [0, 1], and grows without bound, from every w that a kick moves above 1."""
    kick, recipe = 0.2, Recipe.of(scalar_maps.recipe)
    found = regime_map(study(recipe, kick, (20,), 8), rates=(0.1,))
    states = []
    for seed in range(8):
        run = Run(recipe, seed)
        run.advance(2)
        states.append(run.parts.model.get_parameter("w").item())
    for cell in found.cells:
        gone = sum(w + cell.dose * kick > 1.0 for w in states)
        assert (f"{gone} of 8 seeds diverged" == cell.reason) is (gone > 0)
        assert cell.regime in ("cannot tell", "chaotic")[: 1 if gone else 2]
    whole = [cell.reason for cell in found.cells if cell.dose == 1.0]
    assert whole[0].endswith("diverged")
    assert whole[0] in str(found)


def test_growth_is_that_of_the_fastest_direction_from_the_first_step_on() -> None:
    """SGD on a quadratic: directions are multiplied by 0, .7 and .9 a step, a random one by less at first."""
    recipe = Recipe.of(heavy_ball.recipe, momentum=0.0, curvature=10.0)
    kick = Arm("kick", Treatment("weights", Kick({"w": 0.1}), Window(30, 31)))
    found = regime_map(
        Study(recipe, [kick], fork_at=30, horizons=(2,), seeds=range(3)), rates=(0.1,)
    )
    assert all(abs(cell.growth.value - math.log(0.9)) < 1e-4 for cell in found.cells)


def test_what_cannot_be_mapped_is_refused() -> None:
    one = study(Recipe.of(heavy_ball.recipe), 0.5, (3,))
    with pytest.raises(DesignError, match="span 2 decades"):
        jobs_of(one, MemoryStore(), rates=(0.1,), doses=(0.1, 1.0))
    with pytest.raises(DesignError, match="learning rates above 0"):
        jobs_of(one, MemoryStore(), rates=(0.0,))
