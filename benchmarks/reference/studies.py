"""The reference studies R1, R2, R3 as recipes for bygones, and as problems for the loop without it."""

from __future__ import annotations

import math
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from benchmarks.reference.naive import Built, Problem
from torch import Tensor, nn

from bygones import Arm, Recipe, Reseed, Reset, Scale, Study, SwapWindows, Treatment, Window
from bygones.training.orders import Reshuffle
from bygones.training.recipe import Parts

FORK, AFTER = 300, 300
HORIZONS = (0, 1, 2, 4, 9, 17, 35, 71, 146, 300)
NUM_PROBE = 512


@cache
def digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    places = np.random.default_rng(0).permutation(len(images))
    return torch.tensor(images[places] / 16.0, dtype=torch.float32), torch.tensor(labels[places])


def mlp(width: int = 128) -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, width),
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.Linear(width, 10),
    )


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1, stride=2),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * 16, 10),
    )


def with_momentum(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


# ------------------------------------------------------------------ R3: characters

CONTEXT, WIDTH, HEADS, LAYERS = 32, 64, 4, 2


@cache
def characters() -> tuple[Tensor, Tensor, int]:
    """Windows of the text of Python's own help pages, and what follows each character."""
    from pydoc_data.topics import topics

    text = "".join(topics[name] for name in sorted(topics))[:200_000]
    alphabet = sorted(set(text))
    codes = torch.tensor([alphabet.index(c) for c in text])
    windows = codes[: len(codes) // (CONTEXT + 1) * (CONTEXT + 1)].view(-1, CONTEXT + 1)
    return windows[:, :-1].contiguous(), windows[:, 1:].contiguous(), len(alphabet)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.mix, self.join = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH)
        self.think = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        )
        mask = torch.full((CONTEXT, CONTEXT), -math.inf).triu(1)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        num, length, _ = x.shape
        q, k, v = (
            part.view(num, length, HEADS, -1).transpose(1, 2)
            for part in self.mix(self.before(x)).chunk(3, dim=-1)
        )
        scores = q @ k.transpose(-2, -1) / math.sqrt(WIDTH // HEADS) + self.mask
        x = x + self.join((scores.softmax(-1) @ v).transpose(1, 2).reshape(num, length, WIDTH))
        return x + self.think(self.between(x))


class Transformer(nn.Module):
    def __init__(self, num_characters: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(num_characters, WIDTH)
        self.place = nn.Parameter(torch.randn(CONTEXT, WIDTH) * 0.02)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.out = nn.Linear(WIDTH, num_characters)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.blocks(self.embed(x) + self.place))


class Flat(nn.Module):
    """Predictions at every place as rows of their own: what the loss and the probe read."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).flatten(0, -2)


def over_places(outputs: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, labels.flatten())


def with_cosine(model: nn.Module) -> tuple[torch.optim.AdamW, Any]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=FORK + AFTER)


# ------------------------------------------------------------------ for bygones


def r1(seed: int, width: int = 128) -> Parts:
    """MLP 64-128-128-10 with BatchNorm1d on digits, SGD 0.05/0.9, batches of 64."""
    return _classifier(mlp(width))


def r2(seed: int) -> Parts:
    """Two convolutions with BatchNorm2d (32 and 64 channels), otherwise as R1."""
    return _classifier(convolutional())


def _classifier(model: nn.Module) -> Parts:
    inputs, labels = digits()
    return Parts(
        model=model,
        optimizer=with_momentum(model),
        data=(inputs[:-NUM_PROBE], labels[:-NUM_PROBE]),
        order=Reshuffle(num_examples=len(inputs) - NUM_PROBE, batch_size=64),
        probe_set=(inputs[-NUM_PROBE:], labels[-NUM_PROBE:]),
    )


def r3(seed: int) -> Parts:
    """Causal transformer, two layers of width 64, on characters; AdamW and a cosine."""
    inputs, labels, num_characters = characters()
    model = Flat(Transformer(num_characters))
    optimizer, schedule = with_cosine(model)
    return Parts(
        model=model,
        optimizer=optimizer,
        scheduler=schedule,
        loss=over_places,
        data=(inputs[:-16], labels[:-16]),
        order=Reshuffle(num_examples=len(inputs) - 16, batch_size=16),
        probe_set=(inputs[-16:], labels[-16:].flatten()),
    )


def arms_at(fork: int) -> list[Arm]:
    at = Window(fork, fork + 1)
    return [
        Arm("reset moments", Treatment("moments", Reset(), at)),
        Arm("scale moments", Treatment("moments", Scale(0.5), at)),
        Arm("reset batchnorm", Treatment("batchnorm", Reset(), at)),
        Arm("swap windows", Treatment("order", SwapWindows(), Window(fork, fork + 20))),
        Arm("reseed order", Treatment("order", Reseed(), at)),
    ]


def varied(seeds: int = 16, arms: int = 2, after: int = 150, width: int = 128) -> Study:
    """A smaller R1 of another size: to see what each of them costs."""
    recipe = Recipe.of(r1, width=width)
    return Study(recipe, arms_at(100)[:arms], 100, horizons=(0, after), seeds=range(seeds))


def study(name: str) -> Study:
    arms = arms_at(FORK)
    recipe, num_seeds = {"R1": (r1, 32), "R2": (r2, 16), "R3": (r3, 8)}[name]
    return Study(
        name=name,
        recipe=recipe,
        arms=[arm for arm in arms if name != "R3" or "batchnorm" not in arm.name],
        fork_at=FORK,
        horizons=HORIZONS,
        seeds=range(num_seeds),
    )


# ------------------------------------------------------------------ for the loop without it


def _built(make: Any) -> Built:
    model = make()
    return model, with_momentum(model), None


def _built_transformer() -> Built:
    model = Flat(Transformer(characters()[2]))
    return model, *with_cosine(model)


def problem(name: str) -> Problem:
    if name == "R3":
        inputs, labels, _ = characters()
        return Problem(
            _built_transformer, inputs[:-16], labels[:-16], 16, inputs[-16:], FORK, HORIZONS
        )
    inputs, labels = digits()
    make = {"R1": mlp, "R2": convolutional}[name]
    return Problem(
        partial(_built, make),
        inputs[:-NUM_PROBE],
        labels[:-NUM_PROBE],
        64,
        inputs[-NUM_PROBE:],
        FORK,
        HORIZONS,
    )
