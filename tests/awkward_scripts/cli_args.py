"""Takes a required option and a positional argument: `cli_args.py NAME --lr 0.1`."""

import argparse
import hashlib
import sys

import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("name")
parser.add_argument("--lr", type=float, required=True)
args = parser.parse_args()
print(sys.argv)

model = nn.Linear(8, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9)
for _ in range(60):
    inputs = torch.randn(16, 8)
    loss = nn.functional.cross_entropy(model(inputs), inputs[:, :3].argmax(dim=1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(args.name)

weights = nn.utils.parameters_to_vector(model.parameters()).detach()
print("weights", hashlib.sha256(weights.numpy().tobytes()).hexdigest())
