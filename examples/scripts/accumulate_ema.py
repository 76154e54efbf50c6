"""Trains an MLP on digits by AdamW under a cosine schedule, averaging its weights as it goes.

Its habit: each optimizer step accumulates the gradients of four micro-batches, the exponential
moving average of the weights is a class of its own that keeps shadow tensors in a dict and warms
its decay up by a counter, the DataLoader shuffles by its own generator, and a checkpoint is written
every epoch to a path relative to the working directory.
"""

import argparse
import hashlib
import math
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

ACCUMULATE = 4


class EMA:
    """Shadow copies of a model's weights that follow it slowly; faster during the first updates."""

    def __init__(self, model, decay=0.99):
        self.decay = decay
        self.updates = 0
        self.shadow = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model):
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, p in model.named_parameters():
            self.shadow[name].lerp_(p, 1 - decay)


@torch.no_grad()
def accuracy(model, weights, inputs, targets):
    model.eval()
    outputs = torch.func.functional_call(model, weights, (inputs,))
    model.train()
    return (outputs.argmax(dim=1) == targets).float().mean().item()


def weights_digest(model):
    digest = hashlib.sha256()
    for tensor in [*model.parameters(), *model.buffers()]:
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def main():
    parser = argparse.ArgumentParser(description="Gradient accumulation and an EMA on digits.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path("runs/accumulate_ema.pt"))
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    args.out.parent.mkdir(parents=True, exist_ok=True)

    images, labels = load_digits(return_X_y=True)
    places = np.random.default_rng(0).permutation(len(images))
    inputs = torch.tensor(images[places] / 16.0, dtype=torch.float32)
    targets = torch.tensor(labels[places])
    train_set = TensorDataset(inputs[:1437], targets[:1437])
    test_inputs, test_targets = inputs[1437:], targets[1437:]
    shuffling = torch.Generator().manual_seed(args.seed)
    loader = DataLoader(train_set, batch_size=16, shuffle=True, generator=shuffling)

    hidden = nn.Sequential(nn.Linear(64, 128), nn.LayerNorm(128), nn.GELU(), nn.Dropout(0.1))
    model = nn.Sequential(hidden, nn.Linear(128, 10))
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    total_steps = args.epochs * math.ceil(len(loader) / ACCUMULATE)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=total_steps)
    ema = EMA(model)

    for epoch in range(1, args.epochs + 1):
        total = 0.0
        for index, (x, y) in enumerate(loader, start=1):
            loss = criterion(model(x), y)
            (loss / ACCUMULATE).backward()
            total += loss.item()
            if index % ACCUMULATE == 0 or index == len(loader):
                optimizer.step()
                optimizer.zero_grad()
                scheduler.step()
                ema.update(model)
        plain = accuracy(model, dict(model.named_parameters()), test_inputs, test_targets)
        averaged = accuracy(model, ema.shadow, test_inputs, test_targets)
        loss = total / len(loader)
        print(f"epoch {epoch:2d}  loss {loss:.4f}  accuracy {plain:.4f}  averaged {averaged:.4f}")
        checkpoint = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            "ema": {"updates": ema.updates, "shadow": ema.shadow},
        }
        torch.save(checkpoint, args.out)
    print("weights", weights_digest(model))


if __name__ == "__main__":
    main()
