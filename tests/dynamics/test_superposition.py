"""Superposition: 0 in a linear world, and exact interactions where treatments multiply."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

import bygones
from bygones.core.errors import DesignError
from bygones.core.values import Window
from bygones.dynamics.superposition import Superposition, interaction
from bygones.study.design import Arm
from bygones.training.interventions import Kick, Scale
from bygones.training.recipe import Recipe
from bygones.training.treatment import Treatment
from bygones.zoo.worlds import heavy_ball


def kick(name: str, source: str, leaf: str, by: float, at: int) -> Arm:
    return Arm(name, Treatment(source, Kick({leaf: by}), Window(at, at + 1)))


A, B, C = (
    kick("a", "moments", "w/momentum_buffer", 0.7, 3),
    kick("b", "weights", "w", -0.2, 4),
    kick("c", "weights", "w", 0.3, 6),
)
RECIPE = Recipe.of(heavy_ball.recipe)


def test_in_a_linear_world_effects_add_up() -> None:
    quantity = Superposition((A, B, C), horizons=(4, 12))
    found = quantity.estimate(bygones.measure(quantity.design(RECIPE, 3, range(2))))
    assert set(found.sizes) == {("a", "b"), ("a", "c"), ("b", "c"), ("a", "b", "c")}
    assert max(one.high for row in found.sizes.values() for one in row) < 1e-12
    assert str(found).startswith("Departure from the sum of effects at horizon 12")


def test_halving_what_was_kicked_is_no_sum() -> None:
    """Halving w after a kick leaves half of what the kick had moved by then: I = −½ M k."""
    half = Arm("half", Treatment("weights", Scale(0.5), Window(5, 6)))
    quantity = Superposition((B, half), horizons=(2,))
    found = quantity.estimate(bygones.measure(quantity.design(RECIPE, 3, range(3))))
    moved = heavy_ball.displacement(np.full(3, -0.2), np.zeros(3), 1, lr=0.1, momentum=0.9)
    shares = []
    for seed in range(3):
        run = bygones.Run(RECIPE, seed)
        run.advance(5)
        halved = 0.5 * np.linalg.norm(run.parts.model.get_parameter("w").detach().numpy())
        length = np.linalg.norm(moved)
        shares.append(0.5 * length / (length + halved))
    assert found.sizes["b", "half"][0].value == pytest.approx(np.mean(shares), abs=1e-9)


def test_interactions_of_all_orders_by_moebius() -> None:
    """Of f(S) = Σ over pairs and triples inside S of known numbers, exactly these come back."""
    names = ("a", "b", "c", "d")
    known = {("a",): 1.0, ("b", "c"): -2.0, ("a", "b", "d"): 0.5, names: 3.0}
    effects = {
        s: np.array([sum(v for k, v in known.items() if set(k) <= set(s))])
        for size in range(1, 5)
        for s in combinations(names, size)
    }
    for subset in effects:
        assert interaction(effects, subset)[0] == pytest.approx(known.get(subset, 0.0), abs=1e-12)


def test_the_arms_are_checked() -> None:
    for arms in ((A,), (A, A), (A, B, C, A, B)):
        with pytest.raises(DesignError, match="2 to 4 arms"):
            Superposition(arms)
