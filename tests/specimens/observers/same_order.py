"""Epochs that are meant to be shuffled anew, and of which one fault makes all alike.

`--fault "epoch not set"`: nobody tells the distributed sampler which epoch it is.
`--fault "counter copied"`: the sampler counts its epochs itself, in a copy that is made for each of them.
"""

import argparse
import copy

import torch
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--epochs", type=int, default=4)
parser.add_argument("--fault", default="")
args = parser.parse_args()


class Counting(DistributedSampler):
    def __iter__(self):
        self.set_epoch(self.epoch + 1)
        return super().__iter__()


torch.manual_seed(args.seed)
x = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
data = TensorDataset(x, (x[:, 0] * x[:, 1] > 0).long())
kind = Counting if args.fault == "counter copied" else DistributedSampler
sampler = kind(data, num_replicas=1, rank=0, seed=args.seed)
model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
for epoch in range(args.epochs):
    if not args.fault:
        sampler.set_epoch(epoch)
    mine = copy.deepcopy(sampler) if args.fault == "counter copied" else sampler
    for inputs, labels in DataLoader(data, batch_size=8, sampler=mine):
        loss = nn.functional.cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
print("loss", loss.item())
