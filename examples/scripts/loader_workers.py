"""Trains a small convolutional network on augmented digits by SGD, validating every epoch.

Its habit: augmentation happens inside `__getitem__`, in two DataLoader workers, and draws from
Python's, NumPy's and torch's global generators as well as from a generator that belongs to the
dataset. The workers are started anew each epoch, each with its own copy of the dataset.
"""

import argparse
import hashlib
import random

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Digits(Dataset):
    """8 x 8 images of digits; with augment=True, shifted, brightened, noisy and partly erased."""

    def __init__(self, images, labels, augment=False, seed=0):
        self.images = images
        self.labels = labels
        self.augment = augment
        self.rng = np.random.default_rng(seed)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image = self.images[index]
        if self.augment:
            image = np.roll(image, (random.randint(-1, 1), random.randint(-1, 1)), axis=(0, 1))
            image = image + np.random.normal(0.0, 0.05, size=image.shape)
            row, column = self.rng.integers(0, 7, size=2)
            image[row : row + 2, column : column + 2] = 0.0
        image = torch.tensor(image, dtype=torch.float32).unsqueeze(0)
        if self.augment:
            image = image * (0.8 + 0.4 * torch.rand(()))
        return image, int(self.labels[index])


def make_model():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 32, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


def train_epoch(model, loader, optimizer, criterion):
    model.train()
    total = 0.0
    for images, labels in loader:
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(images)
    return total / len(loader.dataset)


@torch.no_grad()
def evaluate(model, loader):
    model.eval()
    correct = sum((model(images).argmax(1) == labels).sum().item() for images, labels in loader)
    return correct / len(loader.dataset)


def weights_digest(model):
    digest = hashlib.sha256()
    for tensor in [*model.parameters(), *model.buffers()]:
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def main():
    parser = argparse.ArgumentParser(description="Augmented digits through DataLoader workers.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--lr", type=float, default=0.05)
    args = parser.parse_args()
    random.seed(args.seed)
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)

    images, labels = load_digits(return_X_y=True)
    places = np.random.default_rng(0).permutation(len(images))
    images, labels = images[places].reshape(-1, 8, 8) / 16.0, labels[places]
    train_set = Digits(images[:1437], labels[:1437], augment=True, seed=args.seed)
    train_loader = DataLoader(train_set, batch_size=32, shuffle=True, num_workers=2)
    val_loader = DataLoader(Digits(images[1437:], labels[1437:]), batch_size=120)

    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9)
    criterion = nn.CrossEntropyLoss()
    for epoch in range(1, args.epochs + 1):
        loss = train_epoch(model, train_loader, optimizer, criterion)
        print(f"epoch {epoch:2d}  loss {loss:.4f}  accuracy {evaluate(model, val_loader):.4f}")
    print("weights", weights_digest(model))


if __name__ == "__main__":
    main()
