"""Schedules that are built anew on resuming, from the number of steps that were taken.

`--fault "one step off"`: a cosine with `last_epoch` one too large.
`--fault "milestones ignored"`: a warm-up and a cosine in sequence, `last_epoch` given to the sequence only.
Without a fault the schedule's own state is loaded.
"""

import argparse

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--save-at", type=int, default=9)
parser.add_argument("--sequence", action="store_true")
parser.add_argument("--resume", action="store_true")
parser.add_argument("--fault", default="")
args = parser.parse_args()


def schedule(last=-1):
    if not args.sequence:
        return CosineAnnealingLR(optimizer, args.steps, last_epoch=last)
    warm_up = LinearLR(optimizer, 0.1, total_iters=5)
    cosine = CosineAnnealingLR(optimizer, args.steps - 5)
    return SequentialLR(optimizer, [warm_up, cosine], milestones=[5], last_epoch=last)


torch.manual_seed(args.seed)
x = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
y = (x[:, 0] * x[:, 1] > 0).long()
model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
step = 0
if not args.resume:
    scheduler = schedule()
else:
    saved = torch.load("last.pt")
    model.load_state_dict(saved["model"])
    step = saved["step"]
    if args.fault:
        optimizer.load_state_dict(saved["optimizer"])
        scheduler = schedule(step)
    else:
        scheduler = schedule()
        optimizer.load_state_dict(saved["optimizer"])
        scheduler.load_state_dict(saved["scheduler"])

while step < args.steps:
    rows = torch.arange(8 * step, 8 * step + 8) % 64
    loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()
    step += 1
    if step == args.save_at and not args.resume:
        parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
        state = {name: part.state_dict() for name, part in parts.items()}
        torch.save({**state, "step": step}, "last.pt")
print("loss", loss.item())
