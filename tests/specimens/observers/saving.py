"""A checkpoint every fifth step, written by a function that builds the model once more.

`--fault "saving draws"`: the new model's weights are drawn from torch's global stream, so how often it is
saved decides how it is trained. Without it the state is saved as it is.
"""

import argparse

import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--steps", type=int, default=40)
parser.add_argument("--fault", default="")
args = parser.parse_args()


def build():
    return nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.2), nn.Tanh(), nn.Linear(16, 2))


def save(model):
    if args.fault == "saving draws":
        copied = build()
        copied.load_state_dict(model.state_dict())
        model = copied
    torch.save(model.state_dict(), "last.pt")


torch.manual_seed(args.seed)
x = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
y = (x[:, 0] * x[:, 1] > 0).long()
model = build()
optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
for step in range(args.steps):
    rows = torch.arange(8 * step, 8 * step + 8) % 64
    loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 5 == 4:
        save(model)
print("loss", loss.item())
