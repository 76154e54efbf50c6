"""Averages of an AR(1) chain: what trains has the variances that the closed forms say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bygones.core.values import Window
from bygones.training.fork_check import check_fork
from bygones.training.interventions import Reset
from bygones.training.probes import Values
from bygones.training.recipe import Recipe
from bygones.training.run import Run
from bygones.training.treatment import Treatment
from bygones.zoo.worlds import averaged


def iterates(lr: float, decay: float, burn: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The last iterate and its EMA at each of `steps` boundaries after `burn`: two arrays [steps, chains]."""
    run = Run(Recipe.of(averaged.recipe, lr=lr, decay=decay), 0)
    run.advance(burn)
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def look(run: Run) -> None:
        assert run.parts.averages is not None
        pair = (run.parts.model, run.parts.averages)
        last, ema = (next(m.parameters()).detach().numpy().copy() for m in pair)
        seen.append((last, ema))

    run.advance(burn + steps, at_boundary=look)
    last, ema = (np.stack(one) for one in zip(*seen, strict=True))
    return last, ema


@pytest.mark.parametrize(("lr", "decay"), [(0.2, 0.9), (0.5, 0.6)])
def test_variances_of_the_averages_are_the_closed_forms(lr: float, decay: float):
    """1 024 chains seen at times far apart: a ratio is known to about 3 %, so 8 % are allowed."""
    a = 1 - lr
    last, ema = iterates(lr, decay, burn=90, steps=91)
    apart = slice(None, None, 45)
    base = (last[apart] ** 2).mean()
    assert base == pytest.approx(averaged.variance(a), rel=0.08)
    assert (ema[apart] ** 2).mean() / base == pytest.approx(averaged.ema_ratio(a, decay), rel=0.08)
    gap = ((ema - last)[apart] ** 2).mean() / base
    assert gap == pytest.approx(averaged.gap_ratio(a, decay), rel=0.08)
    for length in (2, 10):
        window = last[-length:].mean(axis=0)
        ratio = (window**2).mean() / (last**2).mean()
        assert ratio == pytest.approx(averaged.window_ratio(a, length), rel=0.15)
    # What the formula is not: independent iterates (a = 0).
    assert abs((ema[apart] ** 2).mean() / base / averaged.ema_ratio(0.0, decay) - 1) > 0.5


def test_the_closed_forms_are_the_sums_that_they_abbreviate():
    a, d, lags = 0.7, 0.8, np.arange(400)
    together = a ** np.abs(lags[:, None] - lags)
    weights = (1 - d) * d**lags
    assert averaged.ema_ratio(a, d) == pytest.approx(weights @ together @ weights, rel=1e-12)
    gap = weights - (lags == 0)
    assert averaged.gap_ratio(a, d) == pytest.approx(gap @ together @ gap, rel=1e-12)
    uniform = (lags < 7) / 7
    assert averaged.window_ratio(a, 7) == pytest.approx(uniform @ together @ uniform, rel=1e-12)


def test_the_gap_to_the_last_iterate_vanishes_with_the_learning_rate():
    """As lr² in all: V goes as lr, and the gap relative to V as lr again."""
    rates = np.array([1e-2, 1e-3, 1e-4])
    gaps = [averaged.variance(1 - lr) * averaged.gap_ratio(1 - lr, 0.9) for lr in rates]
    slopes = np.diff(np.log(gaps)) / np.diff(np.log(rates))
    np.testing.assert_allclose(slopes, 2.0, atol=0.1)
    assert averaged.gap_ratio(1 - 1e-4, 0.9) == pytest.approx(2e-4 * 0.81 / 0.19, rel=1e-2)
    last, ema = iterates(0.01, 0.9, burn=400, steps=1)
    expected = averaged.variance(0.99) * averaged.gap_ratio(0.99, 0.9)
    assert ((ema - last) ** 2).mean() == pytest.approx(expected, rel=0.15)


def test_a_reset_average_is_forgotten_by_the_decay_a_step_and_never_reaches_the_weights():
    control, treated = Run(averaged.recipe, 0), Run(averaged.recipe, 0)
    for run in (control, treated):
        run.advance(20)
    treated.intervene([Treatment("averages", Reset(), Window(20, 21))])
    gaps = []
    for step in range(20, 25):
        both = (run.observe(Values("averages"), check=False) for run in (treated, control))
        gaps.append(np.subtract(*both))
        for run in (control, treated):
            run.advance(step + 1)
    # A new average has count 0, so its first update copies the weights; from then on it decays.
    for steps in range(1, 4):
        np.testing.assert_allclose(gaps[1 + steps], 0.9**steps * gaps[1], rtol=1e-9, atol=1e-14)
    assert torch.equal(control.parts.model.w, treated.parts.model.w)  # pyright: ignore[reportArgumentType]
    assert np.abs(gaps[1]).max() > 0.01


def test_forks_are_bit_equal():
    certificate = check_fork(averaged.recipe, at=[1, 5], until=8)
    assert set(certificate.needed) == {"weights", "averages", "order", "streams"}
