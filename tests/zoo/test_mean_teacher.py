"""The published signature of the mean teacher: a decay between none and frozen is best."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bygones.core.values import Window
from bygones.training.interventions import Reset
from bygones.training.probes import Logits
from bygones.training.recipe import Recipe
from bygones.training.run import Run
from bygones.training.treatment import Treatment
from bygones.zoo.regimes import mean_teacher

STEPS = 400


def accuracies(of: str, seeds: range, **settings: float) -> np.ndarray:
    found = []
    for seed in seeds:
        run = Run(Recipe.of(mean_teacher.recipe, **settings), seed)
        run.advance(STEPS)
        assert run.parts.probe_set is not None
        right = (
            run.observe(Logits(of), check=False).argmax(axis=1) == run.parts.probe_set[1].numpy()
        )
        found.append(right.mean())
    return np.array(found)


def test_a_teacher_of_decay_095_is_better_than_the_student_as_its_own_teacher_and_a_frozen_one():
    """The frozen teacher itself is at chance, so its student counts. Tarvainen & Valpola 2017, figure 4."""
    between = accuracies("teacher", range(1))
    assert between.min() > accuracies("teacher", range(1), decay=0.0).max() + 0.02
    assert between.min() > accuracies("model", range(1), frozen=True).max() + 0.02


@pytest.mark.long
def test_the_order_of_the_decays_holds_over_seeds():
    """Paired over 8 seeds, with the 95 % interval of Student's t (2.365 for 7 degrees of freedom)."""
    seeds = range(8)
    between = accuracies("teacher", seeds)
    for other in (
        accuracies("teacher", seeds, decay=0.0),
        accuracies("model", seeds, frozen=True),
    ):
        apart = between - other
        assert apart.mean() - 2.365 * apart.std(ddof=1) / np.sqrt(len(seeds)) > 0


def test_the_teacher_is_the_mean_that_its_counter_says():
    """With decay 1 and a new counter it is the plain mean of all students so far."""
    run = Run(Recipe.of(mean_teacher.recipe, decay=1.0), 0)
    students: list[torch.Tensor] = []
    for step in range(1, 5):
        run.advance(step)
        students.append(
            torch.nn.utils.parameters_to_vector(run.parts.model.parameters()).detach().clone()
        )
    teacher = torch.nn.utils.parameters_to_vector(run.parts.others["teacher"].value.parameters())
    torch.testing.assert_close(teacher, torch.stack(students).mean(dim=0))


def test_a_reset_counter_makes_the_teacher_follow_at_once():
    run = Run(mean_teacher.recipe, 0)
    run.advance(20)
    run.advance(21, [Treatment("updates", Reset(), Window(20, 21))])
    teacher = run.parts.others["teacher"].value
    assert all(
        torch.equal(slow, now)
        for slow, now in zip(teacher.parameters(), run.parts.model.parameters(), strict=True)
    )
