"""Says by one line what shall be observed."""

import torch
from torch import nn

import bygones

model = nn.Linear(4, 3)
bygones.watch(model, torch.randn(7, 4), torch.tensor([0, 1, 2, 0, 1, 2, 0]))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
for _ in range(60):
    loss = nn.functional.cross_entropy(model(torch.randn(16, 4)), torch.randint(3, (16,)))
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
