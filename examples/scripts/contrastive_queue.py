"""Trains an encoder of digits without labels, by momentum contrast (He et al. 2020), and tests it
by the accuracy of its nearest neighbours.

Its habit: what the loss compares with is a queue of past keys, a buffer that no state_dict carries
(persistent=False), written at a pointer that is a plain int on the module; the keys come from a
copy of the encoder that follows it as a moving average and is never stepped by the optimizer.
"""

import argparse
import copy
import hashlib

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

QUEUE_SIZE = 512
WIDTH = 32


class MomentumContrast(nn.Module):
    def __init__(self, encoder, momentum=0.99, temperature=0.2):
        super().__init__()
        self.momentum = momentum
        self.temperature = temperature
        self.encoder_q = encoder
        self.encoder_k = copy.deepcopy(encoder).requires_grad_(False)
        queue = F.normalize(torch.randn(QUEUE_SIZE, WIDTH), dim=1)
        self.register_buffer("queue", queue, persistent=False)
        self.pointer = 0

    @torch.no_grad()
    def update_key_encoder(self):
        for q, k in zip(self.encoder_q.parameters(), self.encoder_k.parameters(), strict=True):
            k.lerp_(q, 1 - self.momentum)

    @torch.no_grad()
    def enqueue(self, keys):
        self.queue[self.pointer : self.pointer + len(keys)] = keys
        self.pointer = (self.pointer + len(keys)) % QUEUE_SIZE

    def forward(self, view_q, view_k):
        q = F.normalize(self.encoder_q(view_q), dim=1)
        with torch.no_grad():
            self.update_key_encoder()
            k = F.normalize(self.encoder_k(view_k), dim=1)
        positive = (q * k).sum(dim=1, keepdim=True)
        negative = q @ self.queue.clone().T
        logits = torch.cat([positive, negative], dim=1) / self.temperature
        self.enqueue(k)
        return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long))


def augment(images):
    """Erase a fifth of the pixels of each image, add noise to the others."""
    return F.dropout(images + 0.2 * torch.randn_like(images), 0.2)


@torch.no_grad()
def knn_accuracy(encoder, train, test, neighbours=5):
    encoder.eval()
    bank = F.normalize(encoder(train[0]), dim=1)
    similarity = F.normalize(encoder(test[0]), dim=1) @ bank.T
    votes = train[1][similarity.topk(neighbours, dim=1).indices]
    encoder.train()
    return (votes.mode(dim=1).values == test[1]).float().mean().item()


def weights_digest(model):
    digest = hashlib.sha256()
    for tensor in [*model.parameters(), *model.buffers()]:
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def main():
    parser = argparse.ArgumentParser(description="Momentum contrast on digits.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=20)
    args = parser.parse_args()
    torch.manual_seed(args.seed)

    images, labels = load_digits(return_X_y=True)
    places = np.random.default_rng(0).permutation(len(images))
    x = torch.tensor(images[places] / 16.0, dtype=torch.float32)
    y = torch.tensor(labels[places])
    loader = DataLoader(TensorDataset(x[:1437]), batch_size=64, shuffle=True, drop_last=True)

    model = MomentumContrast(nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, WIDTH)))
    optimizer = torch.optim.SGD(model.encoder_q.parameters(), lr=0.1, momentum=0.9)
    for epoch in range(1, args.epochs + 1):
        total = 0.0
        for (batch,) in loader:
            loss = model(augment(batch), augment(batch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        print(f"epoch {epoch:2d}  loss {total / len(loader):.4f}")
    accuracy = knn_accuracy(model.encoder_q, (x[:1437], y[:1437]), (x[1437:], y[1437:]))
    print(f"nearest-neighbour accuracy {accuracy:.4f}")
    print("weights", weights_digest(model))


if __name__ == "__main__":
    main()
