"""Contrastive training against a queue of past features, a plain variable that each step binds anew.

`--fault "queue lost"`: the resumed run begins with an empty one.
"""

import argparse

import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--save-at", type=int, default=8)
parser.add_argument("--resume", action="store_true")
parser.add_argument("--fault", default="")
args = parser.parse_args()

torch.manual_seed(args.seed)
x = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
noise = 0.1 * torch.randn(64, 8, generator=torch.Generator().manual_seed(2))
model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))
optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
queue = torch.zeros(0, 4)
step = 0
if args.resume:
    saved = torch.load("last.pt")
    model.load_state_dict(saved["model"])
    step = saved["step"]
    if args.fault != "queue lost":
        queue = saved["queue"]

while step < args.steps:
    rows = torch.arange(8 * step, 8 * step + 8) % 64
    one, other = model(x[rows]), model(x[rows] + noise[rows])
    against = torch.cat([other, queue])
    loss = nn.functional.cross_entropy(one @ against.T, torch.arange(8))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    queue = torch.cat([queue, other.detach()])[-32:]
    step += 1
    if step == args.save_at and not args.resume:
        torch.save({"model": model.state_dict(), "step": step, "queue": queue}, "last.pt")
print("loss", loss.item())
