"""Runs of a few hundred numbers and studies of them, for the tests of studies, stores and the terminal.

`TRAINED` counts the steps that were trained in this process, whoever asked for them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from bygones.core.values import Window
from bygones.study.design import Arm, Study
from bygones.training.interventions import (
    Hold,
    Kick,
    Permute,
    Replace,
    Reseed,
    Reset,
    Scale,
    SwapWindows,
    Transplant,
)
from bygones.training.orders import Reshuffle, ShuffleOnce
from bygones.training.probes.base import AbstractProbe
from bygones.training.recipe import Parts, supervised
from bygones.training.treatment import Treatment

TRAINED = {"steps": 0}

NUM_EXAMPLES, NUM_FEATURES, NUM_CLASSES, BATCH_SIZE = 24, 5, 3, 4


def counted(parts: Parts, batch: Any) -> Tensor:
    TRAINED["steps"] += 1
    return supervised(parts, batch)


def noisy(batch: tuple[Tensor, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    inputs, labels = batch
    return inputs + 0.1 * torch.randn(inputs.shape, generator=generator), labels


def classifier(seed: int, lr: float = 0.05) -> Parts:
    """Six inputs to three classes, with every memory that the built-in sources know but averages."""
    rng = np.random.default_rng(7)
    inputs = torch.from_numpy(rng.standard_normal((NUM_EXAMPLES + 6, NUM_FEATURES), np.float32))
    labels = torch.from_numpy(rng.integers(0, NUM_CLASSES, NUM_EXAMPLES + 6))
    model = nn.Sequential(
        nn.Linear(NUM_FEATURES, 6),
        nn.BatchNorm1d(6),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(6, NUM_CLASSES),
    )
    return Parts(
        model=model,
        optimizer=torch.optim.Adam(model.parameters(), lr=lr),
        data=(inputs[:NUM_EXAMPLES], labels[:NUM_EXAMPLES]),
        order=Reshuffle(NUM_EXAMPLES, BATCH_SIZE),
        augment=noisy,
        train_step=counted,
        probe_set=(inputs[NUM_EXAMPLES:], labels[NUM_EXAMPLES:]),
    )


def talkative(seed: int) -> Parts:
    print(f"building seed {seed}")
    return classifier(seed)


def plain(seed: int, lr: float = 0.1) -> Parts:
    """The same task without anything random but the order: SGD with momentum; lr can be replaced."""
    parts = classifier(seed)
    model = nn.Linear(NUM_FEATURES, NUM_CLASSES)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    return Parts(
        model=model,
        optimizer=optimizer,
        data=parts.data,
        order=parts.order,
        train_step=counted,
        probe_set=parts.probe_set,
    )


def at(step: int) -> Window:
    return Window(step, step + 1)


def one(name: str, intervention: Any, window: Window, source: str = "moments") -> Arm:
    return Arm(name, Treatment(source, intervention, window))


def pool() -> dict[str, Arm]:
    """Arms of every kind for the classifier, forked at step 4, to choose from."""
    kick = {"0.weight": np.full((6, NUM_FEATURES), 0.5)}
    arms = (
        one("reset", Reset(), at(4)),
        one("hold", Hold(), Window(4, 9)),
        one("hold batchnorm", Hold(), Window(5, 8), "batchnorm"),
        one("swap", SwapWindows(), Window(4, 8), "order"),
        one("shuffle", Permute(), Window(4, 9), "order"),
        one(
            "once",
            Replace({"policy": ShuffleOnce(NUM_EXAMPLES, BATCH_SIZE)}),
            Window(4, 9),
            "order",
        ),
        one("redraw", Reseed(), at(4), "streams"),
        one("kick", Kick(kick), at(4), "weights"),
        one("give", Transplant(), at(6)),
        Arm(
            "several",
            [
                Treatment("moments", Hold(), Window(4, 9)),
                Treatment("batchnorm", Reset(), at(6)),
                Treatment("weights", Scale(0.5), at(9)),
            ],
        ),
        Arm(
            "once and more",
            [
                Treatment(
                    "order",
                    Replace({"policy": ShuffleOnce(NUM_EXAMPLES, BATCH_SIZE)}),
                    Window(4, 9),
                ),
                Treatment("moments", Reset(), at(7)),
            ],
        ),
    )
    return {arm.name: arm for arm in arms}


def small(
    arms: Sequence[str] = ("reset", "hold", "several", "swap"),
    horizons: Sequence[int] = (0, 1, 3, 7),
    seeds: Sequence[int] = (0, 1),
    **changes: Any,
) -> Study:
    chosen = [pool()[name] for name in arms]
    settings = {"recipe": classifier, "fork_at": 4, "name": "small", **changes}
    return Study(arms=chosen, horizons=horizons, seeds=seeds, **settings)


@dataclass(frozen=True)
class WeightSum(AbstractProbe):
    """A probe that is defined outside the library: the sum of the model's parameters."""

    scale: float = 1.0
    kind: ClassVar[Literal["logits", "values"]] = "values"

    def __call__(self, parts: Parts) -> np.ndarray:
        total = sum(float(p.detach().double().sum()) for p in parts.model.parameters())
        return np.array([[self.scale * total]])


@dataclass(frozen=True)
class Shy(AbstractProbe):
    """A probe that raises once training has come to step 4."""

    kind: ClassVar[Literal["logits", "values"]] = "values"

    def __call__(self, parts: Parts) -> np.ndarray:
        if parts.cursor.position == 4:
            raise ValueError("I was looked at")
        return np.zeros((1, 1))


def unlucky(seed: int, place: str) -> Parts:
    """A recipe that raises for seed 13, when it is built or when it has trained for five steps."""
    if seed == 13 and place == "recipe":
        raise ValueError("bad luck in the recipe")
    parts = plain(seed)

    def step(parts: Parts, batch: Any) -> Tensor:
        if seed == 13 and parts.cursor.position > 3:
            raise ValueError("bad luck in the step")
        return counted(parts, batch)

    parts.train_step = step
    return parts


def read_json(text: str) -> Any:
    return json.loads(text)
