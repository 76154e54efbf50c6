"""Each batch is drawn from torch's generator at the end of the step before, with noise for it.

`--fault`: "stream lost". The batch that the resumed run begins with is then another one too.
"""

import argparse

import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--resume", action="store_true")
parser.add_argument("--fault", default="")
options = parser.parse_args()

x = torch.randn(60, 3, generator=torch.Generator().manual_seed(1))
y = (x.sum(1) > 0).long()


class Trainer:
    def __init__(self):
        self.model = nn.Linear(3, 2)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.steps = 0

    def draw(self):
        rows = torch.randint(len(x), (8,))
        self.batch = x[rows], y[rows]
        self.noise = 0.1 * torch.randn(8, 3)

    def step(self):
        inputs, labels = self.batch
        loss = nn.functional.cross_entropy(self.model(inputs + self.noise), labels)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps += 1
        if self.steps % 5 == 0:
            torch.save(self.state(), "last.pt")
        self.draw()

    def state(self):
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": torch.get_rng_state(),
            "steps": self.steps,
        }

    def load(self, state):
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps = state["steps"]
        if options.fault != "stream lost":
            torch.set_rng_state(state["generator"])


torch.manual_seed(options.seed)
trainer = Trainer()
if options.resume:
    trainer.load(torch.load("last.pt", weights_only=False))
trainer.draw()
while trainer.steps < 40:
    trainer.step()
