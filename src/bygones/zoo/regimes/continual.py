"""Continual learning on split digits: 0 to 4 and then 5 to 9, with a rehearsal reservoir.

    loss = cross-entropy on the batch of the present task
           + rate · cross-entropy on as many examples drawn from the reservoir

Reservoir sampling keeps each example seen so far with the same probability: the n-th one replaces a random
place with probability size/n. Its content, its count n and its stream of draws are memory. What is
observed is the accuracy on the *old* task, so an arm's effect on it is minus its effect on forgetting:

    forgetting = accuracy at the end of the first task - accuracy now,   both on the first task's test images

Vitter 1985 (doi:10.1145/3147.3165), algorithm R; Chaudhry et al. 2019 (arXiv:1902.10486).
"""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from bygones.analysis.effects import estimator_of
from bygones.analysis.signature import Signature, effect_at, is_above, score_per_seed
from bygones.core.study_facts import facts_of
from bygones.core.values import Window
from bygones.study.design import Arm, Study
from bygones.training.interventions import Permute, Replace, Reset, Transplant
from bygones.training.orders import Blocked
from bygones.training.recipe import Batch, Memory, Parts
from bygones.training.treatment import Treatment
from bygones.zoo.digit_images import NUM_TRAIN, load_digit_images

BATCH_SIZE = 32
BOUNDARY = 150  # steps in each task
FIRST_NEW = 5  # the first class of the second task


def recipe(
    seed: int, lr: float = 0.05, momentum: float = 0.9, size: int = 100, rate: float = 1.0
) -> Parts:
    """Build an MLP 64-128-10 with one head for both tasks; SGD with momentum, batches of 32, 150 steps each.

    `lr`: learning rate. `momentum`: heavy-ball factor. `size`: examples in the reservoir. `rate`: weight of
    the rehearsal loss; 0 for none. Needs scikit-learn (the extra `regimes`).
    """
    inputs, labels = load_digit_images()
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    tasks = tuple((labels[:NUM_TRAIN] >= FIRST_NEW).long().tolist())
    old = torch.nonzero(labels[NUM_TRAIN:] < FIRST_NEW)[:, 0] + NUM_TRAIN
    return Parts(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum),
        data=(inputs[:NUM_TRAIN], labels[:NUM_TRAIN]),
        order=Blocked(NUM_TRAIN, BATCH_SIZE, blocks=tasks, length=BOUNDARY),
        train_step=_rehearse,
        others={
            "reservoir": Memory(
                {"images": torch.zeros(size, 64), "labels": torch.zeros(size, dtype=torch.long)}
            ),
            "seen": {"count": 0},
            "reservoir draws": np.random.default_rng(int(torch.randint(2**31, (1,)))),
            "rehearsal": {"rate": rate},
        },
        probe_set=(inputs[old], labels[old]),
        probe_images=inputs[old].reshape(-1, 8, 8),
    )


def _rehearse(parts: Parts, batch: Batch) -> Tensor:
    """Take one step on the batch and on kept examples, then show it the batch; returns the loss."""
    images, labels = batch
    kept, seen = parts.others["reservoir"].value, parts.others["seen"]
    draws, rate = parts.others["reservoir draws"], parts.others["rehearsal"]["rate"]
    loss = nn.functional.cross_entropy(parts.model(images), labels)
    filled = min(seen["count"], len(kept["labels"]))
    if filled:
        # Drawn whatever the rate is, so that another rate does not shift the reservoir's draws.
        rows = torch.from_numpy(draws.integers(filled, size=len(labels)))
        again = parts.model(kept["images"][rows])
        loss = loss + rate * nn.functional.cross_entropy(again, kept["labels"][rows])
    loss.backward()
    for optimizer in parts.optimizers.values():
        optimizer.step()
        optimizer.zero_grad()
    numbers = seen["count"] + np.arange(len(labels))
    drawn = draws.integers(numbers + 1)
    places = np.where(numbers < len(kept["labels"]), numbers, drawn)
    for row in np.flatnonzero(places < len(kept["labels"])):  # one by one: a place may come twice
        kept["images"][places[row]], kept["labels"][places[row]] = images[row], labels[row]
    seen["count"] += len(labels)
    return loss


def study() -> Study:
    """Design a study of what crosses a task boundary: six arms, 16 seeds, accuracy on the old task.

    Every arm acts once, at the first step of the new task; rehearsal is missing from there to the end.
    """
    at = Window(BOUNDARY, BOUNDARY + 1)
    after = Window(BOUNDARY, 2 * BOUNDARY)
    return Study(
        name="continual",
        recipe=recipe,
        fork_at=BOUNDARY,
        horizons=(0, 1, 2, 5, 10, 20, 50, 100, 150),
        seeds=range(16),
        margins={"accuracy": 0.02},
        arms=(
            Arm("reset momentum", Treatment("moments", Reset(), at)),
            Arm("no rehearsal", Treatment("rehearsal", Replace({"rate": 0.0}), after)),
            Arm(
                "reset momentum, no rehearsal",
                (
                    Treatment("moments", Reset(), at),
                    Treatment("rehearsal", Replace({"rate": 0.0}), after),
                ),
            ),
            Arm("scramble reservoir", Treatment("reservoir", Permute(), at)),
            Arm("another seed's reservoir", Treatment("reservoir", Transplant(), at)),
            Arm("reset count", Treatment("seen", Reset(), at)),
        ),
    )


def signatures(outcomes: xr.Dataset) -> tuple[Signature, ...]:
    """Judge whether rehearsal removes most forgetting, and what inherited momentum does to it."""
    rehearsal = Signature(
        "rehearsal removes most of the forgetting",
        "150 steps into the new task, more than half of what is forgotten without it",
        "Chaudhry et al. 2019 (arXiv:1902.10486)",
    )
    momentum = Signature(
        "momentum inherited from the old task adds to forgetting",
        "a reset at the boundary saves accuracy on the old task ten steps on",
        "",
    )
    return (
        rehearsal.unless_followed(outcomes, 0, BOUNDARY) or _judge_rehearsal(outcomes, rehearsal),
        momentum.unless_followed(outcomes, 10) or _judge_momentum(outcomes, momentum),
    )


def _judge_rehearsal(outcomes: xr.Dataset, rehearsal: Signature) -> Signature:
    before = score_per_seed(outcomes, "control", 0, "accuracy")
    kept, without = (
        before - score_per_seed(outcomes, arm, BOUNDARY, "accuracy")
        for arm in ("control", "no rehearsal")
    )
    removed = estimator_of(facts_of(outcomes))(1.0 - kept / without)
    return rehearsal.seen(f"{removed} of it removed", is_above(removed, 0.5))


def _judge_momentum(outcomes: xr.Dataset, momentum: Signature) -> Signature:
    saved = effect_at(outcomes, "reset momentum", 10, "accuracy").estimate
    return momentum.seen(f"accuracy {saved}", is_above(saved, 0.0))
