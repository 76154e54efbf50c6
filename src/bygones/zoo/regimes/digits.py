"""Handwritten digits: a small MLP with BatchNorm and dropout, in a regime where perturbations decay.

Data: `zoo/digit_images.py`, 1 437 images for training and 360 as the probe set.
"""

from __future__ import annotations

import torch
import xarray as xr
from torch import nn

from bygones.analysis.signature import Signature, all_of, effect_at, is_share_above, share_of
from bygones.core.values import Window
from bygones.study.design import Arm, Study
from bygones.training.interventions import Nudge, Reseed, Reset, Scale, SwapWindows
from bygones.training.orders import Reshuffle
from bygones.training.recipe import Parts
from bygones.training.treatment import Treatment
from bygones.zoo.digit_images import NUM_TRAIN, load_digit_images


def recipe(seed: int, lr: float = 0.05, momentum: float = 0.9, dropout: float = 0.1) -> Parts:
    """Build an MLP 64-128-128-10 with BatchNorm and dropout; SGD with momentum, batches of 64.

    `lr`: learning rate. `momentum`: heavy-ball factor. `dropout`: probability of dropping a unit.
    Needs scikit-learn (the extra `regimes`).
    """
    inputs, targets = load_digit_images()
    model = nn.Sequential(
        nn.Linear(64, 128),
        nn.BatchNorm1d(128),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(128, 128),
        nn.BatchNorm1d(128),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(128, 10),
    )
    return Parts(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum),
        data=(inputs[:NUM_TRAIN], targets[:NUM_TRAIN]),
        order=Reshuffle(num_examples=NUM_TRAIN, batch_size=64),
        probe_set=(inputs[NUM_TRAIN:], targets[NUM_TRAIN:]),
        probe_images=inputs[NUM_TRAIN:].reshape(-1, 8, 8),
    )


def study() -> Study:
    """Design a study of momentum, BatchNorm statistics, data order and dropout: seven arms, 32 seeds.

    Every arm acts once, at step 300; two windows of ten batches are exchanged, up to step 320.
    """
    at = Window(300, 301)
    return Study(
        name="digits",
        recipe=recipe,
        fork_at=300,
        horizons=(0, 1, 2, 5, 10, 20, 40, 80, 150, 300),
        seeds=range(32),
        margins={"accuracy": 0.005},  # half a percentage point: the equivalence margin
        arms=(
            Arm("reset momentum", Treatment("moments", Reset(), at)),
            Arm("halve momentum", Treatment("moments", Scale(0.5), at)),
            Arm("reset batchnorm", Treatment("batchnorm", Reset(), at)),
            Arm("swap two 10-step windows", Treatment("order", SwapWindows(), Window(300, 320))),
            Arm("re-draw the order", Treatment("order", Reseed(), at)),
            Arm("re-draw dropout", Treatment("streams", Reseed(), at, leaves="dropout")),
            Arm("nudge weights 1e-3", Treatment("weights", Nudge(1e-3), at)),
        ),
    )


def signatures(outcomes: xr.Dataset) -> tuple[Signature, ...]:
    """Judge whether BatchNorm's running statistics stay out of training, so that a reset is forgotten."""
    forgotten = Signature(
        "a reset of BatchNorm's statistics is forgotten",
        "it moves the function at once, and 80 steps on (0.9^80 = 0.0002 of it is left) by less than 1% of "
        "another seed, since training does not read them",
        "Ioffe & Szegedy 2015 (arXiv:1502.03167), algorithm 2",
    )
    return (forgotten.unless_followed(outcomes, 0, 80) or _judge_forgotten(outcomes, forgotten),)


def _judge_forgotten(outcomes: xr.Dataset, forgotten: Signature) -> Signature:
    at_once, later = (effect_at(outcomes, "reset batchnorm", horizon) for horizon in (0, 80))
    stands = is_share_above(later, 0.01)
    return forgotten.seen(
        f"{share_of(at_once)} of another seed at once, {share_of(later)} after 80 steps",
        all_of(is_share_above(at_once, 0.01), None if stands is None else not stands),
    )
