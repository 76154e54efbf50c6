"""Overwrites the file named by its argument, an absolute path, every ten steps."""

import hashlib
import sys

import torch
from torch import nn

model = nn.Linear(8, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
for step in range(1, 61):
    inputs = torch.randn(16, 8)
    loss = nn.functional.cross_entropy(model(inputs), inputs[:, :3].argmax(dim=1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 10 == 0:
        with open(sys.argv[1], "w") as file:
            file.write(f"step {step}  loss {loss.item():.6f}\n")

weights = nn.utils.parameters_to_vector(model.parameters()).detach()
print("weights", hashlib.sha256(weights.numpy().tobytes()).hexdigest())
