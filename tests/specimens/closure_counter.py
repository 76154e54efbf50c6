"""A warm-up that counts its own calls, in a variable that the function closes over.

`--fault "count lost"`: a LambdaLR saves no functions, so the warm-up starts again.
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


def warm_up(over, calls=0):
    def factor(_):
        nonlocal calls
        calls += 1
        return min(1.0, calls / over)

    def count():
        return calls

    return factor, count


torch.manual_seed(args.seed)
x = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
y = (x[:, 0] * x[:, 1] > 0).long()
model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
saved = torch.load("last.pt") if args.resume else {"step": 0, "calls": 0}
step = saved["step"]
kept = args.resume and args.fault != "count lost"
factor, count = warm_up(15, saved["calls"] - 1 if kept else 0)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
if args.resume:
    model.load_state_dict(saved["model"])
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
        torch.save({**state, "step": step, "calls": count()}, "last.pt")
print("loss", loss.item())
