"""Evaluation after each epoch that leaves something behind in the run that it only looks at.

`--fault "loader draws"`: iterating over the validation loader draws a number from torch's global stream, and
so the next epoch is shuffled otherwise.
`--fault "generator seeded"`: it seeds the generator that shuffles the training data, to be reproducible.
`--fault "buffer changed"`: the model is left in training mode, and its running statistics take in the test.
"""

import argparse

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--epochs", type=int, default=6)
parser.add_argument("--fault", default="")
args = parser.parse_args()

torch.manual_seed(args.seed)
x = torch.randn(128, 8, generator=torch.Generator().manual_seed(1))
y = (x[:, 0] * x[:, 1] > 0).long()
shuffling = None if args.fault == "loader draws" else torch.Generator().manual_seed(args.seed)
apart = None if args.fault == "loader draws" else torch.Generator()
training = TensorDataset(x[:64], y[:64])
loader = DataLoader(training, batch_size=8, shuffle=True, generator=shuffling)
validation = DataLoader(TensorDataset(x[64:], y[64:]), batch_size=32, generator=apart)
model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)


@torch.no_grad()
def evaluate():
    if args.fault != "buffer changed":
        model.eval()
    if args.fault == "generator seeded":
        shuffling.manual_seed(0)
    right = sum(int((model(inputs).argmax(1) == labels).sum()) for inputs, labels in validation)
    model.train()
    return right / 64


for epoch in range(args.epochs):
    for inputs, labels in loader:
        loss = nn.functional.cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print("epoch", epoch, "accuracy", evaluate())
print("loss", loss.item())
