"""Two processes, DistributedDataParallel: everything a rank carries is saved, and each fault loses one thing.

    torchrun --nproc-per-node 2 ddp_harness.py --save-at 9
    torchrun --nproc-per-node 2 ddp_harness.py --resume --fault generator

Batches are accumulated two at a time, the first of them under `no_sync`, so that gradients are each rank's
own within a window. `--save-at`: the number of batches after which the checkpoint is written, once.
"""

import argparse
from contextlib import nullcontext

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--epochs", type=int, default=4)
parser.add_argument("--save-at", type=int, default=8)
parser.add_argument("--resume", action="store_true")
parser.add_argument("--fault", default="")
options = parser.parse_args()

dist.init_process_group("gloo")
rank, size = dist.get_rank(), dist.get_world_size()
torch.manual_seed(10 * options.seed + rank)

drawn = torch.Generator().manual_seed(7)
inputs = torch.randn(48, 6, generator=drawn)
labels = (inputs @ torch.randn(6, 4, generator=drawn)).argmax(1)
dataset = TensorDataset(inputs, labels)
sampler = DistributedSampler(dataset, seed=options.seed)
noise = torch.Generator().manual_seed(100 + rank)  # each rank's own
# It draws a seed for its workers in every epoch, here not from the generator that dropout draws from.
loader = DataLoader(dataset, 4, sampler=sampler, generator=torch.Generator().manual_seed(1))

layers = nn.Sequential(
    nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 4)
)
model = DistributedDataParallel(layers)
optimizer = torch.optim.AdamW(model.parameters(), 0.02)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
usual = {"loss": 1.4}  # of this rank: its losses are divided by it
done = 0


def own_state():
    return {
        "torch": torch.get_rng_state(),
        "noise": noise.get_state(),
        "usual": usual["loss"],
        "gradients": [None if p.grad is None else p.grad.clone() for p in layers.parameters()],
        "sampler": sampler.epoch,
        "buffers": dict(layers.named_buffers()),
    }


def save():
    ranks = [None] * size
    dist.all_gather_object(ranks, own_state())
    whole = {
        "model": layers.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "done": done,
        "ranks": ranks,
    }
    if rank == 0:
        torch.save(whole, "last.pt")
    dist.barrier()


def is_lost(*faults):
    return options.fault in faults


def load():
    saved = torch.load("last.pt")
    own = saved["ranks"][rank]
    weights = {name: v for name, v in saved["model"].items() if "running" not in name}
    layers.load_state_dict(weights, strict=False)
    buffers = dict(layers.named_buffers())
    for name, value in own["buffers"].items() if not is_lost("buffers") else ():
        buffers[name].copy_(value)
    if not (is_lost("moments") or (rank == 1 and is_lost("moments of rank 1"))):
        optimizer.load_state_dict(saved["optimizer"])
    if not is_lost("scheduler"):
        scheduler.load_state_dict(saved["scheduler"])
    if not (rank == 1 and is_lost("generator of rank 1")):
        torch.set_rng_state(own["torch"])
    if not is_lost("private generators"):
        noise.set_state(own["noise"])
    if not (rank == 1 and is_lost("variable of rank 1")):
        usual["loss"] = own["usual"]
    for parameter, gradient in zip(layers.parameters(), own["gradients"], strict=True):
        if gradient is not None and not is_lost("gradients"):
            parameter.grad = gradient
    return saved["done"]


if options.resume:
    done = load()
first = done
for epoch in range(first // len(loader), options.epochs):
    if not (options.resume and rank == 1 and is_lost("sampler epoch of rank 1")):
        sampler.set_epoch(epoch)
    begun = first % len(loader) if epoch == first // len(loader) else 0
    if rank == 1 and is_lost("position of rank 1"):
        begun = 0
    for number, (given, targets) in enumerate(loader):
        if number < begun or (epoch + 1) * len(loader) <= done:
            continue
        closes = done % 2 == 1
        with nullcontext() if closes else model.no_sync():
            given = given + 0.1 * torch.randn(given.shape, generator=noise)
            loss = nn.functional.cross_entropy(model(given), targets) / usual["loss"]
            loss.backward()
        usual["loss"] = 0.9 * usual["loss"] + 0.1 * loss.item()
        if closes:
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
        done += 1
        if done == options.save_at and not options.resume:
            save()
if rank == 0:
    torch.save(layers.state_dict(), "final.pt")
dist.barrier()
dist.destroy_process_group()
