"""A daemon thread draws the batches and hands them over by a queue."""

import hashlib
import queue
import threading

import torch
from torch import nn

batches = queue.Queue(maxsize=4)


def prefetch():
    while True:
        batches.put(torch.randn(16, 8))


model = nn.Linear(8, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
threading.Thread(target=prefetch, daemon=True).start()
for _ in range(60):
    inputs = batches.get()
    loss = nn.functional.cross_entropy(model(inputs), inputs[:, :3].argmax(dim=1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

weights = nn.utils.parameters_to_vector(model.parameters()).detach()
print("weights", hashlib.sha256(weights.numpy().tobytes()).hexdigest())
