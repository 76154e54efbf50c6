"""Raises as soon as its loss is not finite, as careful scripts do."""

import torch
from torch import nn

model = nn.Linear(4, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
for _ in range(60):
    inputs = torch.randn(16, 4)
    loss = nn.functional.cross_entropy(model(inputs) ** 3, torch.randint(3, (16,)))
    if not torch.isfinite(loss):
        raise FloatingPointError("the loss is not finite")
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
