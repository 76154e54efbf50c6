"""A sampler that can be saved and loaded, and a checkpoint at the end of an epoch.

`--fault "saved inside the loop"`: its state is taken while the last batch is still at hand, so that it says
that everything was given out, and the next epoch is empty.
"""

import argparse

import torch
from torch import nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--epochs", type=int, default=4)
parser.add_argument("--resume", action="store_true")
parser.add_argument("--fault", default="")
args = parser.parse_args()


class Resumable(Sampler):
    """Another permutation in each epoch, which it is told; goes on in the middle of one."""

    def __init__(self, size, seed):
        self.size, self.seed, self.epoch, self.given = size, seed, 0, 0

    def __iter__(self):
        seed = 1000 * self.seed + self.epoch
        order = torch.randperm(self.size, generator=torch.Generator().manual_seed(seed))
        while self.given < self.size:
            self.given += 1
            yield int(order[self.given - 1])
        self.given = 0

    def __len__(self):
        return self.size

    def state_dict(self):
        return {"given": self.given}

    def load_state_dict(self, state):
        self.given = state["given"]


def save(step):
    checkpoint = {"model": model.state_dict(), "step": step, "sampler": sampler.state_dict()}
    torch.save(checkpoint, "last.pt")


torch.manual_seed(args.seed)
x = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
data = TensorDataset(x, (x[:, 0] * x[:, 1] > 0).long())
sampler = Resumable(len(data), args.seed)
loader = DataLoader(data, batch_size=8, sampler=sampler)
model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
step = 0
if args.resume:
    saved = torch.load("last.pt")
    model.load_state_dict(saved["model"])
    sampler.load_state_dict(saved["sampler"])
    step = saved["step"]

for epoch in range(step // len(loader), args.epochs):
    sampler.epoch = epoch
    for inputs, labels in loader:
        loss = nn.functional.cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if args.fault == "saved inside the loop" and step == len(loader) and not args.resume:
            save(step)
    if args.fault != "saved inside the loop" and epoch == 0 and not args.resume:
        save(step)
print("loss", loss.item())
