"""A recipe that trains in milliseconds, for the examples in the docs: two classes of points in the plane."""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import bygones


def recipe(seed: int) -> bygones.Parts:
    """A small network with BatchNorm, trained by SGD with momentum on 64 points."""
    points = torch.randn(96, 2, generator=torch.Generator().manual_seed(0))
    labels = (points[:, 0] * points[:, 1] > 0).long()
    model = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2))
    return bygones.Parts(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        data=(points[:64], labels[:64]),
        order=bygones.Reshuffle(num_examples=64, batch_size=16),
        probe_set=(points[64:], labels[64:]),
    )


def averaged(seed: int) -> bygones.Parts:
    """The same, with an exponential moving average of the weights, which is what would be deployed."""
    parts = recipe(seed)
    parts.averages = AveragedModel(parts.model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    return parts
