"""Attribution: the axioms of Shapley's value, and a linear world in which every share is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import bygones
from bygones.analysis.function_field import squared_norm
from bygones.analysis.predictions import Predictions
from bygones.core.errors import DesignError
from bygones.core.values import Window
from bygones.dynamics.attribution import Attribution, resets, shapley
from bygones.study.design import Arm
from bygones.study.measure import measure
from bygones.training.interventions import Kick, Sham
from bygones.training.probes import Values
from bygones.training.recipe import Recipe
from bygones.training.treatment import Treatment
from bygones.zoo.worlds import heavy_ball

FORK_AT, LR, MOMENTUM = 3, 0.1, 0.9


def games(k: int, shape: tuple[int, ...] = ()) -> np.ndarray:
    drawn = np.random.default_rng(k).standard_normal((2**k, *shape))
    drawn[0] = 0.0
    return drawn


@pytest.mark.parametrize("k", [1, 2, 3, 6])
def test_shares_add_up_to_the_value_of_all(k: int) -> None:
    drawn = games(k, (3,))
    np.testing.assert_allclose(shapley(drawn).sum(axis=0), drawn[-1], rtol=0, atol=1e-12)


def test_one_that_adds_nothing_has_no_share_and_two_that_add_alike_have_the_same() -> None:
    dummy, drawn = games(4), games(3)
    for index in range(16):
        dummy[index] = drawn[index & 7]  # bit 3 never counts
    assert shapley(dummy)[3] == 0.0
    np.testing.assert_allclose(shapley(dummy)[:3], shapley(drawn), rtol=0, atol=1e-12)
    for index in range(8):  # bits 0 and 1 count by their number
        drawn[index] = drawn[(index & 4) | {0: 0, 1: 1, 2: 1, 3: 3}[index & 3]]
    assert abs(shapley(drawn)[0] - shapley(drawn)[1]) < 1e-12


def test_glove_game() -> None:
    """Only a left glove with a right one is worth 1; the one left glove is worth 2/3."""
    value = [float(bool(index & 1) and bool(index & 6)) for index in range(8)]
    np.testing.assert_allclose(shapley(np.array(value)), [2 / 3, 1 / 6, 1 / 6], rtol=0, atol=1e-15)


def test_in_a_linear_world_the_share_is_the_inner_product_with_the_sum() -> None:
    """Effects add up, so φ_i = ⟨δ_i, Σ_j δ_j⟩; a treatment that does nothing has exactly 0."""
    kicks = {"a": ("weights", "w", 0.5), "b": ("moments", "w/momentum_buffer", -0.7)}
    window = Window(FORK_AT, FORK_AT + 1)
    arms = [
        Arm(name, Treatment(source, Kick({leaf: by}), window))
        for name, (source, leaf, by) in kicks.items()
    ]
    arms.append(Arm("nothing", Treatment("weights", Sham(), window)))
    quantity = Attribution(tuple(arms), horizons=(1, 20), probe=Values())
    recipe = Recipe.of(heavy_ball.recipe, lr=LR, momentum=MOMENTUM)
    found = quantity.estimate(measure(quantity.design(recipe, FORK_AT, range(3))))
    ones, zeros = np.ones(heavy_ball.DIMENSIONS), np.zeros(heavy_ball.DIMENSIONS)
    for place, horizon in enumerate(found.horizons):
        one = heavy_ball.displacement(0.5 * ones, zeros, horizon, LR, MOMENTUM)
        other = heavy_ball.displacement(zeros, -0.7 * ones, horizon, LR, MOMENTUM)
        for share, effect in zip(found.shapley[:2], (one, other), strict=True):
            exact = float(effect @ (one + other)) / heavy_ball.DIMENSIONS
            assert share[place].value == pytest.approx(exact, abs=1e-9)
        assert (found.shapley[2][place].low, found.shapley[2][place].high) == (0.0, 0.0)
        assert found.total[place].value == pytest.approx(
            float((one + other) @ (one + other)) / heavy_ball.DIMENSIONS, abs=1e-9
        )


def recipe(seed: int) -> bygones.Parts:
    """A small network with BatchNorm, whose statistics reach the outputs but not the training."""
    inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    labels = (inputs[:, 0] > 0).long()
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2))
    return bygones.Parts(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        data=(inputs, labels),
        order=bygones.Reshuffle(num_examples=64, batch_size=16),
        probe_set=(inputs[:16], labels[:16]),
    )


def test_shares_of_a_score_add_up_in_every_network_and_are_said() -> None:
    one = Recipe.of(recipe)
    arms = resets(one, 8, 0, ["moments", "batchnorm"])
    quantity = Attribution(arms, horizons=(0, 5), value="nll")
    outcomes = measure(quantity.design(one, 8, range(4)))
    found = quantity.estimate(outcomes)
    assert found.shapley[0][0].value == 0.0  # at once, a reset of momentum moves no output
    for place in range(2):
        total = sum(share[place].value for share in found.shapley)
        assert total == pytest.approx(found.total[place].value, abs=1e-9)
    assert str(found).startswith("2 treatments together, horizon 5: change of nll ")
    whole = Attribution(arms, horizons=(0, 5)).estimate(outcomes).total[1].value
    names = outcomes["arm"].values.tolist()
    predicted = Predictions(outcomes["logits"].values).probabilities[:, :, 1]
    gaps = predicted[:, names.index("moments + batchnorm")] - predicted[:, names.index("control")]
    assert whole == pytest.approx(squared_norm(gaps).corrected.value, rel=1e-12)
    moments = outcomes["arm"].values.tolist().index("moments")
    outcomes["logits"].values[2, moments] = (
        np.nan
    )  # seed 2 diverges in one arm: it counts in no share
    for value in ("nll", "function"):
        lost = Attribution(arms, horizons=(0, 5), value=value).estimate(outcomes)
        assert lost.total[1].num_dropped == 1
        assert sum(share[1].value for share in lost.shapley) == pytest.approx(lost.total[1].value)
        assert "1 seed diverged in some arm" in str(lost)
    with pytest.raises(DesignError, match="probe with labels"):
        quantity.estimate(outcomes.drop_vars("labels"))


def test_what_cannot_be_attributed_is_refused() -> None:
    arm = Arm("a", Treatment("weights", Sham(), Window(1, 2)))
    with pytest.raises(DesignError, match="1 to 6 treatments"):
        Attribution(())
    with pytest.raises(DesignError, match="distance is never negative"):
        Attribution((arm,), value="tv")
    with pytest.raises(DesignError, match="cannot be reset here"):
        resets(Recipe.of(heavy_ball.recipe), 3, 0, ["weights"])
