"""A run that is interrupted again and again, and writes a checkpoint every fifth step.

`--fault "counted from here"`: what it writes is how many steps this process took. That is right until it has
resumed once: the second time, data that was seen is shown again, at a learning rate of long ago.
`--fault "place not kept up"`: the place in the data is in a file, which a resumed run does not renew. While
the run lasts, a generator holds it, where no variable shows it.
"""

import argparse
import os

import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--resume", action="store_true")
parser.add_argument("--fault", default="")
args = parser.parse_args()

torch.manual_seed(args.seed)
x = torch.randn(256, 8, generator=torch.Generator().manual_seed(1))
y = (x[:, 0] * x[:, 1] > 0).long()
model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
step = begun_at = 0
if args.resume and os.path.exists("last.pt"):
    saved = torch.load("last.pt")
    model.load_state_dict(saved["model"])
    step = begun_at = saved["step"]


def rows_from(start):
    while True:
        yield torch.arange(8 * start, 8 * start + 8) % 256
        start += 1


batches = rows_from(int(open("place.txt").read()) if begun_at else 0)
while step < args.steps:
    optimizer.param_groups[0]["lr"] = 0.2 * (1 - step / args.steps)
    rows = next(batches)
    loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    step += 1
    if step % 5 == 0:
        taken = step - begun_at if args.fault == "counted from here" else step
        torch.save({"model": model.state_dict(), "step": taken}, "last.pt")
        if not begun_at or args.fault != "place not kept up":
            with open("place.txt", "w") as file:
                file.write(str(taken))
print("loss", loss.item())
