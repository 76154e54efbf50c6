"""A schedule and a weight of the loss that move at the end of each epoch.

`--fault`: "saved before the epoch ends": the checkpoint has them as they were during it.
"""

import argparse

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--resume", action="store_true")
parser.add_argument("--fault", default="")
options = parser.parse_args()
torch.manual_seed(options.seed)

x = torch.randn(60, 3, generator=torch.Generator().manual_seed(1))
y = (x.sum(1) > 0).long()
loader = DataLoader(TensorDataset(x, y), batch_size=6, shuffle=True)
model = nn.Linear(3, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8)
weight, first_epoch = 1.0, 0

if options.resume:
    saved = torch.load("last.pt", weights_only=False)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    scheduler.load_state_dict(saved["scheduler"])
    torch.set_rng_state(saved["generator"])
    weight, first_epoch = saved["weight"], saved["epoch"] + 1


def state(epoch):
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "generator": torch.get_rng_state(),
        "weight": weight,
        "epoch": epoch,
    }


for epoch in range(first_epoch, 6):
    for inputs, labels in loader:
        loss = weight * nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    early = state(epoch)
    scheduler.step()
    weight *= 0.9
    torch.save(early if options.fault else state(epoch), "last.pt")
