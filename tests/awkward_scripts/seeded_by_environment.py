"""Takes its seed from an environment variable."""

import os

import torch
from torch import nn

torch.manual_seed(int(os.environ["MY_SEED"]))
model = nn.Linear(4, 3)
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for _ in range(60):
    loss = (model(torch.randn(16, 4)) ** 2).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
