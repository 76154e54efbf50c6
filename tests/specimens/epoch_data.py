"""A training set that is delivered in another way by each `--way`; the generator that shuffles is saved.

`built anew`: dataset and loader are made in each epoch. `workers`: two workers add noise that they draw.
`zipped`: a second loader gives each batch a partner. `--fault shuffling` or `noise`: this generator is lost.
"""

import argparse
import os

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--way", default="built anew")
parser.add_argument("--resume")
parser.add_argument("--fault", default="")
args = parser.parse_args()
torch.manual_seed(args.seed)
x = torch.randn(64, 8, generator=torch.Generator().manual_seed(9))
y = (x[:, 0] > 0).long()


class Noisy(Dataset):
    def __len__(self):
        return len(x)

    def __getitem__(self, index):
        noise = torch.randn(8) if args.way == "workers" else torch.zeros(8)
        return x[index] + 0.3 * noise, y[index]


def make_loader():
    sampler = torch.utils.data.RandomSampler(range(len(x)), generator=shuffling)
    workers = 2 if args.way == "workers" else 0
    return DataLoader(Noisy(), 8, sampler=sampler, num_workers=workers, generator=noise)


def main():
    model = nn.Linear(8, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    first = 0
    if args.resume and os.path.exists(args.resume):
        saved = torch.load(args.resume)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["epoch"]
        for name, generator in (("shuffling", shuffling), ("noise", noise)):
            if args.fault != name:
                generator.set_state(saved[name])
    loader, partners = make_loader(), DataLoader(x[:32], 4)
    for epoch in range(first, 5):
        if args.way == "built anew":
            loader = make_loader()
        rounds = zip(loader, partners, strict=True) if args.way == "zipped" else loader
        for batch in rounds:
            (inputs, labels), partner = (
                batch if args.way == "zipped" else (batch, torch.zeros(1, 1))
            )
            inputs = inputs + partner.mean(0)
            loss = nn.functional.cross_entropy(model(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        saved = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "epoch": epoch + 1,
        }
        saved |= {"shuffling": shuffling.get_state(), "noise": noise.get_state()}
        torch.save(saved, "last.pt")


shuffling = torch.Generator().manual_seed(args.seed)
noise = torch.Generator().manual_seed(args.seed + 1)
main()
