"""`shuffle=True` with the global generator, dropout, and a checkpoint after each epoch.

`--fault "stream lost"`: torch's random state is not in the checkpoint.
`--fault "seeded after loading"`: it is, and a later `manual_seed` overwrites it.
"""

import argparse

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--epochs", type=int, default=4)
parser.add_argument("--resume", action="store_true")
parser.add_argument("--fault", default="")
args = parser.parse_args()

torch.manual_seed(args.seed)
x = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
loader = DataLoader(TensorDataset(x, (x[:, 0] * x[:, 1] > 0).long()), batch_size=8, shuffle=True)
model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.2)


def train(first_epoch):
    for epoch in range(first_epoch, args.epochs):
        for inputs, labels in loader:
            loss = nn.functional.cross_entropy(model(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if epoch == 0:
            checkpoint = {"model": model.state_dict(), "epoch": epoch + 1}
            if args.fault != "stream lost":
                checkpoint["rng"] = torch.get_rng_state()
            torch.save(checkpoint, "last.pt")
    print("loss", loss.item())


first_epoch = 0
if args.resume:
    saved = torch.load("last.pt")
    model.load_state_dict(saved["model"])
    first_epoch = saved["epoch"]
    if "rng" in saved:
        torch.set_rng_state(saved["rng"])
    if args.fault == "seeded after loading":
        torch.manual_seed(args.seed)
train(first_epoch)
