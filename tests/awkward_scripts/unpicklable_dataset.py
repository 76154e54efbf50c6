"""A dataset with a lambda and an open file, read by two DataLoader workers."""

import hashlib
import os

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Bytes(Dataset):
    def __init__(self):
        self.file = open(__file__, "rb")
        self.scale = lambda values: values / 64.0 - 1.0

    def __len__(self):
        return 320

    def __getitem__(self, index):
        values = torch.tensor(list(os.pread(self.file.fileno(), 9, index)))
        return self.scale(values[:8]), values[8] % 3


model = nn.Linear(8, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
loader = DataLoader(Bytes(), batch_size=16, shuffle=True, num_workers=2)
for _ in range(3):
    for inputs, targets in loader:
        loss = nn.functional.cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

weights = nn.utils.parameters_to_vector(model.parameters()).detach()
print("weights", hashlib.sha256(weights.numpy().tobytes()).hexdigest())
