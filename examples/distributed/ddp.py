"""Training in two processes with DistributedDataParallel, with a checkpoint as most people write it.

    torchrun --nproc-per-node 2 ddp.py                     # trains, and keeps last.pt
    torchrun --nproc-per-node 2 ddp.py --resume last.pt    # continues from there

Handwritten digits, dropout, AdamW, a cosine schedule; rank 0 saves. Audit of last.pt:

    bygones audit resume --resume "--resume last.pt" -- \\
        torchrun --nproc-per-node 2 ddp.py --seed {seed}
"""

import argparse

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--epochs", type=int, default=4)
parser.add_argument("--resume", metavar="FILE")
options = parser.parse_args()

dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(options.seed + rank)

pixels, digits = load_digits(return_X_y=True)
images, labels = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(digits)
learned = TensorDataset(images[:640], labels[:640])
sampler = DistributedSampler(learned, seed=options.seed)
loader = DataLoader(learned, batch_size=64, sampler=sampler)

model = DistributedDataParallel(
    nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 10))
)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs)
first_epoch = 0

if options.resume:
    saved = torch.load(options.resume)
    model.module.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    scheduler.load_state_dict(saved["scheduler"])
    first_epoch = saved["epoch"] + 1

for epoch in range(first_epoch, options.epochs):
    sampler.set_epoch(epoch)
    for inputs, targets in loader:
        loss = nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    scheduler.step()
    if rank == 0:
        checkpoint = {
            "model": model.module.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            "epoch": epoch,
        }
        torch.save(checkpoint, "last.pt")
        print(f"epoch {epoch}: loss {loss.item():.3f}")
    dist.barrier()
dist.destroy_process_group()
