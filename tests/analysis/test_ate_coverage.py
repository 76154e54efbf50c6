"""The library's interval for a treatment effect against an expectation that is known exactly.

Heavy ball on a quadratic: resetting the buffer at step F displaces w, H steps on, by M^H (0, -b_F), and
E b_F is the noiseless run's buffer. A study of real runs takes seconds, so hundreds of studies are
simulated by the recursion itself; one real study shows that it is the same process.

Shapes: S studies, R seeds, D coordinates.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import bygones
from bygones.analysis.estimators import ESTIMATORS, Estimate, paired_t
from bygones.core.keyed_rng import Streams
from bygones.core.values import Window
from bygones.study.design import Arm, Study
from bygones.study.measure import measure
from bygones.training.interventions import Reset
from bygones.training.orders import WithReplacement
from bygones.training.probes import Values
from bygones.training.recipe import Recipe
from bygones.training.run import Run
from bygones.training.treatment import Treatment
from bygones.zoo.worlds import heavy_ball

LR, MOMENTUM, FORK_AT, HORIZON = 0.1, 0.9, 12, 9
NUM_EXAMPLES, BATCH_SIZE = 64, 8
CURVATURE = np.asarray(heavy_ball.CURVATURE)
EXAMPLES = heavy_ball.draw_examples()


def recursion(start: np.ndarray, batches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Control and treated at the horizon: start (..., D), mean of each batch (steps, ..., D).

    b <- mu·b + c·(w - mean),  w <- w - lr·b; the treated run has b = 0 at the fork.
    """
    w, b = start, np.zeros_like(start)
    treated, kicked = w, b
    for step, mean in enumerate(batches):
        if step == FORK_AT:
            treated, kicked = w, np.zeros_like(b)
        b = MOMENTUM * b + CURVATURE * (w - mean)
        w = w - LR * b
        kicked = MOMENTUM * kicked + CURVATURE * (treated - mean)
        treated = treated - LR * kicked
    return w, treated


@pytest.fixture(scope="module")
def outcomes() -> xr.Dataset:
    study = Study(
        Recipe.of(heavy_ball.recipe, lr=LR, momentum=MOMENTUM),
        [Arm("reset", Treatment("moments", Reset(), Window(FORK_AT, FORK_AT + 1)))],
        fork_at=FORK_AT,
        horizons=(HORIZON,),
        seeds=range(6),
        probe=Values(),
    )
    return measure(study)


def test_the_recursion_is_the_run(outcomes):
    order = WithReplacement(NUM_EXAMPLES, BATCH_SIZE)
    at_end = outcomes["values"].sel(step=FORK_AT + HORIZON)
    for seed in outcomes["seed"].values.tolist():
        point: Any = Run(Recipe.of(heavy_ball.recipe, lr=LR, momentum=MOMENTUM), seed).parts.model
        key = Streams(seed).key("order")
        rows = [order.rows(key, step) for step in range(FORK_AT + HORIZON)]
        batches = np.stack([EXAMPLES[row].mean(axis=0) for row in rows])
        control, treated = recursion(point.w.detach().numpy().copy(), batches)
        for arm, simulated in (("control", control), ("reset", treated)):
            real = at_end.sel(seed=seed, arm=arm).values.ravel()
            np.testing.assert_allclose(simulated, real, rtol=1e-12, atol=1e-14)


def simulated_effects(num_studies: int, num_seeds: int, seed: int) -> np.ndarray:
    """treated - control of so many studies: (S, R, D)."""
    rng = np.random.default_rng(seed)
    shape, steps = (num_studies, num_seeds), FORK_AT + HORIZON
    start = rng.standard_normal((*shape, heavy_ball.DIMENSIONS))
    rows = rng.integers(NUM_EXAMPLES, size=(steps, *shape, BATCH_SIZE))
    batches = np.stack([EXAMPLES[row].mean(axis=-2) for row in rows])
    control, treated = recursion(start, batches)
    return treated - control


def exact() -> np.ndarray:
    """E over seeds of treated - control, (D,): from the world's closed forms."""
    buffer = heavy_ball.expected_buffer(FORK_AT, LR, MOMENTUM)
    return heavy_ball.displacement(np.zeros_like(buffer), -buffer, HORIZON, LR, MOMENTUM)


def covered(estimator, effects: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The share of studies whose interval holds the truth, for each coordinate: (D,)."""
    return np.array(
        [
            np.mean([estimator(study).covers(truth[d]) for study in effects[:, :, d]])
            for d in range(truth.size)
        ]
    )


def test_the_simulated_effects_have_the_exact_mean():
    effects = simulated_effects(4_000, 8, seed=1).reshape(-1, heavy_ball.DIMENSIONS)
    error = effects.std(axis=0) / np.sqrt(len(effects))
    assert np.all(np.abs(effects.mean(axis=0) - exact()) < 4 * error)
    assert np.all(np.abs(exact()) > 20 * error)  # it can be told from none


def test_the_interval_covers_the_exact_effect_at_its_rate():
    effects = simulated_effects(4_000, 8, seed=2)
    shares = covered(paired_t, effects, exact())
    assert np.all((shares >= 0.94) & (shares <= 0.96)), shares
    # Wrong on purpose: the buffer of one step later, and the spread of one seed for that of the mean.
    later = heavy_ball.expected_buffer(FORK_AT + 1, LR, MOMENTUM)
    shifted = heavy_ball.displacement(np.zeros_like(later), -later, HORIZON, LR, MOMENTUM)
    wrong = covered(paired_t, effects[:1_000], shifted)
    assert np.any((wrong < 0.94) | (wrong > 0.96)), wrong


def test_a_quantile_that_is_too_small_is_caught():
    def normal_instead_of_t(study):
        half = 1.959964 * study.std(ddof=1) / np.sqrt(study.size)
        return Estimate(study.mean(), study.mean() - half, study.mean() + half, 0.95, 8, "wrong")

    shares = covered(normal_instead_of_t, simulated_effects(4_000, 8, seed=2), exact())
    assert np.all(shares < 0.94), shares


@pytest.mark.parametrize("name", ["sign_flip", "hierarchical", "confidence_sequence"])
def test_the_other_intervals_for_a_mean_cover_it_too(name):
    shares = covered(ESTIMATORS[name], simulated_effects(1_500, 8, seed=3), exact())
    assert np.all(shares >= 0.935), shares


def test_statsmodels_is_imported_in_one_file():
    package = Path(bygones.__file__).parent
    importing = [f.name for f in package.rglob("*.py") if "import statsmodels" in f.read_text()]
    importing += [f.name for f in package.rglob("*.py") if "from statsmodels" in f.read_text()]
    assert importing == ["statsmodels_bridge.py"]
