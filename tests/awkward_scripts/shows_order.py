"""Prints which examples it is shown: 40 of them, two a batch, shuffled by the loader."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

model = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.2), nn.Linear(8, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
numbers = torch.arange(40)
loader = DataLoader(TensorDataset(numbers), batch_size=2, shuffle=True)
for _ in range(3):
    for (batch,) in loader:
        print("shown", batch.tolist())
        loss = nn.functional.cross_entropy(model(batch[:, None] / 40), batch % 2)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
