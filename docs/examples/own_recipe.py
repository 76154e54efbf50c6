"""A custom recipe: ordinary PyTorch objects, returned by name.

bygones run docs/examples/own_recipe.py
"""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from bygones import Arm, Hold, Parts, Reset, Reshuffle, Scale, Study, Treatment, Window


def recipe(seed: int, lr: float = 3e-3) -> Parts:
    """Two spirals, an MLP, AdamW with a cosine schedule, and an EMA of the weights."""
    inputs, labels = spirals(1024)
    model = nn.Sequential(
        nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    return Parts(
        model=model,
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=400),
        averages=AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.98)),
        data=(inputs[:768], labels[:768]),
        order=Reshuffle(num_examples=768, batch_size=32),
        probe_set=(inputs[768:], labels[768:]),
    )


def study() -> Study:
    """May AdamW's state be dropped, and does it matter whether its step count goes too?"""
    at = Window(200, 201)
    moments_only = "*/exp_avg*"  # leaves the step count, so the bias correction does not restart
    return Study(
        recipe,
        name="spirals",
        fork_at=200,
        horizons=(0, 1, 3, 10, 30, 100, 200),
        seeds=range(8),
        arms=[
            Arm("drop AdamW's state", Treatment("moments", Reset(), at)),
            Arm("drop the moments only", Treatment("moments", Reset(), at, leaves=moments_only)),
            Arm("halve the moments", Treatment("moments", Scale(0.5), at)),
            Arm("hold the schedule", Treatment("scheduler", Hold(), Window(200, 230))),
        ],
    )


def spirals(num_examples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The same points for every seed: the data is not what is studied here."""
    draws = torch.Generator().manual_seed(0)
    turn = torch.rand(num_examples, generator=draws).sqrt() * 3 * torch.pi
    labels = torch.arange(num_examples) % 2
    angle = turn + torch.pi * labels
    inputs = torch.stack([turn * angle.cos(), turn * angle.sin()], dim=1) / 10
    return inputs + 0.03 * torch.randn(inputs.shape, generator=draws), labels
