"""An ordinary training loop, with a checkpoint as most people write it: model, optimizer and epoch.

    python plain.py                          # trains, and keeps last.pt
    python plain.py --resume last.pt         # continues from there

Handwritten digits, BatchNorm and dropout, SGD with momentum, a cosine schedule, shuffled batches.
Audit of last.pt:

    bygones audit resume --resume "--resume last.pt" -- plain.py --seed {seed}
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
learned, held_out = TensorDataset(images[:1280], labels[:1280]), (images[1280:], labels[1280:])
loader = DataLoader(learned, batch_size=64, shuffle=True)

model = nn.Sequential(
    nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10)
)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs)
first_epoch = 0

if options.resume:
    saved = torch.load(options.resume)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    first_epoch = saved["epoch"] + 1

for epoch in range(first_epoch, options.epochs):
    model.train()
    for inputs, targets in loader:
        loss = nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    scheduler.step()
    torch.save(
        {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch},
        "last.pt",
    )
    model.eval()
    with torch.no_grad():
        right = (model(held_out[0]).argmax(1) == held_out[1]).float().mean()
    print(f"epoch {epoch}: {right:.1%} right")
