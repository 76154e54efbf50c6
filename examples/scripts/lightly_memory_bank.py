"""Trains an encoder of digits without labels, with lightly's contrastive loss and memory bank.

Its habit: the keys that the loss compares with lie in a buffer of the *loss*, which no checkpoint of the
model or the optimizer contains, and which the first batch fills.
Needs lightly and scikit-learn.
"""

import argparse
import hashlib

import numpy as np
import torch
from lightly.loss import NTXentLoss
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

BANK_SIZE, WIDTH = 512, 32


def augment(images):
    """Erase a fifth of the pixels of each image, add noise to the others."""
    return nn.functional.dropout(images + 0.2 * torch.randn_like(images), 0.2)


def weights_digest(model):
    digest = hashlib.sha256()
    for tensor in model.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def main():
    parser = argparse.ArgumentParser(description="A memory bank on digits.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=20)
    args = parser.parse_args()
    torch.manual_seed(args.seed)

    images, _ = load_digits(return_X_y=True)
    images = images[np.random.default_rng(0).permutation(len(images))] / 16.0
    x = torch.tensor(images, dtype=torch.float32)
    loader = DataLoader(TensorDataset(x[:1437]), batch_size=64, shuffle=True, drop_last=True)

    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, WIDTH))
    criterion = NTXentLoss(temperature=0.2, memory_bank_size=(BANK_SIZE, WIDTH))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for epoch in range(1, args.epochs + 1):
        total = 0.0
        for (batch,) in loader:
            loss = criterion(model(augment(batch)), model(augment(batch)).detach())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        print(f"epoch {epoch:2d}  loss {total / len(loader):.4f}")
    print("weights", weights_digest(model))


if __name__ == "__main__":
    main()
