"""Handwritten digits: a small MLP with BatchNorm and dropout, in a regime where perturbations decay.

Data: the 1 797 images of 8 x 8 that ship with scikit-learn (UCI "Optical Recognition of Handwritten
Digits", Alpaydin & Kaynak 1998, doi:10.24432/C50P49): 1 437 for training, 360 as the probe set.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from bygones.core.values import Window
from bygones.study.design import Arm, Study
from bygones.training.interventions import Nudge, Reseed, Reset, Scale, SwapWindows
from bygones.training.orders import Reshuffle
from bygones.training.recipe import Parts
from bygones.training.treatment import Treatment

NUM_TRAIN = 1437


def recipe(seed: int, lr: float = 0.05, momentum: float = 0.9, dropout: float = 0.1) -> Parts:
    """Build an MLP 64-128-128-10 with BatchNorm and dropout; SGD with momentum, batches of 64.

    `lr`: learning rate. `momentum`: heavy-ball factor. `dropout`: probability of dropping a unit.
    Needs scikit-learn (the extra `regimes`).
    """
    from sklearn.datasets import load_digits  # optional dependency

    images, labels = load_digits(return_X_y=True)
    split = np.random.default_rng(0).permutation(len(images))  # the same split for all seeds
    inputs = torch.tensor(images[split] / 16.0, dtype=torch.float32)
    targets = torch.tensor(labels[split])
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
    """Design a study of momentum, BatchNorm statistics, data order and dropout: seven arms, 32 seeds."""
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
