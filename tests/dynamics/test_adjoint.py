"""Adjoint maps: predicted effects of nudges against true ones, and the closed form of their mean square."""

import math

import numpy as np
import pytest
from tests.dynamics.test_linear import network
from torch import Tensor

import bygones
from bygones.core.errors import DesignError
from bygones.dynamics.adjoint import Boundaries, adjoint, measure_cell, nudged, probe_loss, rows_of
from bygones.dynamics.linear.reverse import gradient_of
from bygones.dynamics.linear.vectors import dot, vector_of
from bygones.training.interventions import Nudge
from bygones.training.recipe import Recipe
from bygones.training.run import Run
from bygones.zoo.worlds import heavy_ball

ADAM = Recipe.of(network, optimizer="Adam", settings=(("lr", 0.01),))


def distance(parts: bygones.Parts) -> Tensor:
    return parts.model.get_parameter("w").sum()


@pytest.mark.parametrize("most_bytes", [0, 10**9])
def test_in_a_linear_world_every_prediction_is_the_effect(most_bytes: int) -> None:
    run = Run(heavy_ball.recipe, seed=0)
    run.advance(2)
    boundaries = Boundaries(run, 18, most_bytes)
    cells = [(row, step) for row in ("weights", "moments/momentum_buffer") for step in (2, 9, 17)]
    found = adjoint(run, 18, distance, size=0.1, cells=cells, boundaries=boundaries)
    assert len(found.cells) == 6
    for cell in found.cells:
        effect = measure_cell(run, boundaries, cell, distance, 0.1, found.outcome)
        assert cell.predicted == pytest.approx(effect, rel=1e-9)


def test_a_small_nudge_of_a_network_has_the_effect_that_is_predicted():
    run = Run(ADAM, seed=0)
    run.advance(5)
    boundaries = Boundaries(run, 20)
    rows = rows_of(boundaries[20])
    assert rows == [
        "weights",
        "moments/exp_avg",
        "moments/exp_avg_sq",
        "batchnorm/running_mean",
        "batchnorm/running_var",
        "averages",
        "shift",
    ]
    cells = [(row, 8) for row in rows]
    found = adjoint(run, 20, probe_loss, size=1e-2, cells=cells, boundaries=boundaries)
    pairs = [
        (c.predicted, measure_cell(run, boundaries, c, probe_loss, 1e-2, found.outcome))
        for c in found.cells
    ]
    predicted, measured = np.array(pairs).T
    # Averages and `shift` (a constant here) do not feed back into the model, nor into its loss.
    np.testing.assert_array_equal(predicted[5:], 0.0)
    np.testing.assert_array_equal(measured[5:], 0.0)
    np.testing.assert_allclose(predicted[:5], measured[:5], rtol=0.1, atol=2e-7)
    assert (found.dependence[:5, 3] > 0).all()


def test_dependence_is_the_rms_over_directions():
    run = Run(network, seed=0)
    run.advance(6)
    start = run.snapshot()
    _, gradient = gradient_of(run, start, probe_loss)
    found = adjoint(run, 6, probe_loss, size=0.01)
    for number, row in enumerate(found.rows):
        draws = []
        for draw in range(300):
            run.restore(start)
            state = run.sources[row.partition("/")[0]].capture()
            chosen = {n: x for n, x in state.items() if row.partition("/")[2] in n}
            moved = Nudge(0.01)(chosen, Draws(draw))  # type: ignore[arg-type]
            source = row.partition("/")[0]
            gap = {
                source: {
                    n: moved[n] - x for n, x in vector_of({source: chosen}).get(source, {}).items()
                }
            }
            draws.append(dot(gradient.vector, gap))
        rms = math.sqrt(np.mean(np.square(draws)))
        assert rms == pytest.approx(found.dependence[number, 0], rel=0.2, abs=1e-12)


class Draws:
    """What a nudge reads at a boundary: a generator."""

    def __init__(self, draw: int) -> None:
        self.rng = np.random.default_rng(draw)


def test_a_recipe_without_a_classifiers_probe_set_needs_an_outcome():
    run = Run(heavy_ball.recipe, seed=0)
    with pytest.raises(DesignError, match="Give another outcome"):
        adjoint(run, 2)


def test_a_nudge_moves_its_row_alone():
    run = Run(ADAM, seed=0)
    run.advance(5)
    moves = nudged(run, run.snapshot(), "moments/exp_avg", 0.01)
    moved = {
        (source, name.rpartition("/")[2])
        for source, v in moves.items()
        for name, x in v.items()
        if x.any()
    }
    assert moved == {("moments", "exp_avg")}
