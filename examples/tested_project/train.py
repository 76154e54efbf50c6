"""A training script whose checkpoint holds all that training carries; test_resume.py proves it.

python train.py                      # trains, and keeps last.pt
python train.py --resume last.pt     # continues from there
"""

import argparse

import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=24)
parser.add_argument("--resume", metavar="FILE")
options = parser.parse_args()

inputs = torch.linspace(-3, 3, 64).unsqueeze(1)
targets = torch.sin(inputs)
model = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-2, total_steps=options.steps)
first_step = 0

if options.resume:
    saved = torch.load(options.resume)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    scheduler.load_state_dict(saved["scheduler"])
    first_step = saved["step"]

for step in range(first_step, options.steps):
    loss = nn.functional.mse_loss(model(inputs), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()
    checkpoint = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "step": step + 1,
    }
    torch.save(checkpoint, "last.pt")
