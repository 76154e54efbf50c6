"""MNIST-1D: a ReLU MLP at a learning rate where training is chaotic (perturbations grow).

Data: the generator on PyPI as `mnist1d` (Greydanus & Kobak 2024, arXiv:2011.14439), with its default
arguments and seed: 4 000 signals for training, 512 of the 1 000 others as the probe set.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import xarray as xr
from torch import nn

from bygones.analysis.signature import Signature, effect_at, is_share_above, share_of
from bygones.core.extras import import_extra
from bygones.core.values import Window
from bygones.study.design import Arm, Study
from bygones.training.interventions import Nudge, Reseed, Reset, SwapWindows
from bygones.training.orders import Reshuffle
from bygones.training.recipe import Parts
from bygones.training.treatment import Treatment


def recipe(seed: int, lr: float = 0.1, momentum: float = 0.9, width: int = 100) -> Parts:
    """Build an MLP 40-100-100-10 with ReLU and no normalization; SGD with momentum, batches of 100.

    `lr`: learning rate. `momentum`: heavy-ball factor. `width`: units in each hidden layer.
    Needs mnist1d (the extra `regimes`).
    """
    data = _generate_data()
    model = nn.Sequential(
        nn.Linear(40, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, 10),
    )
    return Parts(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum),
        data=(torch.from_numpy(data["x"]), torch.from_numpy(data["y"])),
        order=Reshuffle(num_examples=len(data["x"]), batch_size=100),
        probe_set=(torch.from_numpy(data["x_test"][:512]), torch.from_numpy(data["y_test"][:512])),
    )


def study() -> Study:
    """Design a study of chaos: does a relative perturbation of 1e-6 grow to the difference of two seeds?

    Four arms, 8 seeds. Every arm acts once, at step 200; two windows of ten batches are exchanged, up to
    step 220.
    """
    at = Window(200, 201)
    return Study(
        name="mnist1d",
        recipe=recipe,
        fork_at=200,
        horizons=(0, 1, 3, 10, 30, 100, 300, 1000, 2000),
        seeds=range(8),
        arms=(
            Arm("nudge weights 1e-6", Treatment("weights", Nudge(1e-6), at)),
            Arm("reset momentum", Treatment("moments", Reset(), at)),
            Arm("swap two 10-step windows", Treatment("order", SwapWindows(), Window(200, 220))),
            Arm("re-draw the order", Treatment("order", Reseed(), at)),
        ),
    )


@cache
def _generate_data() -> dict[str, np.ndarray]:
    """Generate the data set: signals float32 [N, 40], labels int64 [N]."""
    mnist1d = import_extra("mnist1d.data", "the data of MNIST-1D")
    # make_dataset seeds numpy's and python's global generators itself, and draws from them.
    signals = mnist1d.make_dataset(mnist1d.get_dataset_args())
    return {
        "x": signals["x"].astype(np.float32),
        "y": signals["y"].astype(np.int64),
        "x_test": signals["x_test"].astype(np.float32),
        "y_test": signals["y_test"].astype(np.int64),
    }


def signatures(outcomes: xr.Dataset) -> tuple[Signature, ...]:
    """Judge whether a minute change of the weights grows to the size of another seed."""
    butterfly = Signature(
        "a minute change grows to the size of another seed",
        "2,000 steps after a relative nudge of 1e-6, more than half as many predictions differ as between "
        "two seeds",
        "Summers & Dinneen 2021 (arXiv:2103.04514)",
    )
    return (butterfly.unless_followed(outcomes, 0, 2000) or _judge_butterfly(outcomes, butterfly),)


def _judge_butterfly(outcomes: xr.Dataset, butterfly: Signature) -> Signature:
    at_once, later = (
        effect_at(outcomes, "nudge weights 1e-6", horizon, "disagreement") for horizon in (0, 2000)
    )
    return butterfly.seen(
        f"{share_of(at_once)} of another seed at once, {share_of(later)} after 2,000 steps",
        is_share_above(later, 0.5),
    )
