"""Trains a generator and a discriminator against each other on digits.

Its habit: two optimizers, both Adam with betas (0.5, 0.999), take turns in every iteration: the
discriminator steps on real and generated images, then the generator steps through it.
"""

import argparse
import hashlib

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

LATENT = 16


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(LATENT, 64),
            nn.BatchNorm1d(64),
            nn.ReLU(),
            nn.Linear(64, 128),
            nn.BatchNorm1d(128),
            nn.ReLU(),
            nn.Linear(128, 64),
            nn.Tanh(),
        )

    def forward(self, z):
        return self.net(z)


class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(64, 128),
            nn.LeakyReLU(0.2),
            nn.Dropout(0.2),
            nn.Linear(128, 64),
            nn.LeakyReLU(0.2),
            nn.Linear(64, 1),
        )

    def forward(self, x):
        return self.net(x).squeeze(1)


def load_real_images():
    images, _ = load_digits(return_X_y=True)
    places = np.random.default_rng(0).permutation(len(images))
    return torch.tensor(images[places][:1437] / 8.0 - 1.0, dtype=torch.float32)


def weights_digest(*models):
    digest = hashlib.sha256()
    for model in models:
        for tensor in [*model.parameters(), *model.buffers()]:
            digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def main():
    parser = argparse.ArgumentParser(description="A GAN on digits.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--lr", type=float, default=1e-3)
    args = parser.parse_args()
    torch.manual_seed(args.seed)

    dataset = TensorDataset(load_real_images())
    loader = DataLoader(dataset, batch_size=64, shuffle=True, drop_last=True)
    generator, discriminator = Generator(), Discriminator()
    opt_g = torch.optim.Adam(generator.parameters(), lr=args.lr, betas=(0.5, 0.999))
    opt_d = torch.optim.Adam(discriminator.parameters(), lr=args.lr, betas=(0.5, 0.999))
    criterion = nn.BCEWithLogitsLoss()

    for epoch in range(1, args.epochs + 1):
        total_d = total_g = 0.0
        for (real,) in loader:
            ones, zeros = torch.ones(len(real)), torch.zeros(len(real))
            fake = generator(torch.randn(len(real), LATENT))

            opt_d.zero_grad()
            loss_d = criterion(discriminator(real), ones)
            loss_d = loss_d + criterion(discriminator(fake.detach()), zeros)
            loss_d.backward()
            opt_d.step()

            opt_g.zero_grad()
            loss_g = criterion(discriminator(fake), ones)
            loss_g.backward()
            opt_g.step()

            total_d += loss_d.item()
            total_g += loss_g.item()
        print(f"epoch {epoch:2d}  D {total_d / len(loader):.4f}  G {total_g / len(loader):.4f}")
    print("weights", weights_digest(generator, discriminator))


if __name__ == "__main__":
    main()
