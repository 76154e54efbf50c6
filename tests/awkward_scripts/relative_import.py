"""Imports a module that lies next to it, and reads data.txt in the working directory."""

import hashlib

import torch
from sibling import make_model
from torch import nn

with open("data.txt") as file:
    inputs = torch.tensor([[float(word) for word in line.split()] for line in file])
targets = inputs[:, :3].argmax(dim=1)
model = make_model()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
for _ in range(60):
    batch = torch.randint(len(inputs), (16,))
    loss = nn.functional.cross_entropy(model(inputs[batch]), targets[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

weights = nn.utils.parameters_to_vector(model.parameters()).detach()
print("weights", hashlib.sha256(weights.numpy().tobytes()).hexdigest())
