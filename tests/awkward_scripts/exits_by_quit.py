"""Leaves by SystemExit with a message after its 7th optimizer step."""

import hashlib

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
    if step == 7:
        raise SystemExit("done early")

weights = nn.utils.parameters_to_vector(model.parameters()).detach()
print("weights", hashlib.sha256(weights.numpy().tobytes()).hexdigest())
