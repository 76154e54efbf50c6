"""Representations: features of a layer leave no trace, and what their distances do not mind.

Shapes: N inputs, D features.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from tests.helpers.study_recipes import classifier, small
from torch import nn

from bygones.analysis.effects import all_effects
from bygones.analysis.metrics import DISTANCES
from bygones.core.errors import DesignError, RecipeError, UnknownName
from bygones.core.values import Window
from bygones.study.design import Arm, Study
from bygones.study.measure import measure
from bygones.training.interventions import Reset
from bygones.training.probes import Features
from bygones.training.recipe import Parts
from bygones.training.run import Run
from bygones.training.treatment import Treatment
from bygones.zoo.regimes import digits

REPRESENTATION = ["cka", "procrustes", "rsa"]
every = pytest.mark.parametrize("name", REPRESENTATION)
N, D = 30, 6


def features(seed: int, shape=(N, D)) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def rotation(seed: int, size: int = D) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))[0]


# ------------------------------------------------------------------ the probe


def test_features_are_those_of_the_layer_and_leave_no_trace():
    run = Run(classifier, 0)
    run.advance(3)
    before = run.snapshot().digest()
    hooks = [len(m._forward_hooks) for m in run.parts.model.modules()]
    random = torch.get_rng_state()
    found = run.observe(Features("2"))
    assert run.parts.probe_set is not None
    model, inputs = run.parts.model, run.parts.probe_set[0]
    assert model.training
    model.eval()
    with torch.no_grad():
        expected = inputs
        for layer in list(model.children())[:3]:
            expected = layer(expected)
    model.train()
    assert found.shape == (6, 6)
    assert np.array_equal(found, expected.numpy())
    assert run.snapshot().digest() == before
    assert [len(m._forward_hooks) for m in model.modules()] == hooks
    assert torch.equal(torch.get_rng_state(), random)


def test_a_run_that_is_observed_goes_on_as_one_that_is_not():
    watched, alone = Run(classifier, 0), Run(classifier, 0)
    seen = []
    watched.advance(8, at_boundary=lambda run: seen.append(run.observe(Features("1"))))
    alone.advance(8)
    assert watched.snapshot().digest() == alone.snapshot().digest()


def parts_of(model: nn.Module) -> Parts:
    parts = classifier(0)
    parts.model = model
    return parts


class Fails(nn.Module):
    def forward(self, inputs):
        raise ValueError("no")


def test_the_hook_is_taken_off_also_when_the_model_raises():
    model = nn.Sequential(nn.Linear(5, 4), Fails())
    with pytest.raises(ValueError, match="no"):
        Features("0")(parts_of(model))
    assert not any(m._forward_hooks for m in model.modules())


class Narrow(nn.Module):
    def forward(self, inputs):
        return inputs.bfloat16()


def test_wide_layers_are_flat_and_narrow_numbers_stay_numbers():
    model = nn.Sequential(nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 2, 3), nn.Flatten())
    assert Features("1")(parts_of(model)).shape == (6, 6)
    found = Features("0")(parts_of(nn.Sequential(Narrow())))
    assert found.dtype == np.float32
    assert np.isfinite(found).all()


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared = nn.Linear(5, 5)

    def forward(self, inputs):
        return self.shared(self.shared(inputs))


class Pair(nn.Module):
    def forward(self, inputs):
        return inputs, inputs


class First(nn.Module):
    def forward(self, inputs):
        return inputs[0]


def test_what_is_no_representation_is_refused():
    with pytest.raises(UnknownName, match=r"no layer called '7'.*Known: 0, 1, 2, 3, 4"):
        Features("7")(classifier(0))
    with pytest.raises(RecipeError, match="called 2 times"):
        Features("shared")(parts_of(Twice()))
    with pytest.raises(RecipeError, match="it gave a tuple"):
        Features("0")(parts_of(nn.Sequential(Pair(), First())))
    with pytest.raises(RecipeError, match="a row for each of the 6 probe inputs"):
        Features("0")(parts_of(nn.Sequential(nn.Flatten(0))))
    blind = classifier(0)
    blind.probe_set = None
    with pytest.raises(RecipeError, match="no probe_set"):
        Features("0")(blind)


# ------------------------------------------------------------------ what the distances do not mind


@every
@pytest.mark.parametrize("width", [D, 3 * N])  # fewer features than inputs, and more
def test_a_turned_scaled_and_moved_representation_is_the_same(name, width):
    x = features(0, (N, width))
    turned = -3.0 * x @ rotation(1, width) + features(2, (1, width))
    assert DISTANCES[name](x, turned) == pytest.approx(0.0, abs=1e-7)
    y = features(3, (N, width))
    assert DISTANCES[name](turned, y) == pytest.approx(float(DISTANCES[name](x, y)), rel=1e-9)


@every
def test_another_stretch_of_the_features_is_not(name):
    x = features(0)
    stretched = x * np.array([5.0, 1.0, 1.0, 1.0, 1.0, 0.2])
    assert DISTANCES[name](x, stretched) > 0.05
    sheared = x + 2.0 * x[:, [1]]
    assert DISTANCES[name](x, sheared) > 0.05
    # … and which input is which matters.
    assert DISTANCES[name](x, x[::-1]) > 0.3


@every
def test_small_changes_are_small_and_not_lost_in_rounding(name):
    x, direction = features(0), features(1)
    sizes = [float(DISTANCES[name](x, x + size * direction)) for size in (1e-3, 1e-5)]
    power = 1.0 if name == "procrustes" else 2.0  # the others are squares of metrics
    assert sizes[0] / sizes[1] == pytest.approx(100.0**power, rel=0.02)


@every
def test_a_representation_without_shape(name):
    x, dead = features(0), np.full((N, D), 0.1)
    assert DISTANCES[name](dead, dead.copy()) == 0.0
    assert DISTANCES[name](dead, dead + 1.0) == 0.0
    assert DISTANCES[name](x, dead) == pytest.approx(1.0)  # nothing to align with


def test_fewer_inputs_than_it_takes_are_refused():
    with pytest.raises(DesignError, match="at least 4 probe inputs; got 3"):
        DISTANCES["cka"](features(0, (3, D)), features(1, (3, D)))
    with pytest.raises(DesignError, match="at least 3 probe inputs; got 2"):
        DISTANCES["rsa"](features(0, (2, D)), features(1, (2, D)))


def test_debiased_cka_is_unbiased_by_the_statistic_over_quadruples():
    """E k l + E k E l − 2 E k_ij l_iq, each mean over inputs that are all different."""
    n = 7
    x, y = features(0, (n, 3)), features(1, (n, 3))

    def hsic(k, low):
        pairs = np.mean([k[i, j] * low[i, j] for i, j in itertools.permutations(range(n), 2)])
        triples = np.mean([k[i, j] * low[i, q] for i, j, q in itertools.permutations(range(n), 3)])
        fours = np.mean([k[i, j] * low[q, r] for i, j, q, r in itertools.permutations(range(n), 4)])
        return pairs + fours - 2.0 * triples

    k, low = x @ x.T, y @ y.T
    cka = hsic(k, low) / np.sqrt(hsic(k, k) * hsic(low, low))
    assert DISTANCES["cka"](x, y) == pytest.approx(1.0 - cka, rel=1e-10)


def test_unrelated_wide_features_are_not_taken_for_alike():
    """With 20 features an input, plain CKA calls noise alike; the debiased one does not."""
    x, y = (features(seed, (200, N, 20 * N)) for seed in range(2))
    debiased = 1.0 - DISTANCES["cka"](x, y)
    assert abs(debiased.mean()) < 4 * debiased.std() / np.sqrt(200)
    centred = [a - a.mean(axis=1, keepdims=True) for a in (x, y)]
    k, low = (a @ a.transpose(0, 2, 1) for a in centred)
    plain = (k * low).sum((1, 2)) / np.sqrt((k**2).sum((1, 2)) * (low**2).sum((1, 2)))
    assert plain.mean() > 0.9


def test_procrustes_is_the_best_of_many_rotations():
    x, y = features(0, (N, 2)), features(1, (N, 2))
    a, b = ((v - v.mean(0)) / np.linalg.norm(v - v.mean(0)) for v in (x, y))
    tried = []
    for angle in np.linspace(0.0, 2 * np.pi, 2001):
        c, s = np.cos(angle), np.sin(angle)
        for flip in (1.0, -1.0):
            tried.append(np.linalg.norm(a - b @ np.array([[c, -s * flip], [s, c * flip]])))
    found = float(DISTANCES["procrustes"](x, y))
    assert found <= min(tried)
    assert found == pytest.approx(min(tried), abs=1e-5)


# ------------------------------------------------------------------ a study of a layer


def digits_seen_by_few(seed: int) -> Parts:
    """The digits regime with fewer probe inputs than the layer has features."""
    parts = digits.recipe(seed)
    assert parts.probe_set is not None
    inputs, labels = parts.probe_set
    parts.probe_set, parts.probe_images = (inputs[:100], labels[:100]), None
    return parts


def test_a_layers_effect_comes_with_all_its_references():
    pytest.importorskip("sklearn")
    study = Study(
        digits_seen_by_few,
        [Arm("reset batchnorm", Treatment("batchnorm", Reset(), Window(40, 41)))],
        fork_at=40,
        horizons=(0, 5),
        seeds=(0, 1, 2),
        probe=Features("3"),
        name="layer 3",
    )
    outcomes = measure(study)
    assert outcomes["values"].sizes["class"] == 128
    effects = {metric: all_effects(outcomes, metrics=(metric,)) for metric in REPRESENTATION}
    for metric in REPRESENTATION:
        for found in effects[metric]:
            assert found.floor is not None
            assert (found.floor.value, found.floor.low, found.floor.high) == (0.0, 0.0, 0.0)
            assert found.null is not None
            assert found.excess is not None
            assert found.ceiling is not None
            assert 0.0 < found.estimate.value < found.ceiling.value
            assert "doing nothing (sham) moves it by exactly 0" in str(found)
    first, later = effects["cka"]
    assert "CKA distance at step 40, 0 steps on" in str(first)
    assert later.estimate.value < first.estimate.value  # the buffers are filled again


def test_a_study_by_name_of_layer_runs_and_is_its_own():
    study = small(("reset",), seeds=(0, 1), horizons=(0, 3), probe=Features("2"))
    outcomes = measure(study)
    assert outcomes["values"].shape == (2, 4, 2, 6, 6)
    assert study.digest() != small(("reset",), probe=Features("1")).digest()
