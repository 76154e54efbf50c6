"""A dataset that adds noise, and a loop that skips what was seen, then puts torch's stream back.

`--fault "fetched before"`: the stream is put back in the loop's body, when its first batch is fetched.
`--fault "iterator made after"`: it is put back first, and then the loader's new iterator draws from it.
"""

import argparse

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--save-at", type=int, default=11)
parser.add_argument("--resume", action="store_true")
parser.add_argument("--fault", default="")
args = parser.parse_args()


class Noisy(Dataset):
    def __init__(self):
        self.x = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))
        self.y = (self.x[:, 0] * self.x[:, 1] > 0).long()

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index] + 0.1 * torch.randn(8), self.y[index]


torch.manual_seed(args.seed)
loader = DataLoader(Noisy(), batch_size=8)
model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
step, saved = 0, None
if args.resume:
    saved = torch.load("last.pt")
    model.load_state_dict(saved["model"])
    step = saved["step"]

for _ in range(step // len(loader), args.epochs):
    skip = 0
    if saved is not None:
        skip = step % len(loader)
        if args.fault == "iterator made after":
            torch.set_rng_state(saved["rng"])
    batches = iter(loader)
    if args.fault != "fetched before":
        for _ in range(skip):
            next(batches)
        if saved is not None and args.fault != "iterator made after":
            torch.set_rng_state(saved["rng"])
        skip, saved = 0, None
    for number, (inputs, labels) in enumerate(batches):
        if number < skip:
            continue
        if saved is not None:
            torch.set_rng_state(saved["rng"])
            saved = None
        loss = nn.functional.cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if step == args.save_at and not args.resume:
            checkpoint = {"model": model.state_dict(), "step": step, "rng": torch.get_rng_state()}
            torch.save(checkpoint, "last.pt")
print("loss", loss.item())
