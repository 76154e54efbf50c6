"""Studies of a carrier: its outcomes are read back, and a reset is seen at horizon 0."""

import numpy as np
import pytest
import torch
from tests.helpers.study_recipes import classifier

from bygones.core.values import Window
from bygones.dynamics import CarrierHalfLife
from bygones.study.design import Arm, Study
from bygones.study.measure import measure
from bygones.training.interventions import Reset
from bygones.training.probes import Carrier, Logits
from bygones.training.recipe import Parts, Recipe
from bygones.training.run import Run
from bygones.training.treatment import Treatment


def pictured(seed: int) -> Parts:
    """A recipe with heavy-ball momentum, and with labels and pictures of its probe inputs."""
    parts = classifier(seed)
    parts.optimizer = torch.optim.SGD(parts.model.parameters(), lr=0.05, momentum=0.9)
    assert parts.probe_set is not None
    inputs, _ = parts.probe_set
    parts.probe_images = inputs[:, :4].reshape(-1, 2, 2)
    return parts


def reset_moments(probe: object, horizons: tuple[int, ...] = (0, 2)) -> Study:
    arm = Arm("reset", Treatment("moments", Reset(), Window(4, 5)))
    return Study(pictured, [arm], fork_at=4, horizons=horizons, seeds=range(2), probe=probe)


@pytest.mark.parametrize("lanes", [1, 4])
def test_a_reset_buffer_is_zero_at_horizon_0_and_the_controls_is_its_own(lanes: int):
    outcomes = measure(reset_moments(Carrier("moments")), lanes=lanes)
    assert "images" not in outcomes
    assert "labels" not in outcomes
    values = outcomes["values"].values[:, :, :, 0]
    names = outcomes["arm"].values.tolist()
    assert not values[:, names.index("reset"), 0].any()
    assert values[:, names.index("reset"), 1].any()
    if lanes > 1:
        return
    run = Run(Recipe.of(pictured), 1)
    run.advance(4)
    state = run.sources["moments"].capture()
    own = np.concatenate([state[name].numpy().reshape(-1) for name in sorted(state)])
    np.testing.assert_array_equal(values[1, names.index("control"), 0], own.astype(np.float64))


def test_pictures_and_labels_stay_with_the_inputs_that_they_are_of():
    outcomes = measure(reset_moments(Logits()))
    assert outcomes["images"].sizes["input"] == outcomes["logits"].sizes["input"]
    assert "labels" in outcomes


def test_a_half_life_may_be_asked_from_the_reset_on():
    quantity = CarrierHalfLife("moments", horizons=(0, 1, 3))
    found = quantity.estimate(measure(quantity.design(Recipe.of(pictured), 4, range(3))))
    assert found.num_pairs == 3
