"""A pool of two processes stays alive during the loop and makes each batch."""

import hashlib
import multiprocessing
import random

import torch
from torch import nn


def example(seed):
    generator = random.Random(seed)
    return [generator.gauss(0.0, 1.0) for _ in range(8)]


if __name__ == "__main__":
    model = nn.Linear(8, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with multiprocessing.Pool(2) as pool:
        for _ in range(60):
            inputs = torch.tensor(pool.map(example, torch.randint(2**31, (16,)).tolist()))
            loss = nn.functional.cross_entropy(model(inputs), inputs[:, :3].argmax(dim=1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    weights = nn.utils.parameters_to_vector(model.parameters()).detach()
    print("weights", hashlib.sha256(weights.numpy().tobytes()).hexdigest())
