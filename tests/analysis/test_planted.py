"""Effects of known size, planted in what trained networks really said, are found again at that size."""

import numpy as np
import pytest
import xarray as xr

import bygones
import bygones.analysis.effects
import bygones.analysis.predictions
from bygones.zoo.regimes import digits

pytestmark = pytest.mark.xdist_group("planted")  # what they share is made once

SHARE = 0.01  # of each prediction's probability that the planted arm moves to class 0
NUM_SEEDS = 6


@pytest.fixture(scope="module")
def trained() -> xr.Dataset:
    """Six trained digits networks; the reset arm is only there to be written over."""
    at = bygones.Window(60, 61)
    arm = bygones.Arm("planted", bygones.Treatment("moments", bygones.Reset(), at))
    study = bygones.Study(digits.recipe, [arm], fork_at=60, horizons=(5,), seeds=range(NUM_SEEDS))
    return bygones.measure(study)


def planted(trained: xr.Dataset, shares: np.ndarray) -> tuple[xr.Dataset, np.ndarray]:
    """p ← (1 − a)·p + a·[class 0] in the planted arm, a per seed; with the TV that this is, per seed.

    TV(p, (1 − a)p + a·e₀) = a·(1 − p₀), so its mean over inputs is known exactly.
    """
    outcomes = trained.copy(deep=True)
    outcomes["logits"] = outcomes.logits.astype("float64")
    arms = list(outcomes.arm.values)
    p = bygones.analysis.predictions.probabilities(outcomes).values[
        :, arms.index("control")
    ]  # seed, step, input, class
    moved = (1 - shares[:, None, None, None]) * p
    moved[..., 0] += shares[:, None, None]
    outcomes.logits.values[:, arms.index("planted")] = np.log(moved)
    return outcomes, (shares[:, None] * (1 - p[:, 0, :, 0])).mean(axis=1)


def test_a_planted_distance_is_found_at_its_size(trained):
    shares = SHARE * np.linspace(0.5, 1.5, NUM_SEEDS)
    outcomes, sizes = planted(trained, shares)
    found = bygones.effect(outcomes, "planted", 65)
    assert found.estimate.value == pytest.approx(sizes.mean(), rel=1e-9)
    half = 2.5705818366147395 * sizes.std(ddof=1) / np.sqrt(NUM_SEEDS)  # t of 5 degrees of freedom
    assert found.estimate.high - found.estimate.value == pytest.approx(half, rel=1e-6)
    assert found.floor is not None
    assert found.floor.value == 0


def test_a_planted_field_is_found_input_by_input(trained):
    outcomes, _ = planted(trained, np.full(NUM_SEEDS, SHARE))
    field = bygones.function_field(outcomes, "planted", 65)
    arms = list(outcomes.arm.values)
    p = bygones.analysis.predictions.probabilities(outcomes).values
    planted_field = (p[:, arms.index("planted"), 0] - p[:, arms.index("control"), 0]).mean(axis=0)
    at = np.asarray(field.at_class)
    np.testing.assert_allclose(
        field.value, planted_field[np.arange(len(at)), at], rtol=1e-9, atol=1e-15
    )


def test_a_planted_null_passes_the_equivalence_test_and_a_planted_effect_does_not(trained):
    margin = 0.004
    small, sizes = planted(trained, SHARE / 10 * np.linspace(0.5, 1.5, NUM_SEEDS))
    assert sizes.mean() < margin
    assert bygones.equivalent_effect(small, "planted", 65, margin).equivalent
    large, sizes = planted(trained, SHARE * np.linspace(0.5, 1.5, NUM_SEEDS))
    assert sizes.mean() > margin
    assert not bygones.equivalent_effect(large, "planted", 65, margin).equivalent
