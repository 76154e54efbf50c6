"""A training loop that can be resumed with another batch size or learning rate; its checkpoint is complete.

It continues inside an epoch after as many examples as were shown. `--fault "position in batches"`: after as
many batches, which is the same place only if the batch size is the same. `--fault "scheduler lost"`: the
schedule begins again.
"""

import argparse

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--batch-size", type=int, default=4)
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--resume", action="store_true")
parser.add_argument("--fault", default="")
args = parser.parse_args()

torch.manual_seed(args.seed)
x = torch.randn(48, 4, generator=torch.Generator().manual_seed(1))
data = TensorDataset(x, (x[:, 0] > 0).long())
model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 10, 0.5)
shuffling = torch.Generator().manual_seed(args.seed)
epoch, start, step = 0, 0, 0
order = []
if args.resume:
    saved = torch.load("last.pt")
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    if args.fault != "scheduler lost":
        scheduler.load_state_dict(saved["scheduler"])
    shuffling.set_state(saved["shuffling"])
    torch.set_rng_state(saved["torch"])
    epoch, step, order, start = saved["epoch"], saved["step"], saved["order"], saved["examples"]
    if args.fault == "position in batches":
        start = saved["batches"] * args.batch_size
while epoch < 2:
    if start == 0:
        order = torch.randperm(len(data), generator=shuffling).tolist()
    batches = start // args.batch_size
    for inputs, labels in DataLoader(data, args.batch_size, sampler=order[start:]):
        loss = nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        start, batches, step = start + len(inputs), batches + 1, step + 1
        if step % 5 == 0:
            held = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            held |= {"scheduler": scheduler.state_dict(), "shuffling": shuffling.get_state()}
            held |= {"torch": torch.get_rng_state(), "epoch": epoch, "step": step, "order": order}
            torch.save(held | {"examples": start, "batches": batches}, "last.pt")
    epoch, start = epoch + 1, 0
