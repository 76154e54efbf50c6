"""An augmentation that draws from a numpy generator of its own.

`--fault "generator made anew"`: a restart makes it from the seed, so the first draws come again.
"""

import argparse

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--save-at", type=int, default=8)
parser.add_argument("--resume", action="store_true")
parser.add_argument("--fault", default="")
args = parser.parse_args()


class Mixup:
    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def __call__(self, inputs):
        share = float(self.rng.beta(0.4, 0.4))
        return share * inputs + (1 - share) * inputs[self.rng.permutation(len(inputs))]


torch.manual_seed(args.seed)
x = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
loader = DataLoader(TensorDataset(x, (x[:, 0] * x[:, 1] > 0).float()), batch_size=8)
mixup = Mixup(args.seed)
model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
step = 0
if args.resume:
    saved = torch.load("last.pt")
    model.load_state_dict(saved["model"])
    step = saved["step"]
    if args.fault != "generator made anew":
        mixup.rng.bit_generator.state = saved["mixup"]

while step < args.steps:
    for inputs, labels in loader:
        loss = nn.functional.mse_loss(model(mixup(inputs))[:, 0], labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if step == args.save_at and not args.resume:
            state = {
                "model": model.state_dict(),
                "step": step,
                "mixup": mixup.rng.bit_generator.state,
            }
            torch.save(state, "last.pt")
        if step == args.steps:
            break
print("loss", loss.item())
