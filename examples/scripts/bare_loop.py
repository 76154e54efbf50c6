"""Trains an MLP with BatchNorm and dropout on scikit-learn's digits by SGD with momentum.

Its habit: everything stands at module level. There is no function, no DataLoader and no seed;
minibatches are drawn with replacement by `torch.randint` from torch's global generator, and the one
setting is an optional number of epochs: `python bare_loop.py [EPOCHS]`.
"""

import hashlib
import sys

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 20
batch_size = 64

images, labels = load_digits(return_X_y=True)
places = np.random.default_rng(0).permutation(len(images))
x = torch.tensor(images[places] / 16.0, dtype=torch.float32)
y = torch.tensor(labels[places])
x_train, y_train, x_test, y_test = x[:1437], y[:1437], x[1437:], y[1437:]

model = nn.Sequential(
    nn.Linear(64, 128),
    nn.BatchNorm1d(128),
    nn.ReLU(),
    nn.Dropout(0.1),
    nn.Linear(128, 128),
    nn.BatchNorm1d(128),
    nn.ReLU(),
    nn.Dropout(0.1),
    nn.Linear(128, 10),
)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
criterion = nn.CrossEntropyLoss()
steps_per_epoch = len(x_train) // batch_size

model.train()
for epoch in range(epochs):
    total = 0.0
    for _ in range(steps_per_epoch):
        batch = torch.randint(len(x_train), (batch_size,))
        optimizer.zero_grad()
        loss = criterion(model(x_train[batch]), y_train[batch])
        loss.backward()
        optimizer.step()
        total += loss.item()
    print(f"epoch {epoch + 1:2d}  loss {total / steps_per_epoch:.4f}")

model.eval()
with torch.no_grad():
    accuracy = (model(x_test).argmax(dim=1) == y_test).float().mean().item()
print(f"accuracy {accuracy:.4f}")

digest = hashlib.sha256()
for tensor in [*model.parameters(), *model.buffers()]:
    digest.update(tensor.detach().numpy().tobytes())
print("weights", digest.hexdigest())
