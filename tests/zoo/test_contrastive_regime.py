"""Momentum contrast: a slow key encoder works, none does not, and a queue forgets after ceil(K/B) steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bygones.core.values import Window
from bygones.training.interventions import Reset
from bygones.training.probes import Carrier
from bygones.training.recipe import Recipe
from bygones.training.run import Run
from bygones.training.treatment import Treatment
from bygones.zoo.regimes import contrastive
from bygones.zoo.regimes.contrastive import BATCH_SIZE, Neighbours

AT = 6


def accuracy(run: Run) -> float:
    assert run.parts.probe_set is not None
    read = run.observe(Neighbours(), check=False).argmax(axis=1)
    return float((read == run.parts.probe_set[1].numpy()).mean())


def gains(momentum: float, seeds: range, steps: int) -> np.ndarray:
    """Accuracy of the read-out after training minus that of the encoder as built, by seed."""
    gained = []
    for seed in seeds:
        run = Run(Recipe.of(contrastive.recipe, momentum=momentum), seed)
        built = accuracy(run)
        run.advance(steps)
        gained.append(accuracy(run) - built)
    return np.array(gained)


def test_a_slow_key_encoder_keeps_features_that_one_without_momentum_loses():
    """After 150 steps, when the encoder without momentum is worst (He et al. 2020, table of section 4.1)."""
    slow, none = (gains(momentum, range(2), 150) for momentum in (0.99, 0.0))
    assert (slow - none).min() > 0.02


@pytest.mark.long
def test_momentum_0_ends_below_the_encoder_as_built_and_099_above_it():
    slow, none = (gains(momentum, range(8), 600) for momentum in (0.99, 0.0))
    margin = 2.365 / 8**0.5  # Student's t for 7 degrees of freedom, over the root of 8 seeds
    assert none.mean() + margin * none.std(ddof=1) < 0
    assert slow.mean() - margin * slow.std(ddof=1) > 0
    apart = slow - none
    assert apart.mean() - margin * apart.std(ddof=1) > 0.02


@pytest.mark.parametrize(("size", "steps"), [(4 * BATCH_SIZE, 4), (4 * BATCH_SIZE + 3, 5)])
def test_the_carrier_of_a_reset_queue_is_gone_after_exactly_its_length_over_the_batch(size, steps):
    """With weights that do not move, the two queues are equal then and not a step before."""
    recipe = Recipe.of(contrastive.recipe, queue_size=size, lr=0.0)
    control, treated = Run(recipe, 0), Run(recipe, 0)
    gaps = []
    for run in (control, treated):
        run.advance(AT)
    treated.intervene([Treatment("queue", Reset(), Window(AT, AT + 1))])
    for step in range(AT, AT + 7):
        pair = [run.observe(Carrier("queue"), check=False) for run in (control, treated)]
        gaps.append(float(np.abs(pair[0] - pair[1]).max()))
        for run in (control, treated):
            run.advance(step + 1)
    assert [gap > 0 for gap in gaps] == [place < steps for place in range(7)]
    lifetime = treated.sources["queue"].lifetime()
    assert (lifetime.kind, lifetime.steps) == ("exact", steps)


def test_the_effect_of_a_reset_queue_outlives_the_queue():
    """Five times the queue's lifetime later, the features still differ: the weights have taken it over."""
    control, treated = Run(contrastive.recipe, 0), Run(contrastive.recipe, 0)
    reset = [Treatment("queue", Reset(), Window(AT, AT + 1))]
    control.advance(AT + 20)
    treated.advance(AT + 20, reset)
    moved = [
        torch.nn.utils.parameters_to_vector(r.parts.model.parameters()) for r in (control, treated)
    ]
    assert (moved[0] - moved[1]).norm() > 1e-3 * moved[0].norm()


def test_keys_are_written_around_the_end_of_the_queue():
    """K = 4B + 3: the fifth batch wraps around, and the pointer stands where it ended."""
    run = Run(Recipe.of(contrastive.recipe, queue_size=4 * BATCH_SIZE + 3), 0)
    run.advance(4)
    before = run.sources["queue"].capture()["value"]
    run.advance(5)
    after = run.sources["queue"].capture()["value"]
    changed = (before != after).any(dim=1).nonzero().flatten().tolist()
    assert changed == [*range(BATCH_SIZE - 3), *range(4 * BATCH_SIZE, 4 * BATCH_SIZE + 3)]
    assert run.sources["pointer"].capture()["at"] == BATCH_SIZE - 3
    torch.testing.assert_close(after.norm(dim=1), torch.ones(len(after)))


def test_a_key_encoder_without_momentum_is_the_encoder_before_its_last_update():
    run = Run(Recipe.of(contrastive.recipe, momentum=0.0), 0)
    run.advance(3)
    before = torch.nn.utils.parameters_to_vector(run.parts.model.parameters()).detach().clone()
    run.advance(4)
    slow = torch.nn.utils.parameters_to_vector(run.parts.others["key encoder"].value.parameters())
    assert torch.equal(slow, before)
