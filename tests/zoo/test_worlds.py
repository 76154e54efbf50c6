"""Runs whose memory has a closed form: the machine must reproduce it to the last digits.

D: coordinates of the point. The heavy ball runs in float64, so differences are exact to about 1e-15.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from tests.helpers.specimen_recipes import trained
from torch import nn

from bygones.core.values import Window
from bygones.dynamics import half_life
from bygones.training.interventions import Kick, Reset, Scale, SwapWindows
from bygones.training.probes import Carrier, Logits, Values
from bygones.training.recipe import Recipe
from bygones.training.run import Run
from bygones.training.treatment import Treatment
from bygones.zoo.regimes import digits
from bygones.zoo.worlds import heavy_ball

LR, MU = 0.1, 0.9
AT, HORIZONS = 7, (0, 1, 2, 5, 20)


def at_step(recipe: Recipe, seed: int, step: int) -> Run:
    run = Run(recipe, seed)
    run.advance(step)
    return run


def outputs_along(run: Run, until: int, treatments: Sequence[Treatment] = ()) -> np.ndarray:
    """The point at each boundary from here to `until`: [H, D]."""
    seen = []
    run.advance(
        until, treatments, at_boundary=lambda r: seen.append(r.observe(Values(), check=False))
    )
    run.intervene(treatments)
    return np.stack([*seen, run.observe(Values(), check=False)])[:, :, 0]


def effect_of(treatment: Treatment, seed: int, steps: int, **settings: float) -> np.ndarray:
    """Treated minus control at each boundary of the window's `steps` steps: [steps + 1, D]."""
    recipe = Recipe.of(heavy_ball.recipe, **settings)
    control, treated = (at_step(recipe, seed, treatment.window.start) for _ in range(2))
    until = treatment.window.start + steps
    return outputs_along(treated, until, [treatment]) - outputs_along(control, until)


def buffer_of(run: Run) -> np.ndarray:
    return run.sources["moments"].capture()["w/momentum_buffer"].numpy()


@pytest.mark.parametrize(("lr", "mu", "steps"), [(0.1, 0.9, 12), (0.01, 0.99, 30), (0.5, 0.0, 3)])
def test_a_kick_on_a_flat_loss(lr: float, mu: float, steps: int):
    """-lr·mu(1-mu^H)/(1-mu)·q after H steps, whatever the seed."""
    q = np.array([1.0, -2.0, 0.5])
    kick = Treatment("moments", Kick({"w/momentum_buffer": q}), Window(1, 2))
    if mu == 0.0:  # plain SGD keeps no buffer: there is nothing to kick
        with pytest.raises(Exception, match="no leaf of moments"):
            effect_of(kick, 0, steps, lr=lr, momentum=mu, curvature=0.0)
        return
    moved = effect_of(kick, 3, steps, lr=lr, momentum=mu, curvature=0.0)
    for horizon in range(steps + 1):
        expected = -lr * mu * (1 - mu**horizon) / (1 - mu) * q
        np.testing.assert_allclose(moved[horizon], expected, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(
            heavy_ball.flat_kick(q, horizon, lr, mu), expected, rtol=1e-12, atol=1e-15
        )


@pytest.mark.parametrize(("lr", "mu", "steps"), [(0.1, 0.9, 12), (0.01, 0.99, 30), (0.5, 0.5, 3)])
def test_a_kick_on_a_flat_loss_under_torchs_nesterov_has_one_factor_mu_more(
    lr: float, mu: float, steps: int
):
    """-lr·mu²(1-mu^H)/(1-mu)·q: the step applies g + mu·b, and g is 0."""
    q = np.array([1.0, -2.0, 0.5])
    kick = Treatment("moments", Kick({"w/momentum_buffer": q}), Window(1, 2))
    settings = {"lr": lr, "momentum": mu, "curvature": 0.0}
    moved = effect_of(kick, 3, steps, **settings, nesterov=True)
    plain = effect_of(kick, 3, steps, **settings)
    for horizon in range(steps + 1):
        expected = -lr * mu**2 * (1 - mu**horizon) / (1 - mu) * q
        closed = heavy_ball.flat_kick(q, horizon, lr, mu, nesterov=True)
        np.testing.assert_allclose(moved[horizon], expected, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(closed, expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(moved, mu * plain, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("seed", range(4))
def test_what_a_momentum_reset_does_to_each_seed(seed: int):
    moved = effect_of(Treatment("moments", Reset(), Window(AT, AT + 1)), seed, max(HORIZONS))
    lost = -buffer_of(at_step(Recipe.of(heavy_ball.recipe), seed, AT))
    for horizon in HORIZONS:
        expected = heavy_ball.displacement(np.zeros(3), lost, horizon, LR, MU)
        np.testing.assert_allclose(moved[horizon], expected, rtol=0, atol=1e-12)
    assert np.abs(moved[1:]).min(axis=0).max() > 1e-3  # far above what the comparison forgives


@pytest.mark.parametrize("alpha", [0.0, 0.5, 2.0])
def test_a_scaled_buffer_has_its_share_of_the_effect(alpha: float):
    moved = effect_of(Treatment("moments", Scale(alpha), Window(AT, AT + 1)), 0, 10)
    reset = effect_of(Treatment("moments", Reset(), Window(AT, AT + 1)), 0, 10)
    np.testing.assert_allclose(moved, (1 - alpha) * reset, rtol=0, atol=1e-12)


def test_kicks_of_weights_and_buffer_add_up():
    dw, db = np.array([0.3, -0.1, 0.2]), np.array([1.0, 2.0, -3.0])
    both = effect_of(Treatment("weights", Kick({"w": dw}), Window(AT, AT + 1)), 0, 8)
    both += effect_of(
        Treatment("moments", Kick({"w/momentum_buffer": db}), Window(AT, AT + 1)), 0, 8
    )
    for horizon in range(9):
        expected = heavy_ball.displacement(dw, db, horizon, LR, MU)
        np.testing.assert_allclose(both[horizon], expected, rtol=0, atol=1e-12)


def test_the_transition_is_what_one_step_does():
    """[w, b] one step on, by hand: b' = 0.9·b + c·w, w' = w - 0.1·b'."""
    moved = heavy_ball.displacement(np.ones(3), np.ones(3), 1, LR, MU)
    np.testing.assert_allclose(moved, [1 - 0.1 * 1.9, 1 - 0.1 * 1.2, 1 - 0.1 * 1.0], rtol=1e-15)
    assert heavy_ball.transition(LR, MU).shape == (3, 2, 2)


def test_the_expected_effect_of_a_reset_lies_in_its_interval():
    """Mean over 60 seeds against the closed expectation, each coordinate and horizon: |t| < 4.

    With 60 pairs a true mean is outside four standard errors about once in five thousand.
    """
    steps, seeds = 6, range(60)
    effects = np.stack(
        [effect_of(Treatment("moments", Reset(), Window(AT, AT + 1)), s, steps) for s in seeds]
    )
    lost = -heavy_ball.expected_buffer(AT, LR, MU)
    for horizon in (1, 3, 6):
        expected = heavy_ball.displacement(np.zeros(3), lost, horizon, LR, MU)
        found = effects[:, horizon]
        error = found.std(axis=0, ddof=1) / math.sqrt(len(seeds))
        assert (np.abs(found.mean(axis=0) - expected) < 4 * error).all()
        assert (np.abs(expected) > 4 * error).any()  # zero would not have been believed


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.99])
def test_an_average_that_is_never_fed_back_fades_by_its_decay_each_step(decay: float):
    recipe = Recipe.of(heavy_ball.recipe, ema_decay=decay)
    control, treated = at_step(recipe, 0, AT), at_step(recipe, 0, AT)
    treated.intervene([Treatment("averages", Kick({"module.w": np.ones(3)}), Window(AT, AT + 1))])
    probe = Carrier("averages", leaves="module.w")
    for horizon in range(12):
        gap = treated.observe(probe) - control.observe(probe)
        np.testing.assert_allclose(gap[0], decay**horizon, rtol=1e-9)
        control.advance(AT + horizon + 1)
        treated.advance(AT + horizon + 1)
    assert np.array_equal(treated.observe(Values()), control.observe(Values()))
    assert treated.sources["averages"].lifetime().steps == pytest.approx(-1 / math.log(decay))


def test_on_a_flat_loss_the_order_does_not_matter_and_on_a_curved_one_it_does():
    swap = Treatment("order", SwapWindows(), Window(2, 8))
    assert not effect_of(swap, 0, 10, curvature=0.0).any()
    assert effect_of(swap, 0, 10, curvature=1.0)[-1].any()


# ------------------------------------------------------------------ BatchNorm, on real digits


def test_a_batchnorm_reset_fades_with_a_half_life_of_6_578813_and_never_reaches_training():
    """(1 - 0.1) a step: ln 2 / -ln 0.9 = 6.578813 steps, while every loss stays equal to the bit."""
    recipe = Recipe.of(digits.recipe)
    control, treated = at_step(recipe, 0, 3), Run(recipe, 1)
    treated.restore(control.snapshot())
    treated.intervene([Treatment("batchnorm", Reset(), Window(3, 4))])
    probe, steps = Carrier("batchnorm", leaves="*/running_*"), 12
    assert np.abs(treated.observe(Logits()) - control.observe(Logits())).max() > 1e-2
    gaps = []
    for step in range(3, 3 + steps + 1):
        gaps.append(np.linalg.norm(treated.observe(probe) - control.observe(probe)))
        control.advance(step + 1)
        treated.advance(step + 1)
    factors = np.array(gaps[1:]) / gaps[:-1]
    measured = half_life(np.arange(steps + 1), np.array(gaps))
    assert measured == pytest.approx(6.578813, abs=1e-4)
    np.testing.assert_allclose(factors, 0.9, rtol=1e-5)
    assert treated.losses[-steps:] == control.losses[-steps:]
    weights = [run.sources["weights"].capture() for run in (control, treated)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert treated.sources["batchnorm"].lifetime().half_life == pytest.approx(measured, abs=1e-4)


def test_a_batchnorm_that_is_read_in_training_would_be_seen_in_the_losses():
    """The twin of the test above: in evaluation mode the statistics do feed back."""
    runs = [at_step(Recipe.of(trained, dropout=0.0), 0, 3) for _ in range(2)]
    for run in runs:
        for module in run.parts.model.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.eval()
    runs[1].advance(6, [Treatment("batchnorm", Reset(), Window(3, 4))])
    runs[0].advance(6)
    assert runs[0].losses[-1] != runs[1].losses[-1]
