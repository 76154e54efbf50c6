"""Dose response: exponent, even part and rounding floor in worlds where they are known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pytest
from tests.helpers.study_recipes import plain

import bygones
from bygones.core.errors import DesignError
from bygones.dynamics.dose_response import DoseCurve, DoseResponse, amplitude_exponent, curve
from bygones.training.probes.base import AbstractProbe
from bygones.training.recipe import Recipe
from bygones.zoo.worlds import heavy_ball, scalar_maps

DOSES = (0.01, 0.1, 1.0)


@dataclass(frozen=True)
class QuadraticLoss(AbstractProbe):
    """½ Σ c_j w_j², the loss of the heavy-ball world around 0: float64 [1, 1]."""

    kind: ClassVar[Literal["values"]] = "values"

    def __call__(self, parts: bygones.Parts) -> np.ndarray:
        w = parts.model.get_parameter("w").detach().numpy()
        return np.array([[0.5 * float(np.sum(heavy_ball.CURVATURE * w**2))]])


def measured(quantity: DoseResponse, recipe: Recipe, fork_at: int, num_seeds: int = 2) -> DoseCurve:
    study = quantity.design(recipe, fork_at, range(num_seeds))
    return quantity.estimate(bygones.measure(study))


@pytest.mark.parametrize("along", ["treatment", "random"])
def test_in_a_linear_world_the_exponent_is_1_and_the_even_part_0(along: Literal["random"]) -> None:
    quantity = DoseResponse("weights", doses=DOSES, horizons=(0, 7), along=along)
    found = measured(quantity, Recipe.of(heavy_ball.recipe), fork_at=3)
    for place in (0, 1):
        assert found.exponent[place].value == pytest.approx(1.0, abs=1e-9)
        assert found.even_share[place].high < 1e-9
        assert found.floor(place) == 0.0
    assert "grows as dose to the power 1" in str(found)
    assert "rounding hides none" in str(found)


def test_the_even_part_of_a_quadratic_loss_is_half_its_second_derivative() -> None:
    """Even part of L(w + αT): ½ TᵀHT α², where T is what the whole treatment moves."""
    lr, momentum, horizon, fork_at = 0.1, 0.9, 6, 3
    quantity = DoseResponse("moments", doses=DOSES, horizons=(horizon,), probe=QuadraticLoss())
    found = measured(quantity, Recipe.of(heavy_ball.recipe), fork_at)
    for seed in range(2):
        run = bygones.Run(heavy_ball.recipe, seed)
        run.advance(fork_at)
        buffer = run.sources["moments"].capture()["w/momentum_buffer"].numpy()
        tangent = heavy_ball.displacement(0 * buffer, -buffer, horizon, lr, momentum)
        exact = 0.5 * np.sum(heavy_ball.CURVATURE * tangent**2) * np.square(DOSES)
        np.testing.assert_allclose(found.even[seed, 0], exact, rtol=1e-6, atol=1e-15)


def test_a_sign_optimizer_has_an_exponent_near_0() -> None:
    doses = (1e-5, 1e-4, 1e-3, 1e-2)
    quantity = DoseResponse("weights", doses=doses, horizons=(1, 2, 5))
    found = measured(quantity, Recipe.of(scalar_maps.recipe, kind="sign"), fork_at=2)
    exact = amplitude_exponent(doses, np.array([scalar_maps.sign_response(a) for a in doses]))
    odd = [found.exponent[place].value for place in (0, 2)]
    assert odd == pytest.approx([exact, exact], abs=1e-9)
    assert -0.05 < exact < 0.0
    assert found.exponent[1].value == pytest.approx(1.0, abs=1e-9)  # back at its start
    assert found.even_share[0].value == pytest.approx(0.0, abs=1e-9)


def test_doses_below_the_rounding_of_float32_are_found_and_left_out() -> None:
    doses = (1e-8, 1e-6, 1e-4, 1e-3, 1e-2)
    found = measured(DoseResponse("weights", doses=doses, horizons=(3,)), Recipe.of(plain), 4, 3)
    assert found.floor() in (1e-8, 1e-6)
    assert found.exponent[0].value == pytest.approx(1.0, abs=0.1)
    assert f"rounding hides doses up to {found.floor():g}" in str(found)
    everything = amplitude_exponent(doses, found.sizes[0, 0])
    assert abs(everything - 1.0) > abs(found.exponent[0].value - 1.0)


def test_no_exponent_is_given_where_rounding_leaves_too_few_doses() -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((2, 3, 4, 1, 50))  # no dose stands out
    found = curve("scaling moments", (5,), DOSES, noise, np.full((4, 1), 7.0))
    assert found.floor() == 1.0
    assert found.exponent[0].num_pairs == 0
    assert math.isnan(found.exponent[0].value)
    assert "no exponent can be told" in str(found)


@pytest.mark.parametrize(
    ("doses", "words"),
    [((0.1, 0.01), "in ascending order"), ((0.5, 1.5), "up to 1"), ((0.1, 1.0), "1.5 decades")],
)
def test_doses_are_checked(doses: tuple[float, ...], words: str) -> None:
    with pytest.raises(DesignError, match=words):
        DoseResponse("moments", doses=doses)
