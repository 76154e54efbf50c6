"""Asks torch for two threads."""

import hashlib

import torch
from torch import nn

torch.set_num_threads(2)
model = nn.Linear(8, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
for _ in range(60):
    inputs = torch.randn(16, 8)
    loss = nn.functional.cross_entropy(model(inputs), inputs[:, :3].argmax(dim=1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("threads", torch.get_num_threads())

weights = nn.utils.parameters_to_vector(model.parameters()).detach()
print("weights", hashlib.sha256(weights.numpy().tobytes()).hexdigest())
