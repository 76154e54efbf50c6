"""A sampler that shuffles by seed and epoch, as in distributed training, here with one process.

`--fault "epoch not set"`: the resumed epoch is shuffled like the first, since nobody tells the sampler.
`--fault "position in updates"`: so many batches are skipped as there were updates, each of two batches.
"""

import argparse
import os

import torch
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--epochs", type=int, default=4)
parser.add_argument("--save-at", type=int, default=7, help="updates after which it is saved")
parser.add_argument("--resume", action="store_true")
parser.add_argument("--fault", default="")
args = parser.parse_args()

torch.manual_seed(args.seed)
x = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
data = TensorDataset(x, (x[:, 0] * x[:, 1] > 0).long())
sampler = DistributedSampler(data, num_replicas=1, rank=0, seed=args.seed)
loader = DataLoader(data, batch_size=8, sampler=sampler)
model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
accumulate, updates, first_epoch, skip = 2, 0, 0, 0
if args.resume and os.path.exists("last.pt"):
    saved = torch.load("last.pt")
    model.load_state_dict(saved["model"])
    updates = saved["updates"]
    first_epoch, skip = divmod(updates * accumulate, len(loader))
    if args.fault == "position in updates":
        skip = updates % (len(loader) // accumulate)

for epoch in range(first_epoch, args.epochs):
    if not (args.fault == "epoch not set" and epoch == first_epoch):
        sampler.set_epoch(epoch)
    for number, (inputs, labels) in enumerate(loader):
        if epoch == first_epoch and number < skip:
            continue
        loss = nn.functional.cross_entropy(model(inputs), labels)
        (loss / accumulate).backward()
        if number % accumulate == accumulate - 1:
            optimizer.step()
            optimizer.zero_grad()
            updates += 1
            if updates == args.save_at and not args.resume:
                torch.save({"model": model.state_dict(), "updates": updates}, "last.pt")
print("loss", loss.item())
