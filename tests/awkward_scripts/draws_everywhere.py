"""Draws from every kind of generator, its own ones too."""

import random

import numpy as np
import torch
from torch import nn

model = nn.Linear(4, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
rng = np.random.default_rng(random.randrange(2**32))
own = torch.Generator().manual_seed(random.randrange(2**32))
for _ in range(60):
    inputs = torch.randn(16, 4) + 0.3 * random.gauss(0, 1) + 0.3 * np.random.randn()
    inputs = inputs + 0.3 * float(rng.normal()) + 0.3 * torch.randn(4, generator=own)
    loss = nn.functional.cross_entropy(model(inputs), torch.arange(16) % 3)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
