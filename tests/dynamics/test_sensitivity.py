"""Sensitivity of a study: stored, resumed, and held against true effects."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from tests.dynamics.test_linear import network
from torch import Tensor

import bygones
from bygones.core.errors import DesignError, TangentError
from bygones.core.values import Window
from bygones.dynamics.sensitivity import jobs_of, sensitivity
from bygones.store import MemoryStore
from bygones.study.design import Arm, Study
from bygones.training.interventions import Nudge
from bygones.training.recipe import Recipe
from bygones.training.treatment import Treatment
from bygones.zoo.worlds import heavy_ball

room = importlib.import_module("bygones.dynamics.sensitivity")


def study(recipe: object, seeds: int = 3) -> Study:
    arm = Arm("nudge", Treatment("weights", Nudge(0.01), Window(4, 5)))
    return Study(recipe, [arm], fork_at=4, horizons=(8,), seeds=range(seeds), name="small")  # type: ignore[arg-type]


def total(parts: bygones.Parts) -> Tensor:
    return parts.model.get_parameter("w").sum()


def test_a_linear_world_is_predicted_exactly_and_stored() -> None:
    store = MemoryStore()
    found = sensitivity(study(heavy_ball.recipe), store, num_cells=3, outcome=total)
    assert found.dependence.shape == (3, 2, 9)
    assert found.error < 1e-9
    assert found.slope == pytest.approx(1.0, abs=1e-9)
    assert found.rank == 1.0
    assert found.left_out == ("scheduler", "gradients", "order", "streams")
    done: list[int] = []
    again = sensitivity(
        study(heavy_ball.recipe), store, num_cells=3, outcome=total, on_job=done.append
    )
    assert done == []
    np.testing.assert_array_equal(again.dependence, found.dependence)
    assert again.cells == found.cells
    more = sensitivity(
        study(heavy_ball.recipe, 4), store, num_cells=3, outcome=total, on_job=done.append
    )
    assert done == [3]
    assert more.cells[: len(found.cells)] == found.cells


def test_a_seed_that_was_stopped_goes_on_with_its_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    store, measure_cell, measured = MemoryStore(), room.measure_cell, []

    def stopping(*args: object) -> float:
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(args)
        return measure_cell(*args)  # type: ignore[arg-type]

    one = study(heavy_ball.recipe, 1)
    monkeypatch.setattr(room, "measure_cell", stopping)
    with pytest.raises(KeyboardInterrupt):
        sensitivity(one, store, num_cells=4, outcome=total)
    monkeypatch.setattr(room, "measure_cell", measure_cell)
    monkeypatch.setattr(room, "adjoint", None)  # the map is stored
    found = sensitivity(one, store, num_cells=4, outcome=total)
    assert len(found.cells) == 4
    assert found.error < 1e-9


@pytest.mark.long
def test_a_network_is_mapped_with_intervals() -> None:
    found = sensitivity(study(network), num_cells=4)
    value, low, high = found.intervals()
    assert (low <= value).all()
    assert (value <= high).all()
    assert found.error < 0.5
    assert found.mean_square().estimate.num_pairs == 3
    said = str(found)
    assert "tangent error" in said
    assert "no arrays of floats: scheduler, gradients, order, streams" in said


def test_a_recipe_that_cannot_be_differentiated_is_refused() -> None:
    with pytest.raises(TangentError, match="a number is taken out of a tensor"):
        sensitivity(study(Recipe.of(network, step="item")), num_cells=1)


def test_steps_and_sizes_are_checked() -> None:
    for settings, words in ({"start": 12}, "from 1 to 11"), ({"size": 1.5}, "between 0 and 1"):
        with pytest.raises(DesignError, match=words):
            jobs_of(study(network), MemoryStore(), **{"num_cells": 1, "size": 0.01, **settings})
