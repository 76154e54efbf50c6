"""An Adam for two towers and a second head that joins late, saved and loaded in several ways.

`--fault "other order"`: the optimizer gets the towers in another order, and states are matched by position.
`--fault "dummy step"`: its state is filled in before loading, which makes one up for what never stepped.
`--fault "saved in half"`: moments are stored as bfloat16 and loaded as float32.
"""

import argparse
import copy

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--save-at", type=int, default=9)
parser.add_argument("--resume", action="store_true")
parser.add_argument("--fault", default="")
args = parser.parse_args()


class Towers(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(8, 16), nn.Linear(8, 16)
        self.head, self.late_head = nn.Linear(32, 2), nn.Linear(32, 2)

    def forward(self, x):
        return self.head(self.features(x))

    def features(self, x):
        return torch.cat([self.left(x).tanh(), self.right(x).relu()], 1)


torch.manual_seed(args.seed)
x = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
y = (x[:, 0] * x[:, 1] > 0).long()
model = Towers()
parts = [model.left, model.right, model.head, model.late_head]
if args.resume and args.fault == "other order":
    parts = [model.right, model.left, model.head, model.late_head]
optimizer = torch.optim.Adam(
    [p for part in parts for p in part.parameters()], 0.01, weight_decay=0.1
)
step = 0
if args.resume:
    saved = torch.load("last.pt")
    model.load_state_dict(saved["model"])
    step = saved["step"]
    state = saved["optimizer"]
    if args.fault == "dummy step":
        get_optimizer_state_dict(model, optimizer)
        state = optimizer.state_dict()
        state["state"].update(saved["optimizer"]["state"])
    optimizer.load_state_dict(state)

while step < args.steps:
    rows = torch.arange(8 * step, 8 * step + 8) % 64
    loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
    if step >= 11:
        loss = loss + nn.functional.cross_entropy(model.late_head(model.features(x[rows])), y[rows])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    step += 1
    if step == args.save_at and not args.resume:
        state = copy.deepcopy(optimizer.state_dict())
        if args.fault == "saved in half":
            for moments in state["state"].values():
                for name in ("exp_avg", "exp_avg_sq"):
                    moments[name] = moments[name].bfloat16()
        torch.save({"model": model.state_dict(), "step": step, "optimizer": state}, "last.pt")
print("loss", loss.item())
