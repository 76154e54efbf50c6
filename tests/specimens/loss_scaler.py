"""Half precision with a `GradScaler` that begins with a large scale, and has soon found one that fits.

`--fault "scaler lost"`: the resumed run begins with the large one again, overflows, and skips updates.
"""

import argparse

import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--steps", type=int, default=30)
parser.add_argument("--save-at", type=int, default=11)
parser.add_argument("--resume", action="store_true")
parser.add_argument("--fault", default="")
args = parser.parse_args()

torch.manual_seed(args.seed)
x = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
y = (x[:, 0] * x[:, 1] > 0).long()
model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
scaler = torch.amp.GradScaler("cpu", init_scale=2.0**22, growth_interval=100)
step = 0
if args.resume:
    saved = torch.load("last.pt")
    model.load_state_dict(saved["model"])
    step = saved["step"]
    if args.fault != "scaler lost":
        scaler.load_state_dict(saved["scaler"])

while step < args.steps:
    rows = torch.arange(8 * step, 8 * step + 8) % 64
    with torch.autocast("cpu", torch.float16):
        loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    step += 1
    if step == args.save_at and not args.resume:
        state = {"model": model.state_dict(), "step": step, "scaler": scaler.state_dict()}
        torch.save(state, "last.pt")
print("loss", loss.item())
