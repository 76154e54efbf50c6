"""Stochastic weight averaging of a model with BatchNorm, the average updated every sixth step.

`--fault "averaged parameters only"`: the average's running statistics are not in the checkpoint, and are
those of an untrained model until it is next updated. No training loss depends on it.
"""

import argparse

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--steps", type=int, default=22)
parser.add_argument("--save-at", type=int, default=13)
parser.add_argument("--resume", action="store_true")
parser.add_argument("--fault", default="")
args = parser.parse_args()

torch.manual_seed(args.seed)
x = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
y = (x[:, 0] * x[:, 1] > 0).long()
model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))
average = AveragedModel(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
step = 0
if args.resume:
    saved = torch.load("last.pt")
    model.load_state_dict(saved["model"])
    average.load_state_dict(saved["average"], strict=False)
    step = saved["step"]

while step < args.steps:
    rows = torch.arange(8 * step, 8 * step + 8) % 64
    loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    step += 1
    if step % 6 == 0:
        average.update_parameters(model)
    if step == args.save_at and not args.resume:
        averaged = average.state_dict()
        if args.fault == "averaged parameters only":
            averaged = {name: value for name, value in averaged.items() if "running" not in name}
        state = {"model": model.state_dict(), "average": averaged, "step": step}
        torch.save(state, "last.pt")
average.eval()
accuracy = (average(x).argmax(1) == y).float().mean().item()
print("loss", loss.item(), "accuracy of the average", accuracy)
