"""Finite-time Lyapunov exponents: heavy ball, SGD and the logistic map, by twins and by tangents."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tests.dynamics.test_linear import network

from bygones.core.errors import DesignError, TangentError
from bygones.core.values import Window
from bygones.dynamics.lyapunov import Twins, Way, lyapunov, random_direction
from bygones.study.design import Arm, Study
from bygones.training.interventions import Nudge
from bygones.training.recipe import Recipe
from bygones.training.run import Run
from bygones.training.treatment import Treatment
from bygones.zoo.worlds import heavy_ball, scalar_maps

WAYS: list[Way] = ["twins", "tangents"]


def study(recipe: Recipe, horizons: tuple[int, ...], seeds: int = 2, fork_at: int = 2) -> Study:
    nudge = Arm("nudge", Treatment("weights", Nudge(0.1), Window(fork_at, fork_at + 1)))
    return Study(recipe, [nudge], fork_at=fork_at, horizons=horizons, seeds=range(seeds))


def test_an_underdamped_heavy_ball_has_six_exponents_of_half_ln_mu() -> None:
    """Underdamped where (1 − √μ)² < lr·c < (1 + √μ)²; their sum is ln det, exactly, at every horizon."""
    momentum, horizons = 0.5, (1, 30)
    recipe = Recipe.of(heavy_ball.recipe, lr=1.0, momentum=momentum)
    found = lyapunov(study(recipe, horizons, 1), by="tangents", num=6)
    totals = found.by_seed[0].sum(axis=1).tolist()
    assert totals == pytest.approx([3 * math.log(momentum)] * 2, abs=1e-9)
    assert found.by_seed[0, 1].tolist() == pytest.approx([0.5 * math.log(momentum)] * 6, abs=0.08)
    assert "The next: " in str(found)


def test_twins_find_it_too() -> None:
    recipe = Recipe.of(heavy_ball.recipe, lr=1.0, momentum=0.5)
    found = lyapunov(study(recipe, (400,)))
    assert found.exponents[0][0].value == pytest.approx(0.5 * math.log(0.5), abs=0.003)
    assert "λ·h = -138" in str(found)
    assert "renormalised twins in float64" in str(found)


@pytest.mark.parametrize("by", WAYS)
def test_sgd_forgets_by_ln_of_1_minus_lr_c(by: Way) -> None:
    lr = 0.5
    recipe = Recipe.of(heavy_ball.recipe, lr=lr, momentum=0.0)
    found = lyapunov(study(recipe, (20,)), by=by, settle=120)
    exact = math.log(1 - lr * min(heavy_ball.CURVATURE))
    assert found.exponents[0][0].value == pytest.approx(exact, abs=1e-5)


def test_sgd_has_an_exponent_for_each_direction() -> None:
    recipe = Recipe.of(heavy_ball.recipe, lr=0.5, momentum=0.0)
    found = lyapunov(study(recipe, (10,), 1), by="tangents", num=3, settle=60)
    exact = sorted((math.log(1 - 0.5 * c) for c in heavy_ball.CURVATURE), reverse=True)
    assert found.by_seed[0, 0].tolist() == pytest.approx(exact, abs=1e-3)


@pytest.mark.parametrize("by", WAYS)
def test_the_logistic_map_has_that_of_its_orbit_and_ln_2_over_seeds(by: Way) -> None:
    recipe, steps = Recipe.of(scalar_maps.recipe), 60
    found = lyapunov(study(recipe, (steps,), 6, fork_at=1), by=by, every=1)
    for seed in range(6):
        run = Run(recipe, seed)
        run.advance(1)
        exact = scalar_maps.growth(run.parts.model.get_parameter("w").item(), steps)
        assert found.by_seed[seed, 0, 0] == pytest.approx(
            exact, abs=2e-3 if by == "twins" else 1e-6
        )
    assert found.exponents[0][0].covers(math.log(2))
    assert found.exponents[0][0].low > 0.5


def test_a_network_with_adam_and_batchnorm_has_the_same_by_both_ways() -> None:
    one = study(Recipe.of(network), (4,), 1, fork_at=4)
    twins, tangents = (lyapunov(one, by=by, every=1).by_seed[0, 0, 0] for by in WAYS)
    assert twins == pytest.approx(tangents, rel=0.02, abs=0.002)


def test_what_cannot_be_is_refused() -> None:
    one = study(Recipe.of(heavy_ball.recipe), (4,))
    with pytest.raises(DesignError, match="by='tangents' for more than one"):
        lyapunov(one, num=2)
    with pytest.raises(DesignError, match="7 exponents are more than the 6 numbers"):
        lyapunov(one, by="tangents", num=7)
    with pytest.raises(TangentError, match="no derivative at step 4"):
        lyapunov(study(Recipe.of(network, step="item"), (2,), 1, 4), by="tangents")


def test_twins_do_not_depend_on_how_often_they_are_renormalised() -> None:
    one = study(Recipe.of(heavy_ball.recipe), (30,))
    often, rarely = (lyapunov(one, every=every).by_seed for every in (1, 7))
    np.testing.assert_allclose(often, rarely, rtol=1e-5)


def test_the_norm_counts_moments_times_the_learning_rate() -> None:
    lr, momentum = 0.3, 0.9
    pair = Twins.at(Recipe.of(heavy_ball.recipe, lr=lr, momentum=momentum), 0, 2)
    drawn = random_direction(pair.start, 0)
    before = np.stack([drawn["weights"]["w"], drawn["moments"]["w/momentum_buffer"]], axis=-1)
    after = np.einsum("dij,dj->di", heavy_ball.transition(lr, momentum), before)
    exact = np.log(np.linalg.norm(after * [1, lr]) / np.linalg.norm(before * [1, lr]))
    assert pair.log_growth((1,))[0] == pytest.approx(exact, abs=1e-6)
