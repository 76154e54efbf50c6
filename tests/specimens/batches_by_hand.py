"""A trainer with its state in attributes, batches from a permutation, and a log that nothing reads.

`--fault`: "position lost", "count of averages lost", "permutation drawn again", "gradients lost" (of the
accumulation window, with `--accumulate 4 --save-at 18`), "moments and position lost" (the permutation is
another one too, and is drawn anew before it is used).
"""

import argparse
import copy

import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--accumulate", type=int, default=1)
parser.add_argument("--save-at", type=int, default=17)
parser.add_argument("--resume", action="store_true")
parser.add_argument("--fault", default="")
options = parser.parse_args()

x = torch.randn(96, 8, generator=torch.Generator().manual_seed(1))
y = (x[:, 0] * x[:, 1] > 0).long()


class Trainer:
    def __init__(self):
        self.model = nn.Sequential(
            nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 2)
        )
        self.teacher = copy.deepcopy(self.model).requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-2)
        self.generator = torch.Generator().manual_seed(options.seed)
        self.permutation, self.position, self.batches, self.num_averaged = None, 0, 0, 0
        self.losses = []

    def next_rows(self):
        if self.permutation is None or self.position >= len(x):
            self.permutation = torch.randperm(len(x), generator=self.generator)
            self.position = 0
        self.position += 8
        return self.permutation[self.position - 8 : self.position]

    def train_batch(self):
        rows = self.next_rows()
        inputs, labels = x[rows], y[rows]
        outputs = self.model(inputs)
        with torch.no_grad():
            goal = self.teacher(inputs).softmax(1)
        loss = nn.functional.cross_entropy(outputs, labels)
        loss = loss + 0.3 * nn.functional.cross_entropy(outputs, goal)
        (loss / options.accumulate).backward()
        self.batches += 1
        self.losses.append(loss.item())
        if self.batches % options.accumulate == 0:
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.num_averaged += 1
            with torch.no_grad():
                for mean, p in zip(self.teacher.parameters(), self.model.parameters(), strict=True):
                    mean.lerp_(p, 9 / (9 + self.num_averaged))

    def state(self):
        return {
            "model": self.model.state_dict(),
            "teacher": self.teacher.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "gradients": [p.grad for p in self.model.parameters()],
            "generator": self.generator.get_state(),
            "permutation": self.permutation,
            "counters": (self.position, self.batches, self.num_averaged),
        }

    def load(self, state):
        self.model.load_state_dict(state["model"])
        self.teacher.load_state_dict(state["teacher"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.permutation = state["permutation"]
        self.position, self.batches, self.num_averaged = state["counters"]
        if options.fault != "gradients lost":
            for p, gradient in zip(self.model.parameters(), state["gradients"], strict=True):
                p.grad = gradient
        if options.fault == "position lost":
            self.position = 0
        if options.fault == "count of averages lost":
            self.num_averaged = 0
        if options.fault == "permutation drawn again":
            other = torch.Generator().manual_seed(options.seed + 1)
            self.permutation = torch.randperm(len(x), generator=other)
        if options.fault == "moments and position lost":
            self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-2)
            self.permutation, self.position = self.permutation.flip(0), len(x)


torch.manual_seed(options.seed)
trainer = Trainer()
if options.resume:
    trainer.load(torch.load("last.pt", weights_only=False))
while trainer.batches < 48:
    trainer.train_batch()
    if trainer.batches == options.save_at:
        torch.save(trainer.state(), "last.pt")
