"""No loader: tensors that are indexed by a permutation, drawn anew in each epoch, and a place in it.

`--fault "place lost"`: the epoch begins again.
`--fault "permutation drawn again"`: the rest of it is another.
"""

import argparse

import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--save-at", type=int, default=11)
parser.add_argument("--resume", action="store_true")
parser.add_argument("--fault", default="")
args = parser.parse_args()

torch.manual_seed(args.seed)
x = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
y = (x[:, 0] * x[:, 1] > 0).long()
model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
order, place, step = torch.randperm(64), 0, 0
if args.resume:
    saved = torch.load("last.pt")
    model.load_state_dict(saved["model"])
    torch.set_rng_state(saved["rng"])
    order, place, step = saved["order"], saved["place"], saved["step"]
    if args.fault == "place lost":
        place = 0
    if args.fault == "permutation drawn again":
        order = torch.randperm(64, generator=torch.Generator().manual_seed(args.seed + 1))

while step < args.steps:
    rows = order[place : place + 8]
    loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    place += 8
    step += 1
    if place == 64:
        order, place = torch.randperm(64), 0
    if step == args.save_at and not args.resume:
        state = {"model": model.state_dict(), "rng": torch.get_rng_state()}
        torch.save({**state, "order": order, "place": place, "step": step}, "last.pt")
print("loss", loss.item())
