"""The loop of plain.py with a checkpoint every 15 steps, inside epochs too, that holds everything.

python mended.py                          # trains, and keeps last.pt
python mended.py --resume last.pt         # continues from there, to the bit

bygones audit resume --at 50 --resume "--resume last.pt" -- mended.py --seed {seed}
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--epochs", type=int, default=6)
parser.add_argument("--resume", metavar="FILE")
options = parser.parse_args()
torch.manual_seed(options.seed)

pixels, digits = load_digits(return_X_y=True)
images, labels = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(digits)
loader = DataLoader(TensorDataset(images[:1280], labels[:1280]), batch_size=64, shuffle=True)

model = nn.Sequential(
    nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10)
)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs)
first_epoch, step, saved = 0, 0, None

if options.resume:
    saved = torch.load(options.resume)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    scheduler.load_state_dict(saved["scheduler"])
    first_epoch, step = saved["epoch"], saved["step"]

for epoch in range(first_epoch, options.epochs):
    if saved:
        torch.set_rng_state(saved["epoch_began"])  # the same shuffle is drawn again ...
    epoch_began = torch.get_rng_state()
    batches = iter(loader)
    shown = saved["shown"] if saved else 0
    for _ in range(shown):  # ... of which these were trained on; at the epoch's end, all of them
        next(batches)
    if saved:
        torch.set_rng_state(saved["generator"])
        saved = None
    for inputs, targets in batches:
        loss = nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        step, shown = step + 1, shown + 1
        if step % 15 == 0:
            checkpoint = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict(),
                "epoch": epoch,
                "step": step,
                "shown": shown,
                "epoch_began": epoch_began,
                "generator": torch.get_rng_state(),
            }
            torch.save(checkpoint, "last.pt")
    scheduler.step()
