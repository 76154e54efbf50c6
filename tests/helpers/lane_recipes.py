"""Recipes for the tests of lanes: each with another habit, all of a few hundred numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import Dataset

from bygones.training.orders import Reshuffle
from bygones.training.recipe import Parts, supervised

NUM_EXAMPLES, NUM_FEATURES, NUM_CLASSES, BATCH_SIZE = 26, 6, 3, 4


def examples() -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(3)
    inputs = rng.standard_normal((NUM_EXAMPLES, NUM_FEATURES), np.float32)
    return torch.from_numpy(inputs), torch.from_numpy(rng.integers(0, NUM_CLASSES, NUM_EXAMPLES))


def parts(model: nn.Module, optimizer: Any, **more: Any) -> Parts:
    data = more.pop("data", examples())
    return Parts(
        model=model,
        optimizer=optimizer,
        data=data,
        order=Reshuffle(num_examples=NUM_EXAMPLES, batch_size=BATCH_SIZE),
        probe_set=examples(),
        **more,
    )


def mlp(dropout: float = 0.0) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(NUM_FEATURES, 5, bias=False),  # before BatchNorm its gradient is rounding
        nn.BatchNorm1d(5),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(5, NUM_CLASSES),
    )


def sgd(seed: int, dropout: float = 0.25) -> Parts:
    """Momentum, BatchNorm, dropout."""
    model = mlp(dropout)
    return parts(model, torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True))


def adamw(seed: int) -> Parts:
    """AdamW by groups, a cosine schedule, an EMA of the weights."""
    model = mlp()
    groups = [{"params": model[:2].parameters(), "lr": 1e-2}, {"params": model[4].parameters()}]
    optimizer = torch.optim.AdamW(groups, lr=3e-3)
    return parts(
        model,
        optimizer,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=30),
        averages=AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9)),
    )


def jittered(batch: tuple[Tensor, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    inputs, labels = batch
    return inputs + 0.1 * torch.randn(inputs.shape, generator=generator), labels


def augmented(seed: int) -> Parts:
    """Augmentation and dropout, each with a stream of its own."""
    model = mlp(0.25)
    return parts(model, torch.optim.SGD(model.parameters(), lr=0.05), augment=jittered)


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """A dataset that draws from two global generators whenever it is asked."""

    def __len__(self) -> int:
        return NUM_EXAMPLES

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        inputs, labels = examples()
        noise = 0.1 * torch.randn(NUM_FEATURES) + float(np.random.standard_normal())
        return inputs[index] + noise, labels[index]


def dataset(seed: int) -> Parts:
    model = mlp(0.25)
    return parts(model, torch.optim.RMSprop(model.parameters(), lr=1e-3), data=Noisy())


def own_data(seed: int) -> Parts:
    """Every seed has labels of its own."""
    inputs, labels = examples()
    model = mlp()
    return parts(
        model,
        torch.optim.SGD(model.parameters(), lr=0.05),
        data=(inputs, (labels + seed) % NUM_CLASSES),
    )


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolve = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.normalise = nn.BatchNorm2d(4)
        self.classify = nn.Linear(4 * NUM_FEATURES, NUM_CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        seen = torch.relu(self.normalise(self.convolve(inputs.view(-1, 1, 2, NUM_FEATURES // 2))))
        return self.classify(seen.flatten(1))


def convolutional(seed: int) -> Parts:
    model = Convolutional()
    return parts(model, torch.optim.Adam(model.parameters(), lr=1e-3))


class Tied(nn.Module):
    """One matrix used twice, one layer that is not trained, one number that is."""

    def __init__(self) -> None:
        super().__init__()
        self.inwards = nn.Linear(NUM_FEATURES, NUM_FEATURES, bias=False)
        self.again = nn.Linear(NUM_FEATURES, NUM_FEATURES, bias=False)
        self.again.weight = self.inwards.weight
        self.frozen = nn.Linear(NUM_FEATURES, NUM_CLASSES).requires_grad_(False)
        self.temperature = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, inputs: Tensor) -> Tensor:
        assert isinstance(self.calls, Tensor)
        self.calls.add_(1)
        return self.frozen(torch.tanh(self.again(self.inwards(inputs)))) * self.temperature


def tied(seed: int) -> Parts:
    model = Tied()
    return parts(
        model,
        {
            "matrix": torch.optim.SGD([model.inwards.weight], lr=0.1, momentum=0.5),
            "number": torch.optim.NAdam([model.temperature], lr=0.01),
        },
    )


class Attentive(nn.Module):
    """One causal layer of attention over the features, as a sequence of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(1, 8)
        self.mix = nn.Linear(8, 24, bias=False)
        self.out = nn.Linear(8, NUM_CLASSES)
        self.normalise = nn.LayerNorm(8)

    def forward(self, inputs: Tensor) -> Tensor:
        seen = self.normalise(self.embed(inputs.unsqueeze(-1)))
        query, key, value = (part.unsqueeze(1) for part in self.mix(seen).chunk(3, dim=-1))
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out((seen + mixed.squeeze(1))[:, -1])


def attentive(seed: int) -> Parts:
    model = Attentive()
    return parts(model, torch.optim.AdamW(model.parameters(), lr=1e-3))


def idle_bias(seed: int) -> Parts:
    """A bias before BatchNorm: Adam makes steps of the rounding in its gradient, and evaluation sees them."""
    model = nn.Sequential(
        nn.Linear(NUM_FEATURES, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, NUM_CLASSES)
    )
    return parts(model, torch.optim.Adam(model.parameters(), lr=1e-2))


LANED = {
    "sgd": sgd,
    "adamw": adamw,
    "augmented": augmented,
    "dataset": dataset,
    "own_data": own_data,
    "convolutional": convolutional,
    "tied": tied,
    "attentive": attentive,
}


def explosive(seed: int) -> Parts:
    """Seed 2 is out of bounds from the start; its weights are numbers all the same."""
    model = nn.Linear(NUM_FEATURES, NUM_CLASSES)
    if seed == 2:
        nn.init.constant_(model.bias, 100.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    return parts(model, optimizer, scheduler=scheduler, loss=bounded)


def bounded(outputs: Tensor, labels: Tensor) -> Tensor:
    over = torch.where(outputs.abs().max() > 50, math.inf, 0.0)
    return nn.functional.cross_entropy(outputs, labels) + over


# ------------------------------------------------------------------ what cannot be lanes


def own_step(parts: Parts, batch: Any) -> Tensor:
    return supervised(parts, batch)


def with_own_step(seed: int) -> Parts:
    model = mlp()
    return parts(model, torch.optim.SGD(model.parameters(), lr=0.05), train_step=own_step)


def with_others(seed: int) -> Parts:
    model = mlp()
    return parts(
        model,
        torch.optim.SGD(model.parameters(), lr=0.05),
        others={"queue": torch.zeros(3)},
    )


def with_lbfgs(seed: int) -> Parts:
    model = mlp()
    return parts(model, torch.optim.LBFGS(model.parameters()))


def with_a_forgotten_layer(seed: int) -> Parts:
    """No optimizer has the first layer, so none clears its gradients: they pile up from step to step."""
    model = mlp()
    return parts(model, torch.optim.SGD(model[4].parameters(), lr=0.05))


def with_own_rate(seed: int) -> Parts:
    model = mlp()
    return parts(model, torch.optim.SGD(model.parameters(), lr=0.01 * (1 + seed)))


def with_odd_tenth(seed: int) -> Parts:
    return with_own_rate(1 if seed == 9 else 0)


class Wilful(nn.Module):
    """Does something else in each forward pass, as told."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.calls = 0
        self.layer = nn.Linear(NUM_FEATURES, NUM_CLASSES)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        outputs = self.layer(inputs)
        match self.way:
            case "branches":
                return outputs if float(inputs.sum()) > 0 else -outputs
            case "binds anew":
                self.seen = self.seen + 1
                return outputs
            case "draws":
                return outputs + torch.randn_like(outputs)
            case "draws elsewhere":
                return outputs * (1.0 + float(np.random.standard_normal()))
            case _:
                return outputs * math.sqrt(self.calls)


def wilful(seed: int, way: str = "counts") -> Parts:
    model = Wilful(way)
    return parts(model, torch.optim.SGD(model.parameters(), lr=0.05))
