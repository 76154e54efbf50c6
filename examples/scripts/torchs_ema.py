"""Trains an MLP with BatchNorm on digits by SGD under a MultiStepLR, and averages its weights.

Its habit: the average is torch's own `AveragedModel`, whose BatchNorm statistics are measured by
`update_bn` once training is over, and the log is a file, `log.csv` in the working directory, that
is opened at the start, gets a line each epoch and is closed at the end.
"""

import argparse
import hashlib

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from torch.utils.data import DataLoader, TensorDataset


def load_data():
    images, labels = load_digits(return_X_y=True)
    places = np.random.default_rng(0).permutation(len(images))
    inputs = torch.tensor(images[places] / 16.0, dtype=torch.float32)
    targets = torch.tensor(labels[places])
    return (
        TensorDataset(inputs[:1437], targets[:1437]),
        TensorDataset(inputs[1437:], targets[1437:]),
    )


def make_model():
    return nn.Sequential(
        nn.Linear(64, 128),
        nn.BatchNorm1d(128),
        nn.ReLU(),
        nn.Linear(128, 128),
        nn.BatchNorm1d(128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


@torch.no_grad()
def evaluate(model, dataset):
    model.eval()
    inputs, targets = dataset.tensors
    return (model(inputs).argmax(dim=1) == targets).float().mean().item()


def weights_digest(*models):
    digest = hashlib.sha256()
    for model in models:
        for tensor in [*model.parameters(), *model.buffers()]:
            digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def main():
    parser = argparse.ArgumentParser(description="Digits with torch's averaged model.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--lr", type=float, default=0.05)
    args = parser.parse_args()
    torch.manual_seed(args.seed)

    train_set, test_set = load_data()
    loader = DataLoader(train_set, batch_size=64, shuffle=True, drop_last=True)
    model = make_model()
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.98))
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9, weight_decay=5e-4)
    milestones = [args.epochs // 2, args.epochs * 3 // 4]
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.1)
    criterion = nn.CrossEntropyLoss()

    log = open("log.csv", "w")
    log.write("epoch,lr,loss,accuracy\n")
    for epoch in range(1, args.epochs + 1):
        model.train()
        total = 0.0
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = criterion(model(inputs), targets)
            loss.backward()
            optimizer.step()
            averaged.update_parameters(model)
            total += loss.item()
        accuracy = evaluate(model, test_set)
        lr = scheduler.get_last_lr()[0]
        log.write(f"{epoch},{lr:g},{total / len(loader):.6f},{accuracy:.6f}\n")
        print(f"epoch {epoch:2d}  loss {total / len(loader):.4f}  accuracy {accuracy:.4f}")
        scheduler.step()

    update_bn(loader, averaged)
    print(f"averaged accuracy {evaluate(averaged, test_set):.4f}")
    log.close()
    print("weights", weights_digest(model, averaged))


if __name__ == "__main__":
    main()
