"""The published signature of rehearsal: without it the old task is forgotten, with it most is kept."""

from __future__ import annotations

import numpy as np
import pytest

from bygones.core.values import Window
from bygones.training.interventions import Replace
from bygones.training.probes import Logits
from bygones.training.recipe import Recipe
from bygones.training.run import Run
from bygones.training.treatment import Treatment
from bygones.zoo.regimes import continual
from bygones.zoo.regimes.continual import BATCH_SIZE, BOUNDARY, FIRST_NEW

NO_REHEARSAL = Treatment("rehearsal", Replace({"rate": 0.0}), Window(BOUNDARY, 2 * BOUNDARY))


def forgetting(seed: int, steps: int) -> tuple[float, float]:
    """Loss of accuracy on the old task, `steps` after the boundary: with rehearsal, and without."""
    run = Run(continual.recipe, seed)
    run.advance(BOUNDARY)
    fork = run.snapshot()
    lost = []
    for treatments in ([], [NO_REHEARSAL]):
        run.restore(fork)
        before = accuracy(run)
        run.advance(BOUNDARY + steps, treatments)
        lost.append(before - accuracy(run))
    return lost[0], lost[1]


def accuracy(run: Run) -> float:
    assert run.parts.probe_set is not None
    read = run.observe(Logits(), check=False).argmax(axis=1)
    return float((read == run.parts.probe_set[1].numpy()).mean())


def test_rehearsal_removes_most_of_the_forgetting():
    with_it, without = forgetting(0, 60)
    assert without > 0.5
    assert with_it < 0.3 * without


@pytest.mark.long
def test_rehearsal_removes_most_of_the_forgetting_of_every_seed():
    for seed in range(6):
        with_it, without = forgetting(seed, BOUNDARY)
        assert without > 0.8
        assert with_it < 0.3 * without


def test_the_reservoir_keeps_every_example_seen_with_the_same_probability():
    """After 20 steps 640 examples were seen for 100 places: old and late ones are kept alike."""
    ages = []
    for seed in range(6):
        run = Run(continual.recipe, seed)
        rows: list[np.ndarray] = []
        run.advance(
            20,
            at_boundary=lambda r, rows=rows: rows.append(
                r.parts.order.rows(r.parts.cursor.key, r.step)
            ),
        )
        kept = run.parts.others["reservoir"].value["images"]
        shown = run.parts.data[0][np.concatenate(rows)]
        places = [int((shown == image).all(dim=1).nonzero()[0, 0]) for image in kept]
        assert run.parts.others["seen"]["count"] == 20 * BATCH_SIZE
        assert len(places) == 100
        ages += [place / (20 * BATCH_SIZE) for place in places]
    # 600 uniform numbers have a mean with a standard error of 0.012; five of them are allowed.
    assert abs(np.mean(ages) - 0.5) < 0.06


def test_the_second_task_shows_only_new_classes():
    run = Run(Recipe.of(continual.recipe), 0)
    labels = run.parts.data[1].numpy()
    for step, new in ((0, False), (BOUNDARY - 1, False), (BOUNDARY, True)):
        shown = labels[run.parts.order.rows(run.parts.cursor.key, step)]
        assert np.all((shown >= FIRST_NEW) == new)
