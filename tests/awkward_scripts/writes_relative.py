"""Overwrites a file of the folder that it is run in, now and then."""

from pathlib import Path

import torch
from torch import nn

model = nn.Linear(4, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
for step in range(60):
    loss = nn.functional.cross_entropy(model(torch.randn(16, 4)), torch.randint(3, (16,)))
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 4 == 0:
        Path("mine.txt").write_text(f"{step} {float(loss)}\n")
