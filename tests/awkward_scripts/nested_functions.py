"""Model and optimizer exist only as locals of nested functions."""

import hashlib

import torch
from torch import nn


def main():
    def train():
        model = nn.Linear(8, 3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def one_step():
            inputs = torch.randn(16, 8)
            loss = nn.functional.cross_entropy(model(inputs), inputs[:, :3].argmax(dim=1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        for _ in range(60):
            one_step()
        return nn.utils.parameters_to_vector(model.parameters()).detach()

    print("weights", hashlib.sha256(train().numpy().tobytes()).hexdigest())


main()
