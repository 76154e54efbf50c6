"""Barriers between two arms: closed forms of a convex loss and of a double well, and a stored study."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.helpers.study_recipes import at, classifier, one, plain
from torch import Tensor, nn

from bygones.analysis.effects import per_seed
from bygones.core.errors import DesignError, StoreError, UnknownName
from bygones.dynamics.barrier import barrier, height, losses_on_line, recompute_batchnorm
from bygones.store import MemoryStore
from bygones.study.design import Study
from bygones.study.measure import measure
from bygones.training.interventions import Reset


class Point(nn.Module):
    """A model that is its own weights."""

    def __init__(self, *start: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(start, dtype=torch.float64))


def at_place(*place: float) -> dict[str, Tensor]:
    return {"w": torch.tensor(place, dtype=torch.float64)}


def double_well(model: nn.Module) -> tuple[float, float]:
    """(w² − 1)²: minima at ±1, the ridge of height 1 at 0."""
    (w,) = model.parameters()
    return float((w[0] ** 2 - 1) ** 2), 0.0


def bowl(model: nn.Module) -> tuple[float, float]:
    (w,) = model.parameters()
    return float((w**2).sum()), 0.0


def test_a_double_well_has_its_closed_form():
    line = losses_on_line(Point(0.3), at_place(-1.0), at_place(1.0), double_well, num_points=21)
    alpha = np.linspace(0, 1, 21)
    np.testing.assert_allclose(line[:, 0], ((2 * alpha - 1) ** 2 - 1) ** 2, atol=1e-15)
    assert height(line)[0] == pytest.approx(1.0, abs=1e-15)
    # Off the minima: ends at ±1/2 lie at 9/16, and the ridge at 1.
    line = losses_on_line(Point(0.3), at_place(-0.5), at_place(0.5), double_well)
    assert height(line)[0] == pytest.approx(7 / 16, abs=1e-15)


def test_a_convex_loss_has_no_barrier_but_half_the_difference_of_its_ends():
    rng = np.random.default_rng(0)
    for _ in range(20):
        ends = rng.standard_normal((2, 3))
        ends /= np.linalg.norm(ends, axis=1, keepdims=True)
        line = losses_on_line(Point(0, 0, 0), at_place(*ends[0]), at_place(*ends[1]), bowl)
        assert abs(height(line)[0]) < 1e-12
    line = losses_on_line(Point(0.0), at_place(1.0), at_place(2.0), bowl)
    assert height(line)[0] == pytest.approx(1.5, abs=1e-12)


def test_a_model_is_left_as_it_was_and_ends_are_exact():
    model = Point(0.3)
    line = losses_on_line(model, at_place(0.1), at_place(0.7), bowl)
    assert float(model.w.detach()) == 0.3
    assert line[0, 0] == 0.1**2
    assert line[-1, 0] == 0.7**2
    with pytest.raises(DesignError, match="two ends or more"):
        losses_on_line(model, at_place(0.1), at_place(0.7), bowl, num_points=1)


def test_batchnorm_takes_the_statistics_of_the_data():
    torch.manual_seed(0)
    model, data = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), torch.randn(200, 3)
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm1d)
    with torch.no_grad():
        recompute_batchnorm(model, data)
        seen = model[0](data)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    np.testing.assert_allclose(norm.running_mean.numpy(), seen.mean(dim=0).numpy(), atol=1e-6)
    np.testing.assert_allclose(norm.running_var.numpy(), seen.var(dim=0).numpy(), rtol=1e-5)
    assert norm.momentum == 0.1


STORE = MemoryStore()
LINEAR = Study(
    plain, [one("reset", Reset(), at(4))], fork_at=4, horizons=(1, 9), seeds=range(3), name="linear"
)


def test_the_ends_are_the_losses_of_the_arms_and_a_linear_classifier_has_no_ridge():
    outcomes = measure(LINEAR, STORE)
    found = barrier(LINEAR, STORE, "reset")
    apart = per_seed(outcomes, "nll", "reset").values[:, -1]
    ends = found.on_line[:, [0, -1], 0]
    np.testing.assert_allclose(ends[:, 0] - ends[:, 1], apart, atol=1e-6)
    heights = np.array([height(line)[0] for line in found.on_line])
    np.testing.assert_allclose(heights, 0.5 * np.abs(apart), atol=1e-6)
    assert found.rise.loss.value == pytest.approx(heights.mean())
    assert found.step == 13
    assert str(found).startswith("Between reset and control at step 13 the line rises above ")
    line = barrier(LINEAR, STORE, "control", "control", on="train", num_points=3).on_line
    np.testing.assert_array_equal(line[:, 0], line[:, 1])


def test_a_barrier_has_the_null_of_its_arm_and_two_seeds_beside_it():
    measure(LINEAR, STORE)
    found = barrier(LINEAR, STORE, "reset")
    assert found.null is not None
    assert found.ceiling is not None
    of_null = barrier(LINEAR, STORE, "null of reset")
    assert found.null == of_null.rise
    assert of_null.null is None
    assert (found.null.loss.num_pairs, found.ceiling.loss.num_pairs) == (3, 1)
    # Of a linear classifier the ceiling is half the difference of the two controls' losses, too.
    nll = [barrier(LINEAR, STORE, "control").on_line[seed, 0, 0] for seed in (0, 1)]
    assert found.ceiling.loss.value == pytest.approx(0.5 * abs(nll[0] - nll[1]), abs=1e-6)
    assert "its matched null by" in str(found)
    assert "two seeds by" in str(found)
    assert "(1 pair)" in str(found)


def test_a_network_with_batchnorm_is_judged_on_its_own_statistics():
    study = Study(
        classifier,
        [one("reset", Reset(), at(4))],
        fork_at=4,
        horizons=(9,),
        seeds=(0, 1),
        name="bn",
    )
    store = MemoryStore()
    measure(study, store)
    found = barrier(study, store, "reset", on="train")
    assert np.isfinite(found.on_line).all()
    assert found.on_line.shape == (2, 11, 2)
    assert (found.on_line[:, :, 1] <= 1).all()


def test_what_is_not_stored_is_said():
    with pytest.raises(StoreError, match="is not in this store"):
        barrier(LINEAR, MemoryStore(), "reset")
    with pytest.raises(UnknownName):
        barrier(LINEAR, MemoryStore(), "rest")
    with pytest.raises(DesignError, match="'probe' set or on the 'train'"):
        barrier(LINEAR, MemoryStore(), "reset", on="test")
