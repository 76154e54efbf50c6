"""A layer that normalises by a running scale.

`--fault "not persistent"`: the scale is a buffer that is left out of the state_dict.
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


class RunningScale(nn.Module):
    def __init__(self, persistent):
        super().__init__()
        self.register_buffer("scale", torch.ones(()), persistent=persistent)

    def forward(self, x):
        if self.training:
            self.scale.lerp_(x.detach().abs().mean(), 0.1)
        return x / self.scale


torch.manual_seed(args.seed)
x = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
y = (x[:, 0] * x[:, 1] > 0).long()
scale = RunningScale(args.fault != "not persistent")
model = nn.Sequential(nn.Linear(8, 16), scale, nn.Tanh(), nn.Linear(16, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
step = 0
if args.resume:
    saved = torch.load("last.pt")
    model.load_state_dict(saved["model"])
    step = saved["step"]

while step < args.steps:
    rows = torch.arange(8 * step, 8 * step + 8) % 64
    loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    step += 1
    if step == args.save_at and not args.resume:
        torch.save({"model": model.state_dict(), "step": step}, "last.pt")
print("loss", loss.item())
